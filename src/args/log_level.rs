//! What `--log-level` may be. Pure.
//!
//! `EnvFilter` takes any word for a target that logs everything, and then nothing else logs: `--log-level=loud` would
//! silence the operator.

use tracing::Level;
use tracing_subscriber::{EnvFilter, filter::Targets};

const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];

/// Directives of `EnvFilter`, each with a level, that leave at least the operator's own errors.
pub fn log_level(text: &str) -> Result<String, String> {
    let directives: Vec<_> = text.split(',').map(str::trim).collect();
    let directives_have_levels = directives.iter().all(|directive| has_level(directive));
    let filter = directives.join(",");
    if !directives_have_levels || EnvFilter::try_new(&filter).is_err() {
        return Err("write error, warn, info, debug, trace or TARGET=LEVEL, for example info,kube=debug".to_owned());
    }
    if is_silent(&directives) {
        return Err("it silences the operator: write a level beside it, for example error,kube=debug".to_owned());
    }
    Ok(filter)
}

/// `LEVEL` or `TARGET=LEVEL`; with a target or alone, `off` is a level too.
fn has_level(directive: &str) -> bool {
    let is_level = |level: &str| level == "off" || LEVELS.iter().any(|known| level.eq_ignore_ascii_case(known));
    match directive.rsplit_once('=') {
        Some((target, level)) => !target.trim().is_empty() && is_level(level),
        None => is_level(directive),
    }
}

/// Whether the directives drop errors of the operator itself. Directives for certain spans only do not count.
fn is_silent(directives: &[&str]) -> bool {
    let of_targets: Vec<_> = directives.iter().copied().filter(|directive| !directive.contains('[')).collect();
    // `Targets` parses an empty text as "errors of every target", so an empty list is handled separately.
    let targets = of_targets.join(",").parse::<Targets>().ok().filter(|_| !of_targets.is_empty());
    !targets.is_some_and(|targets| targets.would_enable("datakey_operator", &Level::ERROR))
}
