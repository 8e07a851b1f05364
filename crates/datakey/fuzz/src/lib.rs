//! Coverage-guided fuzzing of the parsers of what comes from outside.

use libfuzzer_sys::{Corpus, fuzzer_mutate};
use properties::Reached;

pub mod mutation;
pub mod properties;

/// Whether an input is worth mutating: one that can't be decoded is not, whatever of the decoder it covers.
pub fn keep(reached: Reached) -> Corpus {
    if reached == Reached::Nothing { Corpus::Reject } else { Corpus::Keep }
}

/// libFuzzer's custom mutator for JSON; texts in it are mutated by libFuzzer's own, with its dictionary.
pub fn mutate(data: &mut [u8], size: usize, max_size: usize, seed: u32) -> usize {
    let mutated = mutation::mutate(&data[..size], seed.into(), &mut |bytes| {
        let size = bytes.len();
        bytes.resize(2 * size + 64, 0);
        let max_size = bytes.len();
        let size = fuzzer_mutate(bytes, size, max_size);
        bytes.truncate(size);
    });
    if (1..=max_size).contains(&mutated.len()) {
        data[..mutated.len()].copy_from_slice(&mutated);
        mutated.len()
    } else {
        fuzzer_mutate(data, size, max_size)
    }
}
