//! Whether two plaintexts are the same, without a value that reveals one of them.

use aws_lc_rs::{
    hmac::{HMAC_SHA256, Key, Tag, sign},
    rand::SystemRandom,
};

/// Makes tags with a random key of its own, so that a tag says nothing of a plaintext, not even of one of a few bytes.
pub struct Comparison(Key);

/// A mark of a plaintext: equal for equal plaintexts of one [`Decrypter`](crate::Decrypter), and of no use anywhere else.
#[derive(Clone, Copy)]
pub struct PlaintextTag(Tag);

// === impl Comparison ===

impl Comparison {
    /// With a new key.
    ///
    /// # Errors
    /// The operating system has no random numbers.
    pub fn new() -> Result<Self, String> {
        let key = Key::generate(HMAC_SHA256, &SystemRandom::new());
        key.map(Self).map_err(|_| "the operating system has no random numbers".to_owned())
    }

    /// The tag of a plaintext.
    pub fn tag(&self, plaintext: &[u8]) -> PlaintextTag {
        PlaintextTag(sign(&self.0, plaintext))
    }
}

// === impl PlaintextTag ===

impl PartialEq for PlaintextTag {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_ref() == other.0.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_of_one_comparison_are_compared() {
        let (one, other) = (Comparison::new().unwrap(), Comparison::new().unwrap());
        assert!(one.tag(b"key") == one.tag(b"key") && one.tag(b"key") != one.tag(b"kex"));
        assert!(one.tag(b"key") != other.tag(b"key"), "the key is random");
    }
}
