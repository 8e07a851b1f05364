//! How many calls KMS may receive in a second, for each of its request quotas. Pure.

use std::{
    collections::BTreeMap,
    fmt,
    num::{NonZeroU32, NonZeroU64},
    time::Duration,
};

use datakey::api::QuotaClass;

use super::lane_id::LaneId;

/// The part of a quota of KMS that the operator uses by default: everything else in the account shares it.
const QUARTER: u64 = 4;

/// In these parts of a call per second rates are counted.
const A_THOUSAND: NonZeroU64 = NonZeroU64::new(1000).unwrap();

/// The partition of AWS that has smaller quotas begins its Regions with this.
const CHINA: &str = "cn-";

/// Calls per second, in steps of a thousandth. A rate may be below one call a second.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rate {
    thousandths: NonZeroU64,
}

/// The rates of all lanes.
#[derive(Clone, Debug)]
pub struct Rates {
    symmetric: Rate,
    pairs: BTreeMap<QuotaClass, Rate>,
}

// === impl Rate ===

impl Rate {
    /// One call in 1000 seconds.
    pub const LOWEST: Self = Self { thousandths: NonZeroU64::MIN };

    /// One million calls in a second.
    pub const HIGHEST: Self = Self::new(NonZeroU64::new(1_000_000).unwrap());

    /// Whole calls per second.
    pub const fn new(per_second: NonZeroU64) -> Self {
        Self { thousandths: per_second.saturating_mul(A_THOUSAND) }
    }

    /// A decimal number of calls per second, of at most three places; `None` for anything else, and out of bounds.
    pub fn parse(text: &str) -> Option<Self> {
        let (whole, places) = text.split_once('.').unwrap_or((text, "0"));
        let are_digits =
            |part: &str, most| (1..=most).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
        if !are_digits(whole, 7) || !are_digits(places, 3) {
            return None;
        }
        let thousandths = format!("{whole}{places:0<3}").parse().ok().and_then(NonZeroU64::new)?;
        Some(Self { thousandths }).filter(|rate| (Self::LOWEST..=Self::HIGHEST).contains(rate))
    }

    /// Calls per second.
    #[allow(clippy::cast_precision_loss, reason = "the highest rate has ten digits")]
    pub fn per_second(self) -> f64 {
        self.thousandths.get() as f64 / 1000.0
    }

    /// The most calls in one [`Self::period`]: those of a second, and at least one.
    pub fn calls(self) -> usize {
        usize::try_from(self.thousandths.get() / 1000).unwrap_or(usize::MAX).max(1)
    }

    /// The time in which there are at most [`Self::calls`] calls. It is one second where the rate is a whole number.
    pub fn period(self) -> Duration {
        let calls = (self.thousandths.get() / 1000).max(1);
        Duration::from_nanos(calls.saturating_mul(1_000_000_000_000) / self.thousandths)
    }
}

impl fmt::Debug for Rate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/s", self.per_second())
    }
}

impl From<NonZeroU32> for Rate {
    fn from(per_second: NonZeroU32) -> Self {
        Self::new(per_second.into())
    }
}

// === impl Rates ===

impl Rates {
    /// The rate of symmetric calls in each Region, and those of key pairs that do not have their default.
    pub fn new(symmetric: Rate, pairs: impl IntoIterator<Item = (QuotaClass, Rate)>) -> Self {
        Self { symmetric, pairs: pairs.into_iter().collect() }
    }

    /// The highest rate of a lane.
    pub fn of(&self, lane: &LaneId) -> Rate {
        self.pairs.get(&lane.class).copied().unwrap_or_else(|| self.default_of(lane))
    }

    /// A quarter of the default quota of a Region (AWS KMS Developer Guide, "Request quotas", 2026). The guide names no quota of
    /// ML-KEM that is known here, so ML-KEM counts as the class with the smallest quota that is not RSA.
    fn default_of(&self, lane: &LaneId) -> Rate {
        let quota = match (lane.class, lane.region.starts_with(CHINA)) {
            (QuotaClass::Symmetric, _) => return self.symmetric,
            (QuotaClass::EllipticCurve, _) => 100_000,
            (QuotaClass::Sm2 | QuotaClass::MlKem, _) => 25_000,
            (QuotaClass::Rsa2048, false) => 20_000,
            (QuotaClass::Rsa3072, false) => 4_000,
            (QuotaClass::Rsa4096, false) | (QuotaClass::Rsa2048, true) => 1_000,
            (QuotaClass::Rsa3072, true) => 500,
            (QuotaClass::Rsa4096, true) => 100,
        };
        NonZeroU64::new(quota / QUARTER).map_or(Rate::LOWEST, |thousandths| Rate { thousandths })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(text: &str) -> Rate {
        Rate::parse(text).unwrap()
    }

    #[test]
    fn rate_is_a_decimal_number_within_bounds() {
        for (text, per_second, calls, period) in [
            ("1", 1.0, 1, 1_000_000_000),
            ("100", 100.0, 100, 1_000_000_000),
            ("1000000", 1e6, 1_000_000, 1_000_000_000),
            ("2.5", 2.5, 2, 800_000_000),
            ("0.25", 0.25, 1, 4_000_000_000),
            ("0.025", 0.025, 1, 40_000_000_000),
            ("0.001", 0.001, 1, 1_000_000_000_000),
            ("01.50", 1.5, 1, 666_666_666),
        ] {
            let rate = rate(text);
            assert!((rate.per_second() - per_second).abs() < 1e-9, "{text}");
            assert_eq!((rate.calls(), rate.period()), (calls, Duration::from_nanos(period)), "{text}");
        }
        for text in
            ["", "0", "0.0", "0.0001", "1000000.001", "1000001", "-1", "+1", "1.", ".5", "1e3", "1,5", " 1", "12345678"]
        {
            assert_eq!(Rate::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn default_of_each_class_is_a_quarter_of_its_quota() {
        let rates = Rates::new(rate("100"), []);
        for (class, elsewhere, china) in [
            (QuotaClass::Symmetric, "100", "100"),
            (QuotaClass::Rsa2048, "5", "0.25"),
            (QuotaClass::Rsa3072, "1", "0.125"),
            (QuotaClass::Rsa4096, "0.25", "0.025"),
            (QuotaClass::EllipticCurve, "25", "25"),
            (QuotaClass::MlKem, "6.25", "6.25"),
            (QuotaClass::Sm2, "6.25", "6.25"),
        ] {
            assert_eq!(rates.of(&LaneId::new("eu-west-1", class)), rate(elsewhere), "{class:?}");
            assert_eq!(rates.of(&LaneId::new("cn-north-1", class)), rate(china), "{class:?}");
        }
    }

    #[test]
    fn rate_that_is_set_holds_in_every_region() {
        let rates = Rates::new(rate("100"), [(QuotaClass::Rsa4096, rate("0.5"))]);
        for region in ["eu-west-1", "cn-north-1"] {
            assert_eq!(rates.of(&LaneId::new(region, QuotaClass::Rsa4096)), rate("0.5"));
            assert_eq!(rates.of(&LaneId::new(region, QuotaClass::Symmetric)), rate("100"));
        }
    }
}
