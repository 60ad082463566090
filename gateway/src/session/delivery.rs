//! One live entry on its way to many sockets: read once, encoded once for each form that a recipient needs, and a
//! reference a recipient. What goes to one socket alone is written into that socket's chunk.
//!
//! Nearly all are messages, which are told from the bytes of their entry; changes and media are decoded.

use std::time::Duration;

use bytes::Bytes;
use ringway_protocol::client::{self, Encoding, ServerFrame};
use ringway_protocol::entry::Entry;
use ringway_protocol::ids::Seq;
use ringway_protocol::live_message::LiveMessage;
use ringway_protocol::trunk::FanOutBody;
use ringway_protocol::user::UserId;
use ringway_protocol::websocket::shared_frame;

use super::Session;
use crate::connection::{Exchange, Step};

/// An entry with the frames made of it so far.
pub struct Delivery<'a> {
    body: &'a FanOutBody,
    said: Said<'a>,
    /// Whether somebody else gets it too.
    is_shared: bool,
    /// By encoding, and whether it is for the sender's own devices.
    frames: [[Option<Bytes>; 2]; 2],
}

/// What the bytes of a body say.
enum Said<'a> {
    Message(LiveMessage<'a>),
    Other(Box<Entry>),
    /// They are no entry: each recipient gets a gap instead.
    Nothing,
}

impl<'a> Delivery<'a> {
    /// Reads the entry of a body that goes to so many.
    pub fn new(body: &'a FanOutBody, recipients: usize) -> Self {
        let said = match LiveMessage::read(&body.entry) {
            Some(message) => Said::Message(message),
            None => match Entry::decode_shared(&body.entry) {
                Ok(entry) => Said::Other(Box::new(entry)),
                Err(error) => {
                    tracing::error!(conversation = %body.conversation, seq = %body.seq, %error, "a bad entry");
                    Said::Nothing
                }
            },
        };
        Self { body, said, is_shared: recipients > 1, frames: Default::default() }
    }

    /// Whether this user sent it, from a device that knows it by its idempotency key.
    fn is_from(&self, user: &UserId) -> bool {
        match &self.said {
            Said::Message(message) => {
                message.sender.as_bytes() == user.as_bytes() && message.client_message_id.is_some()
            }
            Said::Other(entry) => entry.sender == *user && entry.client_message_id.is_some(),
            Said::Nothing => false,
        }
    }

    fn accepted_at(&self) -> u64 {
        match &self.said {
            Said::Message(message) => message.server_ts.0,
            Said::Other(entry) => entry.server_ts.0,
            Said::Nothing => 0,
        }
    }

    /// Queues the frame in this form.
    fn queue(&mut self, exchange: &mut Exchange<'_>, encoding: Encoding, for_sender: bool) {
        let form = match encoding {
            Encoding::Json => 0,
            Encoding::Protobuf => 1,
        };
        if let Some(frame) = &self.frames[form][usize::from(for_sender)] {
            return exchange.output.push(&mut exchange.context.chunks, frame.clone());
        }
        if matches!(self.said, Said::Nothing) {
            return;
        }
        let mut payload = std::mem::take(&mut exchange.context.payload);
        payload.clear();
        match &self.said {
            Said::Message(message) => client::encode_live(encoding, message, for_sender, &mut payload),
            Said::Other(entry) => {
                let frame = ServerFrame::from_entry(Entry::clone(entry), for_sender);
                client::encode(encoding, &frame, &mut payload);
            }
            Said::Nothing => {}
        }
        let opcode = encoding.opcode();
        if self.is_shared {
            let frame = shared_frame(opcode, &payload);
            exchange.output.push(&mut exchange.context.chunks, frame.clone());
            self.frames[form][usize::from(for_sender)] = Some(frame);
        } else {
            exchange.output.append_frame(&mut exchange.context.chunks, opcode, &payload);
        }
        exchange.context.payload = payload;
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
        let for_sender = delivery.is_from(&identity.user);
        if !has_room || matches!(delivery.said, Said::Nothing) {
            let after = Seq(delivery.body.seq.0.saturating_sub(1));
            self.gaps_from_here(exchange.context).note(conversation, after);
            return Ok(());
        }
        self.tell_gap_before(exchange, conversation);
        delivery.queue(exchange, self.encoding, for_sender);
        exchange.context.metrics.frames_out.increment();
        let told = exchange.context.timestamp(exchange.now).0;
        let waited = Duration::from_millis(told.saturating_sub(delivery.accepted_at()));
        exchange.context.metrics.delivery.record(waited);
        Ok(())
    }
}
