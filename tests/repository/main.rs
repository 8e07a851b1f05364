//! What the repository says about itself: generated files match their sources, the chart and the documentation say what
//! the code does, the binaries hold what they may hold. One binary, so that everything is linked once; no test needs a
//! server. `chart` needs Helm and runs in `make chart`, the other modules run in `make unit`.

#![allow(clippy::unwrap_used)]

mod binary;
mod chart;
mod docs;
#[path = "../../src/args/cases.rs"]
mod flags;
mod generated;
mod github;
mod krew;
mod layout;
mod stored_names;
mod words;
