//! Structured logs. Users choose some of what is logged, so no character gets into a line that could lead a terminal
//! astray or break the line in two.

use std::{
    borrow::Cow,
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

/// Starts logging to standard error.
///
/// # Errors
/// The level is neither one nor a list of directives.
pub fn init(level: &str, format: LogFormat) -> Result<(), String> {
    let filter = EnvFilter::try_new(level).map_err(|error| format!("--log-level (DATAKEY_LOG_LEVEL): {error}"))?;
    let lines = lines(format, io::stderr, io::stderr().is_terminal());
    let tame = FilterFn::new(is_tame);
    tracing_subscriber::registry().with(lines.with_filter(tame).with_filter(filter)).init();
    Ok(())
}

/// The lines of the log; `colours` is for text.
fn lines<S, W>(format: LogFormat, writer: W, colours: bool) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    match format {
        LogFormat::Text => {
            fmt::layer().with_writer(writer).with_ansi(colours).fmt_fields(debug_fn(write_field).delimited(" ")).boxed()
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
    /// Takes the whole line, which is what it is given.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        let plain: Cow<'_, str> = printable_json(&text);
        self.0.write_all(plain.as_bytes()).map(|()| line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
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

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing::{info, info_span, warn};

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
        let subscriber = tracing_subscriber::registry().with(lines(format, move || writer.clone(), false));
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
    fn no_value_breaks_a_line_or_hides_in_it() {
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
    fn text_reads_as_a_message_with_its_fields() {
        let log = logged(LogFormat::Text, || info!(namespace = "shop", version = 1, "the DataKey is ready"));
        assert!(log.ends_with("the DataKey is ready namespace=\"shop\" version=1\n"), "{log}");
    }
}
