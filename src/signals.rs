//! Signals as events: SIGTERM and SIGINT drain, a second one ends the process at once, SIGHUP reloads.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, channel};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::exit::{Exit, Failure};

/// What the operator asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// Read certificate and keys again.
    Reload,
    /// Drain and end.
    End,
}

/// Takes the signals from here on. `run_file` is removed when the process ends at once.
///
/// # Errors
/// [`Exit::Failure`] if the system gives no handler or thread.
pub(crate) fn listen(run_file: PathBuf) -> Result<Receiver<Event>, Failure> {
    let refused =
        |error: std::io::Error| Failure::new(Exit::Failure, format!("signals cannot be handled: {error}"));
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP]).map_err(refused)?;
    let (events, receiver) = channel();
    let run = move || {
        let mut is_ending = false;
        for signal in signals.forever() {
            let event = match signal {
                SIGHUP => Event::Reload,
                _ if is_ending => end_at_once(&run_file),
                _ => {
                    is_ending = true;
                    Event::End
                }
            };
            // Nobody listens any more when the main thread is past its drain.
            let _ = events.send(event);
        }
    };
    std::thread::Builder::new().name("signals".into()).spawn(run).map_err(refused)?;
    Ok(receiver)
}

/// Nothing acknowledged is lost by it: that is in the store already.
fn end_at_once(run_file: &std::path::Path) -> ! {
    tracing::warn!("a second signal: the process ends at once");
    // It may be gone already.
    let _ = std::fs::remove_file(run_file);
    std::process::exit(Exit::Success as i32)
}
