//! Removes idempotency keys that are past their lifetime.
//!
//! A reader treats such a row as absent already; the sweep only gives the space back. It walks the whole
//! table `sends` from the durable view, a bounded step at a time, and hands what is old to the writer, which
//! looks again before it removes: the key may be new by then. A walk that came to the end rests.
//!
//! The sweep also keeps the time by which keys age (`key_time.rs`), at every step and while it rests.

use std::time::Instant;

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender};
use ringway_protocol::ids::Timestamp;

use super::key_time::{KeyTime, SAVE_TICKS};
use super::published::Published;
use super::readers;
use super::rows;
use super::settings::StoreSettings;
use super::tables::{Table, View, read_error};
use super::writer::Request;
use crate::store::StoreError;

/// Rows that one step looks at: about 100 KB once a second, beside the traffic.
const STEP_ROWS: usize = 1000;

/// Steps' worth of rest after a whole walk.
const REST_STEPS: u32 = 600;

/// Runs until the store closes: until `closing` is disconnected.
pub(super) fn run(
    closing: &Receiver<()>,
    requests: &Sender<Request>,
    published: &Published,
    mut key_time: KeyTime,
    settings: &StoreSettings,
) {
    let (mut last_key, mut rest, mut ticks) = (Vec::new(), 0, 1_u32);
    let mut looked = Instant::now();
    while closing.recv_timeout(settings.sweep_interval) == Err(RecvTimeoutError::Timeout) {
        let now = Instant::now();
        let newest = published.status().newest;
        key_time.advance(now.duration_since(looked), settings.wall_clock.read(), newest);
        looked = now;
        published.set_key_time(key_time.get());
        if ticks.is_multiple_of(SAVE_TICKS)
            && requests.try_send(Request::SaveKeyTime(key_time.get())).is_err()
        {
            // Full: at the next look.
            continue;
        }
        ticks = ticks.wrapping_add(1);
        if rest > 0 {
            rest -= 1;
            continue;
        }
        let Some(view) = published.view() else { continue };
        let horizon = readers::horizon(key_time.get(), settings.send_lifetime);
        match step(&view, &last_key, horizon) {
            Ok(Step { old, last_key: next }) => {
                let removal = Request::RemoveSends { keys: old, horizon };
                if !removal.is_empty() && requests.try_send(removal).is_err() {
                    // The writer has better things to do: the same step again, later.
                    continue;
                }
                if next.is_none() {
                    rest = REST_STEPS;
                }
                last_key = next.unwrap_or_default();
            }
            Err(error) => tracing::warn!(%error, "the sweep of old idempotency keys could not read"),
        }
    }
}

/// What one step found.
struct Step {
    /// Keys of rows that are old.
    old: Vec<Vec<u8>>,
    /// The key to go on from; `None` at the end of the table.
    last_key: Option<Vec<u8>>,
}

/// Looks at the rows behind `last_key`.
fn step(view: &View, last_key: &[u8], horizon: Timestamp) -> Result<Step, StoreError> {
    let mut old = Vec::new();
    for (count, row) in view.behind(Table::Sends, last_key).enumerate() {
        let (key, value) = row.into_inner().map_err(|error| read_error(&error))?;
        if rows::read_send(&value)?.server_ts <= horizon {
            old.push(key.to_vec());
        }
        if count + 1 == STEP_ROWS {
            return Ok(Step { old, last_key: Some(key.to_vec()) });
        }
    }
    Ok(Step { old, last_key: None })
}
