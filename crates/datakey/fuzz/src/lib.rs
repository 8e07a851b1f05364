//! Coverage-guided fuzzing of the parsers of untrusted input.

use libfuzzer_sys::{Corpus, fuzzer_mutate};
use properties::Reached;

pub mod mutation;
pub mod properties;

/// Whether to keep an input in the corpus. Input that can't be decoded is rejected, although it may cover new code of the decoder.
pub fn keep(reached: Reached) -> Corpus {
    if reached == Reached::Nothing { Corpus::Reject } else { Corpus::Keep }
}

/// Mutates JSON, as libFuzzer's custom mutator. libFuzzer's own mutator, with its dictionary, mutates the strings in it.
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
