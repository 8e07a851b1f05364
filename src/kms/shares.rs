//! How many calls each lane may have in flight, so that an endpoint that does not answer does not delay the others. Pure.
//!
//! Each quota of KMS in a Region is guaranteed a few calls, whatever the others do; the lanes of all accounts share them. One whose last
//! call was answered may have more, out of a reserve that all share; the first call of a lane may exceed that a little. So slow or unanswered
//! calls in one Region never use up the calls of another one, and the total is bounded. It does not matter which account calls: what
//! does not answer is the endpoint of a Region.

/// The limits, in calls in flight.
#[derive(Clone, Copy, Debug)]
pub struct Shares {
    /// What each quota in a Region is guaranteed as long as the total suffices. With more of them than that it is less, but at least
    /// one call.
    each: usize,
    /// What all together are guaranteed.
    guaranteed: u16,
    /// What all that answer may have in addition, together.
    reserve: u16,
    /// How far the first calls of lanes may exceed the reserve, so that the calls of few lanes do not delay those of others.
    firsts: u16,
    /// The most that one lane may have.
    most: usize,
}

/// The calls in flight of all lanes.
#[derive(Clone, Copy, Debug, Default)]
pub struct InUse {
    groups: usize,
    all: usize,
    of_the_reserve: usize,
}

/// The calls in flight of one lane, and of all lanes of the same quota in the same Region.
#[derive(Clone, Copy, Debug)]
pub struct Own {
    /// Of the lane.
    pub lane: usize,
    /// Of all accounts.
    pub group: usize,
    /// Whether the last call of the group was answered.
    pub is_answering: bool,
}

// === impl Shares ===

impl Shares {
    /// The limits of the operator. They bound its memory: each call in flight holds a connection, with the buffers of TLS.
    pub const DEFAULT: Self = Self { each: 4, guaranteed: 256, reserve: 128, firsts: 64, most: 64 };

    /// The most that all lanes together may have.
    pub const fn all(self) -> u16 {
        self.guaranteed + self.reserve
    }

    /// Sums up the calls of the quotas in their Regions.
    pub fn in_use(self, groups: impl Iterator<Item = usize>) -> InUse {
        groups.fold(InUse::default(), |in_use, calls| InUse {
            groups: in_use.groups + 1,
            all: in_use.all + calls,
            of_the_reserve: in_use.of_the_reserve + calls.saturating_sub(self.each),
        })
    }

    /// Whether a lane may have one more call.
    pub fn allow(self, in_use: InUse, own: Own) -> bool {
        let guaranteed = (usize::from(self.guaranteed) / in_use.groups.max(1)).clamp(1, self.each);
        let has_reserve = |more: u16| in_use.of_the_reserve < (self.reserve + more).into();
        let more = if own.lane == 0 { has_reserve(self.firsts) } else { own.lane < self.most && has_reserve(0) };
        let is_allowed = own.group < guaranteed || own.is_answering && more;
        in_use.all < self.all().into() && is_allowed
    }

    /// Adds one call of a lane.
    pub fn count_one_more(self, in_use: &mut InUse, own: Own) {
        in_use.all += 1;
        in_use.of_the_reserve += usize::from(own.group >= self.each);
    }

    /// More than any test uses.
    #[cfg(test)]
    pub const UNLIMITED: Self = Self { each: 30_000, guaranteed: 30_000, reserve: 30_000, firsts: 0, most: 30_000 };
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARES: Shares = Shares::DEFAULT;

    /// A lane: its group, its calls, and whether the group answers.
    type Lane = (usize, usize, bool);

    /// Lanes without calls, each of a group of its own.
    fn lanes(number: usize, is_answering: bool) -> Vec<Lane> {
        (0..number).map(|group| (group, 0, is_answering)).collect()
    }

    fn in_group(lanes: &[Lane], group: usize) -> usize {
        lanes.iter().filter(|(of, ..)| *of == group).map(|(_, calls, _)| calls).sum()
    }

    /// Adds calls to the lanes, one lane after the other, until no lane may have more.
    fn fill(lanes: &mut [Lane]) {
        loop {
            let groups: std::collections::BTreeSet<_> = lanes.iter().map(|(group, ..)| *group).collect();
            let mut in_use = SHARES.in_use(groups.into_iter().map(|group| in_group(lanes, group)));
            let before = in_use.all;
            for number in 0..lanes.len() {
                let (group, lane, is_answering) = lanes[number];
                let own = Own { lane, group: in_group(lanes, group), is_answering };
                if SHARES.allow(in_use, own) {
                    SHARES.count_one_more(&mut in_use, own);
                    lanes[number].1 += 1;
                }
            }
            assert_eq!(in_use.all, lanes.iter().map(|(_, calls, _)| calls).sum::<usize>());
            if in_use.all == before {
                return;
            }
        }
    }

    #[test]
    fn each_lane_has_its_guaranteed_calls() {
        for others in [1, 10, 63] {
            for answer in [false, true] {
                let mut lanes = lanes(others, answer);
                fill(&mut lanes);
                lanes.push((others, 0, false));
                fill(&mut lanes);
                assert_eq!(lanes[others].1, SHARES.each, "{others} other lanes, which answer: {answer}");
            }
        }
    }

    #[test]
    fn answering_lane_may_have_more_calls() {
        let mut lanes = [(0, 0, false), (1, 0, true)];
        fill(&mut lanes);
        assert_eq!(lanes.map(|(_, calls, _)| calls), [4, 64]);
    }

    #[test]
    fn total_of_all_lanes_is_bounded() {
        for number in [1, 7, 64, 65, 200, 1000] {
            for answer in [false, true] {
                let mut lanes = lanes(number, answer);
                fill(&mut lanes);
                assert!(lanes.iter().map(|(_, calls, _)| calls).sum::<usize>() <= SHARES.all().into());
            }
        }
    }

    #[test]
    fn each_of_very_many_lanes_has_at_most_one_call() {
        let mut lanes = lanes(300, false);
        fill(&mut lanes);
        assert!(lanes.iter().all(|(_, calls, _)| *calls <= 1));
    }

    /// 47 Regions with 7 quotas each are 329 groups; each account has a lane in each of them.
    #[test]
    fn hanging_regions_of_many_accounts_leave_calls_to_the_others() {
        let mut lanes: Vec<_> = (0..5).flat_map(|_| lanes(329, false)).collect();
        fill(&mut lanes);
        lanes.extend([(329, 0, true); 10]);
        fill(&mut lanes);
        assert!(lanes[lanes.len() - 10..].iter().all(|(_, calls, _)| *calls > 0));
    }

    #[test]
    fn accounts_of_one_region_leave_calls_to_the_others() {
        let mut lanes = vec![(0, 0, true); 500];
        fill(&mut lanes);
        lanes.push((1, 0, false));
        fill(&mut lanes);
        assert_eq!(lanes[500].1, SHARES.each);
    }

    #[test]
    fn accounts_of_a_hanging_region_share_its_guaranteed_calls() {
        let mut lanes = [(0, 0, false), (0, 0, false), (0, 0, false), (1, 0, false)];
        fill(&mut lanes);
        assert_eq!((in_group(&lanes, 0), in_group(&lanes, 1)), (SHARES.each, SHARES.each));
    }
}
