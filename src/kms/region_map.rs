//! A bounded map by Region. Pure: the time is passed in.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

/// The most Regions in the map. DataKeys can name any number of Regions over time.
const MAX_REGIONS: usize = 64;

/// How long a Region stays in the map after its last use.
pub const IDLE_TIMEOUT: Duration = Duration::from_mins(10);

/// One value for each Region in use.
pub struct RegionMap<T> {
    /// The values, each with the time of its last use.
    regions: BTreeMap<String, (T, Instant)>,
}

// === impl RegionMap ===

impl<T> Default for RegionMap<T> {
    fn default() -> Self {
        Self { regions: BTreeMap::new() }
    }
}

impl<T: Clone> RegionMap<T> {
    /// The value of a Region, made if the Region has none; `None` if the map is full.
    pub fn get_or_make(&mut self, region: &str, now: Instant, make: impl FnOnce() -> T) -> Option<T> {
        if let Some((value, used)) = self.regions.get_mut(region) {
            *used = now;
            return Some(value.clone());
        }
        (self.regions.len() < MAX_REGIONS).then(|| {
            let value = make();
            self.regions.insert(region.to_owned(), (value.clone(), now));
            value
        })
    }

    /// Replaces every value.
    pub fn replace_all(&mut self, make: impl Fn(&str) -> T) {
        for (region, (value, _)) in &mut self.regions {
            *value = make(region);
        }
    }

    /// Removes the Regions that are idle and not busy, and returns their names.
    pub fn remove_idle(&mut self, now: Instant, is_busy: impl Fn(&str) -> bool) -> Vec<String> {
        let idle = self.regions.extract_if(.., |region, (_, used)| {
            now.saturating_duration_since(*used) >= IDLE_TIMEOUT && !is_busy(region)
        });
        idle.map(|(region, _)| region).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn at_most_64_regions_have_a_value_until_they_are_idle() {
        let mut map = RegionMap::default();
        let get = |map: &mut RegionMap<usize>, number: usize| {
            map.get_or_make(&format!("xx-{number}"), Instant::now(), || number).is_some()
        };
        assert!((0..100).all(|number| get(&mut map, number) == (number < MAX_REGIONS)));
        tokio::time::advance(IDLE_TIMEOUT / 2).await;
        assert!(get(&mut map, 0) && !get(&mut map, 64));
        tokio::time::advance(IDLE_TIMEOUT / 2).await;
        let removed = map.remove_idle(Instant::now(), |region| region == "xx-1");
        assert_eq!(removed.len(), MAX_REGIONS - 2, "one was used since, one is busy");
        assert!(get(&mut map, 64));
    }
}
