//! What a coordinator and a worker say to each other: a line of JSON each.

use std::io::{self, BufRead, Write};
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::report::results::StageResults;
use crate::report::series::Second;
use crate::scenario::Scenario;

/// Of the wire; both ends must have the same.
pub(super) const VERSION: u32 = 1;

/// Longest line that is read: the tokens of a worker's clients, some hundred bytes each.
const LINE_BYTES_MAX: u64 = 64 << 20;

/// What a coordinator says.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ToWorker {
    /// What this worker is to be.
    Assignment(Box<Assignment>),
    /// A stage begins.
    Begin {
        /// Its number.
        stage: usize,
        /// Since the start of the run.
        elapsed_microseconds: u64,
    },
    /// Read every conversation whole, into the history.
    Read,
    /// All clients leave, and the worker ends.
    Leave,
}

/// What a worker is to be.
#[derive(Serialize, Deserialize)]
pub(super) struct Assignment {
    pub(super) scenario: Scenario,
    /// Its number, and how many there are.
    pub(super) worker: (usize, usize),
    pub(super) url: String,
    pub(super) insecure: bool,
    pub(super) ca: Option<PathBuf>,
    pub(super) logins: LoginsOnWire,
    /// Tells the client message ids of this run from those of others.
    pub(super) run: u32,
    /// Where it writes its history, if it is to.
    pub(super) history: Option<PathBuf>,
}

/// Who the clients are.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum LoginsOnWire {
    /// The development key, and what names begin with.
    Secret {
        /// In base64.
        secret: String,
        /// Of the names.
        prefix: String,
    },
    /// Name and token of each.
    Tokens(Vec<(String, String)>),
}

/// What a worker says.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ToCoordinator {
    /// First of all.
    Hello {
        /// [`VERSION`].
        version: u32,
        /// The coordinator's.
        key: String,
    },
    /// It has made its conversations, and waits for the first stage.
    Ready {
        /// Its resident memory before it had any client.
        resident_bytes: u64,
    },
    /// A second is over.
    Second {
        /// Its number.
        number: usize,
        /// What was counted.
        second: Box<Second>,
        /// Its thread's processor time, in percent.
        busy: f64,
    },
    /// A stage is over.
    Over {
        /// Its number.
        stage: usize,
        /// What was counted.
        results: Box<StageResults>,
        /// Its resident memory.
        resident_bytes: u64,
    },
    /// Every conversation was read.
    Read,
    /// All clients are gone, and the history is written.
    Left,
    /// It cannot go on.
    Failed {
        /// Why.
        reason: String,
        /// Whether what it was given is at fault.
        is_input: bool,
    },
}

/// Writes a line.
pub(super) fn say<T: Serialize>(stream: &mut impl Write, message: &T) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    stream.write_all(&line)
}

/// Reads a line; `None` at the end.
pub(super) fn hear<T: DeserializeOwned>(stream: &mut impl BufRead) -> io::Result<Option<T>> {
    let mut line = Vec::new();
    io::Read::take(&mut *stream, LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Ok(None);
    }
    Ok(Some(serde_json::from_slice(&line)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::latency_histogram::LatencyHistogram;

    #[test]
    fn a_histogram_crosses_whole() {
        let mut results = StageResults::default();
        for value in 1..=1_000 {
            results.ack.response.record_microseconds(value * value);
        }
        let message = ToCoordinator::Over { stage: 3, results: Box::new(results.clone()), resident_bytes: 7 };
        let mut line = Vec::new();
        say(&mut line, &message).unwrap();
        let Some(ToCoordinator::Over { results: heard, .. }) = hear(&mut line.as_slice()).unwrap() else {
            panic!("another message")
        };
        assert_eq!(*heard, results);
        let mut sum = LatencyHistogram::default();
        sum.merge(&heard.ack.response);
        sum.merge(&results.ack.response);
        assert_eq!((sum.count(), sum.quantile(0.5)), (2_000, results.ack.response.quantile(0.5)));
    }

    #[test]
    fn the_end_of_a_stream_is_none_and_nonsense_an_error() {
        assert!(hear::<ToWorker>(&mut &b""[..]).unwrap().is_none());
        assert!(hear::<ToWorker>(&mut &b"{\"begin\n"[..]).is_err());
    }
}
