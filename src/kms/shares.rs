//! How many calls each lane may have in flight, so that a lane that does not answer does not delay the others. Pure.
//!
//! Each lane is guaranteed a few calls, whatever the other lanes do. A lane whose last call was answered may have more, out of a
//! reserve that all lanes share. So slow or unanswered calls in one lane never use up the calls of another lane, and the total
//! is bounded.

/// The limits of all lanes, in calls in flight.
#[derive(Clone, Copy, Debug)]
pub struct Shares {
    /// What each lane is guaranteed as long as the total suffices. With more lanes than that it is less, but at least one call.
    each: usize,
    /// What all lanes together are guaranteed.
    guaranteed: u16,
    /// What all lanes that answer may have in addition, together.
    reserve: u16,
    /// The most that one lane may have.
    most: usize,
}

/// The calls in flight of all lanes.
#[derive(Clone, Copy, Debug, Default)]
pub struct InUse {
    lanes: usize,
    all: usize,
    of_the_reserve: usize,
}

// === impl Shares ===

impl Shares {
    /// The limits of the operator. They bound its memory: each call in flight holds a connection, with the buffers of TLS.
    pub const DEFAULT: Self = Self { each: 4, guaranteed: 256, reserve: 128, most: 64 };

    /// The most that all lanes together may have.
    pub const fn all(self) -> u16 {
        self.guaranteed + self.reserve
    }

    /// Sums up the calls of the lanes.
    pub fn in_use(self, lanes: impl Iterator<Item = usize>) -> InUse {
        lanes.fold(InUse::default(), |in_use, calls| InUse {
            lanes: in_use.lanes + 1,
            all: in_use.all + calls,
            of_the_reserve: in_use.of_the_reserve + calls.saturating_sub(self.each),
        })
    }

    /// Whether a lane that has `own` calls may have one more.
    pub fn allow(self, in_use: InUse, own: usize, is_answering: bool) -> bool {
        let guaranteed = (usize::from(self.guaranteed) / in_use.lanes.max(1)).clamp(1, self.each);
        let of_the_reserve = is_answering && own < self.most && in_use.of_the_reserve < self.reserve.into();
        in_use.all < self.all().into() && (own < guaranteed || of_the_reserve)
    }

    /// Adds one call of a lane that had `own` calls before.
    pub fn count_one_more(self, in_use: &mut InUse, own: usize) {
        in_use.all += 1;
        in_use.of_the_reserve += usize::from(own >= self.each);
    }

    /// More than any test uses.
    #[cfg(test)]
    pub const UNLIMITED: Self = Self { each: 30_000, guaranteed: 30_000, reserve: 30_000, most: 30_000 };
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARES: Shares = Shares::DEFAULT;

    /// Adds calls to the lanes, one lane after the other, until no lane may have more. A lane is its calls, and whether it answers.
    fn fill(lanes: &mut [(usize, bool)]) {
        loop {
            let mut in_use = SHARES.in_use(lanes.iter().map(|(calls, _)| *calls));
            let before = in_use.all;
            for (calls, is_answering) in &mut *lanes {
                if SHARES.allow(in_use, *calls, *is_answering) {
                    SHARES.count_one_more(&mut in_use, *calls);
                    *calls += 1;
                }
            }
            assert_eq!(in_use.all, lanes.iter().map(|(calls, _)| calls).sum::<usize>());
            if in_use.all == before {
                return;
            }
        }
    }

    #[test]
    fn each_lane_has_its_guaranteed_calls() {
        for others in [1, 10, 63] {
            for answer in [false, true] {
                let mut lanes = vec![(0, answer); others];
                fill(&mut lanes);
                lanes.push((0, false));
                fill(&mut lanes);
                assert_eq!(lanes[others].0, SHARES.each, "{others} other lanes, which answer: {answer}");
            }
        }
    }

    #[test]
    fn answering_lane_may_have_more_calls() {
        let mut lanes = [(0, false), (0, true)];
        fill(&mut lanes);
        assert_eq!(lanes, [(4, false), (64, true)]);
    }

    #[test]
    fn total_of_all_lanes_is_bounded() {
        for lanes in [1, 7, 64, 65, 200, 1000] {
            for answer in [false, true] {
                let mut lanes = vec![(0, answer); lanes];
                fill(&mut lanes);
                assert!(lanes.iter().map(|(calls, _)| calls).sum::<usize>() <= SHARES.all().into());
            }
        }
    }

    #[test]
    fn each_of_very_many_lanes_has_at_most_one_call() {
        let mut lanes = vec![(0, false); 300];
        fill(&mut lanes);
        assert!(lanes.iter().all(|(calls, _)| *calls <= 1));
    }
}
