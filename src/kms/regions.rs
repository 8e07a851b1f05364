//! The AWS Regions that the operator may call. A DataKey can name any Region, and each one that is called costs a client, a
//! lane and metrics. Pure.

use std::collections::BTreeSet;

use datakey::arn;

/// The Regions of all partitions, one on each line. `make generate` writes the file from botocore.
const AWS_REGIONS: &str = include_str!("regions.txt");

/// The Regions that may be called.
pub struct Regions(BTreeSet<String>);

// === impl Regions ===

impl Regions {
    /// The Regions of AWS, the extra Regions, and the operator's own Region.
    pub fn new(extra: Vec<String>, own: Option<&str>) -> Self {
        let own = own.filter(|own| arn::is_region_field(own)).map(str::to_owned);
        Self(AWS_REGIONS.lines().map(str::to_owned).chain(extra).chain(own).collect())
    }

    /// Whether this Region may be called.
    pub fn is_known(&self, region: &str) -> bool {
        self.0.contains(region)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_has_the_regions_of_all_partitions() {
        let regions: Vec<_> = AWS_REGIONS.lines().collect();
        assert!(regions.is_sorted() && regions.len() > 40);
        for region in ["us-east-1", "eu-west-1", "cn-north-1", "us-gov-west-1", "us-iso-east-1", "eusc-de-east-1"] {
            assert!(regions.contains(&region), "{region}");
        }
        assert!(regions.iter().all(|region| arn::is_region_field(region)));
    }

    #[test]
    fn malformed_own_region_is_not_known() {
        let is_known = |own: &str| Regions::new(Vec::new(), Some(own)).is_known(own);
        for wrong in
            ["", "eu", "eu-west", "eu-west-", "e-west-1", "eu-west-123", "EU-west-1", "eu--1", "eu-west-1 ", "1-2-3"]
        {
            assert!(!is_known(wrong), "{wrong}");
        }
        assert!(!is_known(&format!("eu-{}-1", "w".repeat(30))));
    }

    #[test]
    fn extra_regions_and_the_own_region_are_known() {
        let regions = Regions::new(vec!["xx-extra-1".to_owned()], Some("xx-own-1"));
        for known in ["eu-west-1", "xx-extra-1", "xx-own-1"] {
            assert!(regions.is_known(known), "{known}");
        }
        for unknown in ["zz-xxxx-1", "", "EU-WEST-1"] {
            assert!(!regions.is_known(unknown), "{unknown}");
        }
        assert!(!Regions::new(Vec::new(), Some("nowhere")).is_known("nowhere"));
    }
}
