//! Removes idempotency keys that are past their lifetime.
//!
//! A reader treats such a row as absent already; the sweep only gives the space back. It walks the whole
//! table `sends` from the durable view, a bounded step at a time, and hands what is old to the writer, which
//! looks again before it removes: the key may be new by then. A walk that came to the end rests.

use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender};

use super::published::Published;
use super::readers;
use super::rows;
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
    interval: Duration,
    send_lifetime: Duration,
) {
    let mut last_key = Vec::new();
    let mut pause = interval;
    while closing.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
        pause = interval;
        let Some(view) = published.view() else { continue };
        let horizon = readers::horizon(send_lifetime);
        match step(&view, &last_key, horizon) {
            Ok((keys, next)) => {
                let at_end = next.is_none();
                drop(view);
                if !keys.is_empty() && requests.try_send(Request::RemoveSends { keys, horizon }).is_err() {
                    // The writer has better things to do: the same step again, later.
                    continue;
                }
                last_key = next.unwrap_or_default();
                if at_end {
                    pause = interval * REST_STEPS;
                }
            }
            Err(error) => tracing::warn!(%error, "the sweep of old idempotency keys could not read"),
        }
    }
}

/// Old keys behind `last_key`, and the key to go on from; `None` at the end of the table.
fn step(
    view: &Arc<View>,
    last_key: &[u8],
    horizon: ringway_protocol::ids::Timestamp,
) -> Result<(Vec<Vec<u8>>, Option<Vec<u8>>), StoreError> {
    let mut old = Vec::new();
    for (count, row) in view.behind(Table::Sends, last_key).enumerate() {
        let (key, value) = row.into_inner().map_err(|error| read_error(&error))?;
        if rows::read_send(&value)?.server_ts <= horizon {
            old.push(key.to_vec());
        }
        if count + 1 == STEP_ROWS {
            return Ok((old, Some(key.to_vec())));
        }
    }
    Ok((old, None))
}
