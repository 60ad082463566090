//! One live entry on its way to many sockets: decoded once, encoded once for each form that a recipient
//! needs, and a reference a recipient.

use std::time::Duration;

use bytes::Bytes;
use ringway_protocol::client::{self, Encoding, ServerFrame};
use ringway_protocol::entry::Entry;
use ringway_protocol::ids::Seq;
use ringway_protocol::trunk::FanOutBody;
use ringway_protocol::websocket::frame_with;

use super::Session;
use crate::connection::{Exchange, Step};

/// An entry with the frames made of it so far.
pub struct Delivery<'a> {
    body: &'a FanOutBody,
    /// `None` if the bytes are no entry: each recipient gets a gap instead.
    entry: Option<Entry>,
    /// By encoding, and whether it is for the sender's own devices.
    frames: [[Option<Bytes>; 2]; 2],
}

impl<'a> Delivery<'a> {
    /// Decodes the entry of a body.
    pub fn new(body: &'a FanOutBody) -> Self {
        let entry = Entry::decode_shared(&body.entry)
            .inspect_err(|error| {
                tracing::error!(conversation = %body.conversation, seq = %body.seq, %error, "a bad entry");
            })
            .ok();
        Self { body, entry, frames: Default::default() }
    }

    /// The whole WebSocket frame in this form.
    fn frame(&mut self, encoding: Encoding, for_sender: bool) -> Option<Bytes> {
        let entry = self.entry.as_ref()?;
        let form = match encoding {
            Encoding::Json => 0,
            Encoding::Protobuf => 1,
        };
        let frame = self.frames[form][usize::from(for_sender)].get_or_insert_with(|| {
            let frame = ServerFrame::from_entry(entry.clone(), for_sender);
            frame_with(encoding.opcode(), |out| client::encode(encoding, &frame, out))
        });
        Some(frame.clone())
    }
}

impl Session {
    /// Queues a live entry, or notes that this slow reader does without.
    ///
    /// Before `welcome` an entry is dropped: it is durable, so what the client reads after `welcome`, the
    /// heads of its cursor or its history, has it.
    pub(crate) fn deliver(&mut self, exchange: &mut Exchange<'_>, delivery: &mut Delivery<'_>) -> Step {
        if !self.is_welcome() || self.stopped {
            return Ok(());
        }
        // Bodies may fill half of the queue; the other half is for acks, errors and pages.
        let has_room = exchange.output.len() < exchange.context.settings.queue_bytes_max / 2;
        let conversation = delivery.body.conversation;
        let Some(identity) = &self.identity else { return Ok(()) };
        if exchange.now >= identity.expires {
            // The timer is about to say so; no frame may pass meanwhile.
            return self.check_token(exchange);
        }
        let for_sender = delivery
            .entry
            .as_ref()
            .is_some_and(|entry| entry.sender == identity.user && entry.client_message_id.is_some());
        let frame = if has_room { delivery.frame(self.encoding, for_sender) } else { None };
        let Some(frame) = frame else {
            let after = Seq(delivery.body.seq.0.saturating_sub(1));
            self.gaps_from_here(exchange.context).note(conversation, after);
            return Ok(());
        };
        self.tell_gap_before(exchange, conversation);
        exchange.output.push(frame);
        exchange.context.metrics.frames_out.increment();
        if let Some(entry) = &delivery.entry {
            let told = exchange.context.timestamp(exchange.now).0;
            let waited = Duration::from_millis(told.saturating_sub(entry.server_ts.0));
            exchange.context.metrics.delivery.record(waited);
        }
        Ok(())
    }
}
