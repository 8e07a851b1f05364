//! Structured logs. Users choose some of what is logged, so no character gets into a line that could lead a terminal
//! astray or break the line in two.

use std::{
    borrow::Cow,
    ffi::OsStr,
    fmt::Debug,
    io::{self, IsTerminal, Write},
};

use tracing::{Level, Metadata, Subscriber, field::Field};
use tracing_subscriber::{
    EnvFilter, Layer,
    field::MakeExt,
    filter::FilterFn,
    fmt::{
        self, MakeWriter,
        format::{Writer, debug_fn},
    },
    layer::SubscriberExt,
    registry::LookupSpan,
    util::SubscriberInitExt,
};

use crate::args::LogFormat;
use datakey::text::{printable, printable_json};

/// Longest text of an error from another program in a line of the log, in characters. The longest of KMS names a role and a key; a
/// webhook can answer any length.
pub const MAX_ERROR_LENGTH: usize = 1000;

/// Logs a warning if the condition is true, or else the same line for debugging.
macro_rules! warn_if {
    ($condition:expr, $($line:tt)+) => {
        if $condition { tracing::warn!($($line)+) } else { tracing::debug!($($line)+) }
    };
}
pub(crate) use warn_if;

/// Starts logging to standard error.
///
/// # Errors
/// The level is neither one nor a list of directives.
pub fn init(level: &str, format: LogFormat) -> Result<(), String> {
    let filter = EnvFilter::try_new(level).map_err(|error| format!("--log-level (DATAKEY_LOG_LEVEL): {error}"))?;
    let colors = has_colors(io::stderr().is_terminal(), std::env::var_os("NO_COLOR").as_deref());
    let lines = lines(format, io::stderr, colors);
    let logged = FilterFn::new(is_logged);
    tracing_subscriber::registry().with(lines.with_filter(logged).with_filter(filter)).init();
    Ok(())
}

/// Whether lines of text have colors: only for a terminal, and not where `NO_COLOR` has a value (<https://no-color.org>).
fn has_colors(is_terminal: bool, no_color: Option<&OsStr>) -> bool {
    is_terminal && no_color.is_none_or(OsStr::is_empty)
}

/// The lines of the log; `colors` is for text.
fn lines<S, W>(format: LogFormat, writer: W, colors: bool) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    match format {
        LogFormat::Text => {
            fmt::layer().with_writer(writer).with_ansi(colors).fmt_fields(debug_fn(write_field).delimited(" ")).boxed()
        }
        LogFormat::Json => fmt::layer()
            .with_writer(Plain(writer))
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .boxed(),
    }
}

/// One field of a line of text.
fn write_field(writer: &mut Writer<'_>, field: &Field, value: &dyn Debug) -> std::fmt::Result {
    let value = printable(&format!("{value:?}"), usize::MAX);
    match field.name() {
        "message" => writer.write_str(&value),
        name => write!(writer, "{name}={value}"),
    }
}

/// Writers of JSON lines. `serde_json` escapes control characters of ASCII only.
struct Plain<W>(W);

// === impl Plain ===

impl<'a, W: MakeWriter<'a>> MakeWriter<'a> for Plain<W> {
    type Writer = Plain<W::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        Plain(self.0.make_writer())
    }
}

impl<W: Write> Write for Plain<W> {
    /// Writes the whole line: each call receives one complete line.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        let plain: Cow<'_, str> = printable_json(&text);
        self.0.write_all(plain.as_bytes()).map(|()| line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Whether a line is logged, whatever level was asked for: the operator's own, and errors of the libraries.
///
/// A warning of a library says what the operator reports anyway, in another form: the Kubernetes client warns with the whole
/// of a body that it can't decode, and that may be a list of `DataKey`s with their grant tokens; the AWS SDK warns with the
/// Debug texts of its types, and with lines of the file that holds the credentials. Spans of libraries would repeat fields.
fn is_logged(metadata: &Metadata<'_>) -> bool {
    metadata.is_event() && (metadata.target().starts_with("datakey_operator") || *metadata.level() <= Level::ERROR)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing::{error, info, info_span, warn};

    use super::*;
    use datakey::text::is_printable;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(line)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat, work: fn()) -> String {
        let written = Lines::default();
        let writer = written.clone();
        let lines = lines(format, move || writer.clone(), false).with_filter(FilterFn::new(is_logged));
        let subscriber = tracing_subscriber::registry().with(lines);
        tracing::subscriber::with_default(subscriber, work);
        let bytes = written.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    fn odd_lines() {
        let odd = "a\u{1b}[2J\u{7}\r\n\u{202e}\u{2028}\u{200b}\u{9b}z";
        let span = info_span!("reconcile", name = odd, other = %odd);
        let _entered = span.enter();
        info!(text = odd, shown = %odd, debugged = ?odd, "said {odd}");
        warn!(error = &io::Error::other(odd) as &dyn std::error::Error, "failed");
    }

    #[test]
    fn values_cannot_break_or_hide_log_lines() {
        for format in [LogFormat::Text, LogFormat::Json] {
            let log = logged(format, odd_lines);
            assert_eq!(log.lines().count(), 2, "{log:?}");
            assert!(log.chars().all(|character| character == '\n' || is_printable(character)), "{log:?}");
            assert!(log.contains("202e"), "{log}");
        }
        let json = logged(LogFormat::Json, odd_lines);
        let first: serde_json::Value = serde_json::from_str(json.lines().next().unwrap()).unwrap();
        assert!(first["text"].as_str().unwrap().starts_with("a\u{1b}[2J\u{7}\r\n\u{202e}"), "{first}");
    }

    #[test]
    fn only_a_terminal_without_no_color_has_colors() {
        for (is_terminal, no_color, colors) in [
            (true, None, true),
            (true, Some(""), true),
            (true, Some("1"), false),
            (true, Some("0"), false),
            (false, None, false),
            (false, Some("1"), false),
        ] {
            assert_eq!(has_colors(is_terminal, no_color.map(OsStr::new)), colors, "{is_terminal} {no_color:?}");
        }
        let mut colored = Vec::new();
        for colors in [true, false] {
            let written = Lines::default();
            let writer = written.clone();
            let lines = lines(LogFormat::Text, move || writer.clone(), colors);
            tracing::subscriber::with_default(tracing_subscriber::registry().with(lines), || info!("ready"));
            colored.push(written.0.lock().unwrap().contains(&b'\x1b'));
        }
        assert_eq!(colored, [true, false]);
    }

    #[test]
    fn libraries_log_their_errors_only_and_no_span() {
        for format in [LogFormat::Text, LogFormat::Json] {
            let log = logged(format, || {
                let span = info_span!("reconcile", namespace = "of the span");
                let _entered = span.enter();
                warn!(target: "aws_config::meta::credentials::chain", "a warning of a library");
                error!(target: "kube_client::client", "an error of a library");
                info!(namespace = "shop", "the DataKey is ready");
            });
            assert_eq!(log.lines().count(), 2, "{log}");
            assert!(!log.contains("a warning") && !log.contains("of the span"), "{log}");
        }
    }

    #[test]
    fn text_reads_as_a_message_with_its_fields() {
        let log = logged(LogFormat::Text, || info!(namespace = "shop", version = 1, "the DataKey is ready"));
        assert!(log.ends_with("the DataKey is ready namespace=\"shop\" version=1\n"), "{log}");
    }
}
