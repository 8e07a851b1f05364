//! How many calls each lane may have in flight, so that a lane that does not answer delays no other one. Pure.
//!
//! Every lane is sure of a few places, whatever the others do. A lane whose last call was answered may have more, out of a
//! reserve that all lanes share. So calls that hang, wait or crawl in one lane never take the place of a call in another one,
//! and all of them together stay below a fixed number.

/// The places of all lanes.
#[derive(Clone, Copy, Debug)]
pub struct Shares {
    /// What each lane is sure of, while there are no more than `sure / each` lanes; with more lanes it is less, but one.
    each: usize,
    /// What all lanes together are sure of.
    sure: u16,
    /// What lanes that answer have beyond that, all together.
    reserve: u16,
    /// What one lane has at most.
    most: usize,
}

/// The places that are taken.
#[derive(Clone, Copy, Debug, Default)]
pub struct Taken {
    lanes: usize,
    all: usize,
    of_the_reserve: usize,
}

// === impl Shares ===

impl Shares {
    /// Each call in flight holds a connection of its own, with the buffers of TLS.
    pub const DEFAULT: Self = Self { each: 4, sure: 256, reserve: 128, most: 64 };

    /// As many as all lanes together ever have.
    pub const fn all(self) -> u16 {
        self.sure + self.reserve
    }

    /// Counts the places that lanes have taken.
    pub fn taken(self, lanes: impl Iterator<Item = usize>) -> Taken {
        lanes.fold(Taken::default(), |taken, places| Taken {
            lanes: taken.lanes + 1,
            all: taken.all + places,
            of_the_reserve: taken.of_the_reserve + places.saturating_sub(self.each),
        })
    }

    /// Whether a lane that has these places may take one more.
    pub fn permits(self, taken: Taken, own: usize, answers: bool) -> bool {
        let sure = (usize::from(self.sure) / taken.lanes.max(1)).clamp(1, self.each);
        let of_the_reserve = answers && own < self.most && taken.of_the_reserve < self.reserve.into();
        taken.all < self.all().into() && (own < sure || of_the_reserve)
    }

    /// Counts one more place of a lane that had these.
    pub fn take(self, taken: &mut Taken, own: usize) {
        taken.all += 1;
        taken.of_the_reserve += usize::from(own >= self.each);
    }

    /// More than any test takes.
    #[cfg(test)]
    pub const UNLIMITED: Self = Self { each: 30_000, sure: 30_000, reserve: 30_000, most: 30_000 };
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARES: Shares = Shares::DEFAULT;

    /// Gives places to lanes in turn until none may take another one. Each lane: what it has, and whether it answers.
    fn fill(lanes: &mut [(usize, bool)]) {
        loop {
            let mut taken = SHARES.taken(lanes.iter().map(|(places, _)| *places));
            let before = taken.all;
            for (places, answers) in &mut *lanes {
                if SHARES.permits(taken, *places, *answers) {
                    SHARES.take(&mut taken, *places);
                    *places += 1;
                }
            }
            assert_eq!(taken.all, lanes.iter().map(|(places, _)| places).sum::<usize>());
            if taken.all == before {
                return;
            }
        }
    }

    #[test]
    fn a_lane_is_sure_of_its_places_whatever_the_others_hold() {
        for others in [1, 10, 63] {
            for answer in [false, true] {
                let mut lanes = vec![(0, answer); others];
                fill(&mut lanes);
                lanes.push((0, false));
                fill(&mut lanes);
                assert_eq!(lanes[others].0, SHARES.each, "{others} lanes before it, that answer: {answer}");
            }
        }
    }

    #[test]
    fn a_lane_that_does_not_answer_has_few_and_one_that_does_many() {
        let mut lanes = [(0, false), (0, true)];
        fill(&mut lanes);
        assert_eq!(lanes, [(4, false), (64, true)]);
    }

    #[test]
    fn all_lanes_together_stay_below_the_bound() {
        for lanes in [1, 7, 64, 65, 200, 1000] {
            for answer in [false, true] {
                let mut lanes = vec![(0, answer); lanes];
                fill(&mut lanes);
                assert!(lanes.iter().map(|(places, _)| places).sum::<usize>() <= SHARES.all().into());
            }
        }
    }

    #[test]
    fn with_more_lanes_than_places_each_that_is_served_has_one() {
        let mut lanes = vec![(0, false); 300];
        fill(&mut lanes);
        assert!(lanes.iter().all(|(places, _)| *places <= 1));
    }
}
