//! The AWS Regions that the operator may call. A DataKey can name any Region, and each one that is called costs a client, a
//! lane and metrics. Pure.

use std::collections::BTreeSet;

/// The Regions of all partitions, one on each line. `make generate` writes the file from botocore.
const AWS_REGIONS: &str = include_str!("regions.txt");

/// The Regions that may be called.
pub struct Regions(BTreeSet<String>);

/// Whether a text has the form of a Region name. The definition requires the same of `spec.region`.
pub fn has_valid_form(name: &str) -> bool {
    let parts: Vec<_> = name.split('-').collect();
    let [first, middle @ .., number] = &parts[..] else { return false };
    let is_word = |part: &&str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase());
    let is_number = (1..=2).contains(&number.len()) && number.bytes().all(|byte| byte.is_ascii_digit());
    name.len() <= 32
        && first.len() >= 2
        && is_word(first)
        && !middle.is_empty()
        && middle.iter().all(is_word)
        && is_number
}

// === impl Regions ===

impl Regions {
    /// The Regions of AWS, the extra Regions, and the operator's own Region.
    pub fn new(extra: Vec<String>, own: Option<&str>) -> Self {
        let own = own.filter(|own| has_valid_form(own)).map(str::to_owned);
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
    fn the_list_has_the_regions_of_all_partitions() {
        let regions: Vec<_> = AWS_REGIONS.lines().collect();
        assert!(regions.is_sorted() && regions.len() > 40);
        for region in ["us-east-1", "eu-west-1", "cn-north-1", "us-gov-west-1", "us-iso-east-1", "eusc-de-east-1"] {
            assert!(regions.contains(&region), "{region}");
        }
        assert!(regions.iter().all(|region| has_valid_form(region)));
    }

    #[test]
    fn malformed_region_names_are_rejected() {
        for wrong in
            ["", "eu", "eu-west", "eu-west-", "e-west-1", "eu-west-123", "EU-west-1", "eu--1", "eu-west-1 ", "1-2-3"]
        {
            assert!(!has_valid_form(wrong), "{wrong}");
        }
        assert!(!has_valid_form(&format!("eu-{}-1", "w".repeat(30))));
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
