//! Which versions of an object a command is about, as a user writes it: `all`, `current`, or numbers such as `1,3`. Pure.

use std::{collections::BTreeSet, fmt, str::FromStr};

/// Which versions a command is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Versions {
    /// All that there are.
    All,
    /// The current one.
    Current,
    /// These, at least one.
    Only(BTreeSet<i32>),
}

/// Reads the number of a version: decimal digits without leading zeros, from 1 to 2147483647. `None` for anything else.
pub fn version_number(text: &str) -> Option<i32> {
    let is_canonical = text.starts_with(|first: char| first.is_ascii_digit() && first != '0');
    is_canonical.then(|| text.parse().ok()).flatten()
}

// === impl Versions ===

impl Versions {
    /// Whether it includes a version, where `current` is the current one.
    pub fn includes(&self, version: i32, current: i32) -> bool {
        match self {
            Self::All => true,
            Self::Current => version == current,
            Self::Only(numbers) => numbers.contains(&version),
        }
    }
}

impl FromStr for Versions {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "all" => return Ok(Self::All),
            "current" => return Ok(Self::Current),
            _ => {}
        }
        let numbers: Option<BTreeSet<_>> = text.split(',').map(version_number).collect();
        numbers
            .map(Self::Only)
            .ok_or_else(|| "write all, current, or numbers from 1 with commas between them, for example 1,3".to_owned())
    }
}

impl fmt::Display for Versions {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => to.write_str("all"),
            Self::Current => to.write_str("current"),
            Self::Only(numbers) => {
                let numbers: Vec<_> = numbers.iter().map(ToString::to_string).collect();
                to.write_str(&numbers.join(","))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_all_the_current_one_or_numbers() {
        let only = |versions: &[i32]| Ok(Versions::Only(versions.iter().copied().collect()));
        assert_eq!("all".parse(), Ok(Versions::All));
        assert_eq!("current".parse(), Ok(Versions::Current));
        assert_eq!("1".parse(), only(&[1]));
        assert_eq!("3,1,3".parse(), only(&[1, 3]));
        assert_eq!("2147483647".parse(), only(&[i32::MAX]));
        for wrong in ["", "0", "-1", "+1", "01", "1,", ",", "1, 2", "1-2", "ALL", "all,1", "v1", "2147483648"] {
            assert!(wrong.parse::<Versions>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn versions_are_written_as_they_are_read() {
        for text in ["all", "current", "1,3"] {
            assert_eq!(text.parse::<Versions>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn selection_includes_what_it_names() {
        for (text, included) in [("all", &[1, 2, 3][..]), ("current", &[2]), ("1,3", &[1, 3])] {
            let selection: Versions = text.parse().unwrap();
            let found: Vec<_> = (1..=3).filter(|version| selection.includes(*version, 2)).collect();
            assert_eq!(found, included, "{text}");
        }
    }
}
