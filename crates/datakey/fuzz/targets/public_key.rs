#![no_main]

use datakey_fuzz::{keep, properties};
use libfuzzer_sys::{Corpus, fuzz_target};

fuzz_target!(|data: &[u8]| -> Corpus { keep(properties::public_key(data)) });
