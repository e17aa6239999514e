// SPDX-License-Identifier: Apache-2.0
//! The daemon's log: one event, one line, whatever the strings in it say.
//!
//! Images, registries, clients, plugins and runtimes name things that are logged. This is the one place where their
//! strings enter a line: each value is escaped (see [`hull_escape`]) and cut, so that a line cannot be ended or made
//! so long that the journal breaks it in two.

use std::fmt::{self, Write};

use tracing::Subscriber;
use tracing::field::{Field, Visit};
use tracing_subscriber::Layer;
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::registry::LookupSpan;

/// Longest value in a line, in bytes: journald begins a new entry after 48 KiB, and an event has few values.
const LONGEST_VALUE: usize = 4096;

/// Writes events to standard error.
pub(super) fn layer<S: Subscriber + for<'a> LookupSpan<'a>>() -> impl Layer<S> {
    tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false).fmt_fields(Escaped)
}

/// Formats the fields of events and spans, escaped.
#[derive(Debug)]
struct Escaped;

impl<'w> FormatFields<'w> for Escaped {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'w>, fields: R) -> fmt::Result {
        let mut values = Values { writer, is_first: true, result: Ok(()) };
        fields.record(&mut values);
        values.result
    }
}

struct Values<'w> {
    writer: Writer<'w>,
    is_first: bool,
    result: fmt::Result,
}

// === impl Values ===

impl Values<'_> {
    fn name(&mut self, field: &Field) -> fmt::Result {
        if !std::mem::take(&mut self.is_first) {
            self.writer.write_char(' ')?;
        }
        match field.name() {
            "message" => Ok(()),
            name => write!(self.writer, "{}=", name.strip_prefix("r#").unwrap_or(name)),
        }
    }

    fn escaped(&mut self, field: &Field, value: fmt::Arguments<'_>) -> fmt::Result {
        self.name(field)?;
        let mut escaper = hull_escape::Escaper::new(&mut self.writer, LONGEST_VALUE);
        escaper.write_fmt(value)?;
        escaper.finish()
    }

    /// Quoted as a Rust literal: the same escapes, and quotes that show where it ends.
    fn quoted(&mut self, field: &Field, value: &str) -> fmt::Result {
        self.name(field)?;
        match hull_escape::cut(value, LONGEST_VALUE) {
            (value, false) => write!(self.writer, "{value:?}"),
            (beginning, true) => write!(self.writer, "{beginning:?}{}", hull_escape::CUT),
        }
    }
}

impl Visit for Values<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if self.result.is_ok() {
            self.result = self.escaped(field, format_args!("{value:?}"));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if self.result.is_ok() {
            self.result = match field.name() {
                "message" => self.escaped(field, format_args!("{value}")),
                _ => self.quoted(field, value),
            };
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        if self.result.is_ok() {
            self.result = self.escaped(field, format_args!("{}", hull_server::chain(value)));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use proptest::prelude::*;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is logged by `work`.
    fn logged(work: impl FnOnce()) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let layer = tracing_subscriber::fmt::layer()
            .with_writer(move || writer.clone())
            .with_ansi(false)
            .without_time()
            .with_target(false)
            .fmt_fields(Escaped);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), work);
        String::from_utf8(lines.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn values_look_as_usual() {
        let text = logged(|| {
            let _span = tracing::info_span!("op", id = "a b").entered();
            let after = std::time::Duration::from_secs(3);
            tracing::info!(n = 7, ?after, name = "x\"\n", error = %"a, \"b\"", "said \\d");
        });
        assert_eq!(
            text,
            "INFO op{id=\"a b\"}: said \\d n=7 after=3s name=\"x\\\"\\n\" error=a, \"b\"\n"
                .to_owned()
                .replacen("INFO", " INFO", 1)
        );
    }

    #[test]
    fn a_huge_value_is_cut() {
        let huge = "\u{1b}x".repeat(100_000);
        let text = logged(|| tracing::info!(a = huge, b = %huge, "{huge}"));
        assert!(text.len() < 8 * LONGEST_VALUE, "{}", text.len());
        assert_eq!(text.matches(hull_escape::CUT).count(), 3);
    }

    proptest! {
        #[test]
        fn an_event_is_one_harmless_line(text in any::<String>()) {
            let line = logged(|| {
                let _span = tracing::info_span!("op", a = text, b = %text).entered();
                let error = io::Error::other(text.clone());
                let error: &(dyn std::error::Error + 'static) = &error;
                tracing::warn!(a = text, b = %text, c = ?text, error, "{text}");
            });
            let line = line.strip_suffix('\n').unwrap();
            prop_assert!(!line.contains(hull_escape::is_unsafe), "{:?}", line);
        }
    }
}
