//! The AWS Regions that the operator calls. A DataKey can name anything, and each Region that is called holds a client, a lane
//! and metrics. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tokio::time::Instant;

/// Every Region of every partition, one a line. `make generate` writes it from botocore.
const OF_AWS: &str = include_str!("regions.txt");

/// How many Regions hold something at the same time.
const MOST: usize = 64;

/// How long after its last call a Region holds what it has.
pub const IDLE: Duration = Duration::from_mins(10);

/// The Regions that may be called.
pub struct Regions(BTreeSet<String>);

/// What Regions hold while they are called: a bounded number of them, each until it is idle.
pub struct Held<T> {
    regions: BTreeMap<String, (T, Instant)>,
}

/// Whether a text has the form of a Region's name, as the definition requires it of `spec.region`.
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
    /// Those of AWS, these besides, and the operator's own.
    pub fn new(extra: Vec<String>, own: Option<&str>) -> Self {
        let own = own.filter(|own| has_valid_form(own)).map(str::to_owned);
        Self(OF_AWS.lines().map(str::to_owned).chain(extra).chain(own).collect())
    }

    /// Whether this Region may be called.
    pub fn is_known(&self, region: &str) -> bool {
        self.0.contains(region)
    }
}

// === impl Held ===

impl<T> Default for Held<T> {
    fn default() -> Self {
        Self { regions: BTreeMap::new() }
    }
}

impl<T: Clone> Held<T> {
    /// What a Region holds, made where it holds nothing yet; `None` where too many others hold something.
    pub fn get_or_make(&mut self, region: &str, now: Instant, make: impl FnOnce() -> T) -> Option<T> {
        if let Some((held, used)) = self.regions.get_mut(region) {
            *used = now;
            return Some(held.clone());
        }
        (self.regions.len() < MOST).then(|| {
            let new = make();
            self.regions.insert(region.to_owned(), (new.clone(), now));
            new
        })
    }

    /// Gives each Region that holds something another one instead.
    pub fn replace(&mut self, make: impl Fn(&str) -> T) {
        for (region, (held, _)) in &mut self.regions {
            *held = make(region);
        }
    }

    /// Drops what idle Regions hold, and returns their names. One that is busy is not idle.
    pub fn drop_idle(&mut self, now: Instant, is_busy: impl Fn(&str) -> bool) -> Vec<String> {
        let idle = self
            .regions
            .extract_if(.., |region, (_, used)| now.saturating_duration_since(*used) >= IDLE && !is_busy(region));
        idle.map(|(region, _)| region).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_has_the_regions_of_all_partitions_in_their_form() {
        let regions: Vec<_> = OF_AWS.lines().collect();
        assert!(regions.is_sorted() && regions.len() > 40);
        for region in ["us-east-1", "eu-west-1", "cn-north-1", "us-gov-west-1", "us-iso-east-1", "eusc-de-east-1"] {
            assert!(regions.contains(&region), "{region}");
        }
        assert!(regions.iter().all(|region| has_valid_form(region)));
    }

    #[test]
    fn what_is_no_region_has_no_valid_form() {
        for wrong in
            ["", "eu", "eu-west", "eu-west-", "e-west-1", "eu-west-123", "EU-west-1", "eu--1", "eu-west-1 ", "1-2-3"]
        {
            assert!(!has_valid_form(wrong), "{wrong}");
        }
        assert!(!has_valid_form(&format!("eu-{}-1", "w".repeat(30))));
    }

    #[test]
    fn extra_regions_and_the_operators_own_are_known() {
        let regions = Regions::new(vec!["xx-extra-1".to_owned()], Some("xx-own-1"));
        for known in ["eu-west-1", "xx-extra-1", "xx-own-1"] {
            assert!(regions.is_known(known), "{known}");
        }
        for unknown in ["zz-xxxx-1", "", "EU-WEST-1"] {
            assert!(!regions.is_known(unknown), "{unknown}");
        }
        assert!(!Regions::new(Vec::new(), Some("nowhere")).is_known("nowhere"));
    }

    #[tokio::test(start_paused = true)]
    async fn at_most_64_regions_hold_something_until_they_are_idle() {
        let mut held = Held::default();
        let get = |held: &mut Held<usize>, number: usize| {
            held.get_or_make(&format!("xx-{number}"), Instant::now(), || number).is_some()
        };
        assert!((0..100).all(|number| get(&mut held, number) == (number < MOST)));
        tokio::time::advance(IDLE / 2).await;
        assert!(get(&mut held, 0) && !get(&mut held, 64));
        tokio::time::advance(IDLE / 2).await;
        let dropped = held.drop_idle(Instant::now(), |region| region == "xx-1");
        assert_eq!(dropped.len(), MOST - 2, "one was called lately, one is busy");
        assert!(get(&mut held, 64));
    }
}
