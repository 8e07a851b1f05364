//! Structured logs.

use tracing::{Level, Metadata};
use tracing_subscriber::{EnvFilter, Layer, filter::FilterFn, fmt, layer::SubscriberExt, util::SubscriberInitExt};

use crate::args::LogFormat;

/// Starts logging to standard error.
///
/// # Errors
/// The level is neither one nor a list of directives.
pub fn init(level: &str, format: LogFormat) -> Result<(), String> {
    let filter = EnvFilter::try_new(level).map_err(|error| {
        format!("--log-level {level}: {error}; write error, warn, info, debug, trace or TARGET=LEVEL,...")
    })?;
    let lines = match format {
        LogFormat::Text => fmt::layer().with_writer(std::io::stderr).boxed(),
        LogFormat::Json => fmt::layer()
            .with_writer(std::io::stderr)
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .boxed(),
    };
    let tame = FilterFn::new(is_tame);
    tracing_subscriber::registry().with(lines.with_filter(tame).with_filter(filter)).init();
    Ok(())
}

/// Whether a line can't carry a request or an answer, whatever level was asked for: ours, and the others' warnings. The
/// Kubernetes client warns with the whole of a body that it can't decode, and that may be a list of `DataKey`s with
/// their grant tokens.
fn is_tame(metadata: &Metadata<'_>) -> bool {
    let target = metadata.target();
    if target.starts_with("datakey_operator") {
        return true;
    }
    let most = if target.starts_with("kube_client") { Level::ERROR } else { Level::WARN };
    *metadata.level() <= most
}
