//! Identifiers in the fewest bytes. The API server makes uids as UUIDs and resource versions as whole numbers (Kubernetes API
//! concepts, "Resource versions"); any other text is kept as it is.

use std::{cmp::Ordering, fmt, ops::Deref};

use uuid::Uuid;

/// A `metadata.uid`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Uid {
    Uuid(Uuid),
    Other(Box<str>),
}

/// A `metadata.resourceVersion`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Version {
    Number(u64),
    Other(Text),
}

/// A text that is rarely there: half the size of a `Box<str>`, for a second allocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text(Box<Box<str>>);

// === impl Uid ===

impl From<&str> for Uid {
    fn from(text: &str) -> Self {
        let is_canonical = |uuid: &Uuid| uuid.hyphenated().encode_lower(&mut Uuid::encode_buffer()) == text;
        match Uuid::try_parse(text).ok().filter(is_canonical) {
            Some(uuid) => Self::Uuid(uuid),
            None => Self::Other(text.into()),
        }
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uuid(uuid) => uuid.hyphenated().fmt(f),
            Self::Other(text) => f.write_str(text),
        }
    }
}

// === impl Version ===

impl Version {
    /// How the two compare, if both are numbers.
    pub fn compare(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Number(this), Self::Number(other)) => Some(this.cmp(other)),
            _ => None,
        }
    }

    /// Whether this is older than another one of the same object. One that is not a number is never older.
    pub fn is_older_than(&self, other: &Self) -> bool {
        self.compare(other) == Some(Ordering::Less)
    }
}

impl From<&str> for Version {
    fn from(text: &str) -> Self {
        match text.parse::<u64>() {
            Ok(number) if number.to_string() == text => Self::Number(number),
            _ => Self::Other(text.into()),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Other(text) => f.write_str(text),
        }
    }
}

// === impl Text ===

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self(Box::new(text.into()))
    }
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_is_kept_as_it_is() {
        let canonical = "7c3c8f7e-5b0a-4c62-9d5e-000000000001";
        let odd = ["", "a", "7C3C8F7E-5B0A-4C62-9D5E-000000000001", "7c3c8f7e5b0a4c629d5e000000000001", "{7c3c8f7e}"];
        for text in odd.into_iter().chain([canonical]) {
            let uid = Uid::from(text);
            assert_eq!((uid.to_string().as_str(), matches!(uid, Uid::Uuid(_))), (text, text == canonical));
        }
        for (text, is_number) in
            [("0", true), ("18446744073709551615", true), ("", false), ("007", false), ("+7", false), ("abc", false)]
        {
            let version = Version::from(text);
            assert_eq!((version.to_string().as_str(), matches!(version, Version::Number(_))), (text, is_number));
        }
    }

    #[test]
    fn only_numbers_are_older() {
        let is_older = |this: &str, other: &str| Version::from(this).is_older_than(&other.into());
        assert!(is_older("9", "10"));
        assert!(!is_older("10", "10") && !is_older("11", "10") && !is_older("x", "10") && !is_older("9", "x"));
    }
}
