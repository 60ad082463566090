//! Log lines on standard error, for people or as JSON, one line an event whatever clients call themselves.
//!
//! What comes from a client may hold line breaks and terminal sequences. Every control character within an
//! event is written as `\x1b`, so that nobody can forge a line or paint the operator's terminal.

use std::io::{self, Write};

use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::settings::Log;
use crate::settings::field::LogFormat;

/// Starts logging, once a process.
pub(crate) fn start(settings: &Log) {
    let level = LevelFilter::from_level(settings.level.0);
    let builder = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_ansi(false)
        .with_target(false)
        .with_writer(OneLine);
    match settings.format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
}

/// Makes a writer for each event.
struct OneLine;

/// Writes an event as one line.
struct EventWriter<W>(W);

impl MakeWriter<'_> for OneLine {
    type Writer = EventWriter<io::Stderr>;

    fn make_writer(&self) -> Self::Writer {
        EventWriter(io::stderr())
    }
}

impl<W: Write> Write for EventWriter<W> {
    /// The subscriber writes a whole event, with its line break, in one call.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let (line, end) = match event.split_last() {
            Some((b'\n', line)) => (line, "\n"),
            _ => (event, ""),
        };
        let mut escaped = Vec::with_capacity(event.len());
        for byte in line {
            match byte {
                0..0x20 | 0x7f => write!(escaped, "\\x{byte:02x}")?,
                _ => escaped.push(*byte),
            }
        }
        escaped.extend_from_slice(end.as_bytes());
        self.0.write_all(&escaped)?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line_without_control_characters() {
        let mut out = Vec::new();
        EventWriter(&mut out)
            .write_all("user=eve\n2026 INFO forged \u{1b}[31mred\u{7f}\n".as_bytes())
            .unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "user=eve\\x0a2026 INFO forged \\x1b[31mred\\x7f\n");
    }
}
