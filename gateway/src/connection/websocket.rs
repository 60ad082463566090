//! The WebSocket part of a connection's life: frames to a session, an echo or a relay, silence, and the close
//! handshake of RFC 6455 section 7.
//!
//! Reading may pause, when a session's window or an echo's queue is full: what still arrives is held, in
//! order and unread, and the silence clock stands still. What a frame means is `session/`.

use std::borrow::Cow;

use bytes::Bytes;
use ringway_protocol::client::Encoding;
use ringway_protocol::ids::ConnectionId;
use ringway_protocol::limits::SILENCE_MILLISECONDS;
use ringway_protocol::token::Claims;
use ringway_protocol::websocket::{
    CONTROL_PAYLOAD_BYTES_MAX, CloseCode, Event, FrameReader, HEADER_BYTES_MAX, Opcode, PartialMemory, Role,
    append_close, append_close_answer,
};

use super::limits::{
    ECHO_MESSAGE_BYTES_MAX, ECHO_QUEUE_BYTES, ECHO_SILENCE_MILLISECONDS, MESSAGE_MILLISECONDS,
    RELAY_MESSAGE_BYTES_MAX,
};
use super::output::Output;
use super::{Phase, TrunkEvent};
use crate::clock::Tick;
use crate::context::Context;
use crate::limits::READ_MEMORY_KEPT;
use crate::relay::RelayName;
use crate::send_chunks::SendChunks;
use crate::session::{Delivery, Session};

/// What a step of a connection works with: who it is, when it is, what the core shares, and the queue.
pub(crate) struct Exchange<'a> {
    pub(crate) id: ConnectionId,
    pub(crate) now: Tick,
    pub(crate) context: &'a mut Context,
    pub(crate) output: &'a mut Output,
}

/// Bytes of the longest Close frame.
const CLOSE_BYTES_MAX: usize = HEADER_BYTES_MAX + CONTROL_PAYLOAD_BYTES_MAX;

/// Why a WebSocket ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// We close.
    Close(CloseCode, Cow<'static, str>),
    /// The peer closed first, and is answered.
    PeerClosed(Option<CloseCode>),
}

impl End {
    /// We close with a fixed reason.
    pub(crate) fn close(code: CloseCode, reason: &'static str) -> Self {
        End::Close(code, Cow::Borrowed(reason))
    }
}

/// How a step ended: `Err` ends the WebSocket.
pub(crate) type Step = Result<(), End>;

/// One upgraded connection.
pub(super) struct WebSocket {
    pub(super) reader: FrameReader,
    pub(super) mode: Mode,
    unfinished: Option<Box<Unfinished>>,
    /// The last time that the peer showed life.
    pub(super) heard: Tick,
    /// Our Close frame is queued: only the peer's Close is still of interest.
    pub(super) closing: bool,
}

// A size class of the allocator, with nothing to spare: one byte more costs half a million connections 16 MB.
const _: () = assert!(size_of::<WebSocket>() <= 128, "what every idle session has on the heap");

/// Bytes that an upgraded connection takes on the heap.
pub(crate) const WEBSOCKET_BYTES: usize = size_of::<WebSocket>();

/// The memory of messages that come in parts, of connections that no longer need it: a core's.
pub(crate) struct ReadMemory {
    partial: PartialMemory,
    #[expect(clippy::vec_box, reason = "a connection has it boxed, and moves the box")]
    unfinished: Vec<Box<Unfinished>>,
}

impl Default for ReadMemory {
    fn default() -> Self {
        Self { partial: PartialMemory::keeping(READ_MEMORY_KEPT), unfinished: Vec::new() }
    }
}

impl ReadMemory {
    /// What it keeps at most, in bytes.
    pub(crate) const BYTES_MAX: usize =
        READ_MEMORY_KEPT * (PartialMemory::bytes_each_max() + size_of::<Unfinished>());

    fn put(&mut self, mut unfinished: Box<Unfinished>) {
        if self.unfinished.len() < READ_MEMORY_KEPT {
            *unfinished = Unfinished::default();
            self.unfinished.push(unfinished);
        }
    }
}

/// What was received and is no message yet; only while there is something.
#[derive(Default)]
struct Unfinished {
    /// Received while reading is paused, unread.
    held: Vec<u8>,
    /// When the message began that is arriving in part.
    message_since: Option<Tick>,
    /// Our share of the core's budget for what was received in part.
    share: usize,
}

/// What the messages are for.
pub(super) enum Mode {
    /// Every message comes back.
    Echo,
    /// Messages go to other connections (`crate::relay`).
    Relay {
        /// By which others reach it.
        name: RelayName,
        /// It gets what is said to the room.
        in_room: bool,
    },
    /// The chat protocol. Not boxed: nearly all are sessions, and each would pay for one more block.
    Chat(Session),
}

impl WebSocket {
    /// A chat socket whose 101 is queued.
    pub(super) fn chat(
        context: &Context,
        encoding: Encoding,
        bearer: Option<Box<Claims>>,
        now: Tick,
    ) -> Self {
        let session = Session::new(encoding, bearer, now);
        Self::new(context.settings.message_bytes_max, Mode::Chat(session), now)
    }

    /// An echo socket whose 101 is queued.
    pub(super) fn echo(now: Tick) -> Self {
        Self::new(ECHO_MESSAGE_BYTES_MAX, Mode::Echo, now)
    }

    /// A relay socket whose 101 is queued.
    pub(super) fn relay(
        context: &mut Context,
        id: ConnectionId,
        name: RelayName,
        in_room: bool,
        now: Tick,
    ) -> Self {
        if let Some(relay) = &mut context.relay {
            relay.enter(name, id, in_room);
        }
        Self::new(RELAY_MESSAGE_BYTES_MAX, Mode::Relay { name, in_room }, now)
    }

    fn new(message_bytes_max: usize, mode: Mode, now: Tick) -> Self {
        Self {
            reader: FrameReader::new(Role::Server, message_bytes_max),
            mode,
            unfinished: None,
            heard: now,
            closing: false,
        }
    }

    /// Goes on from what was frozen. [`arrive`](Self::arrive) takes its share of the core's budget.
    pub(super) fn resume(
        reader: FrameReader,
        mode: Mode,
        held: Vec<u8>,
        heard: Tick,
        message_since: Option<Tick>,
        closing: bool,
    ) -> Self {
        let unfinished = Some(Box::new(Unfinished { held, message_since, share: 0 }));
        let mut websocket = Self { reader, mode, unfinished, heard, closing };
        websocket.drop_finished(&mut ReadMemory::default());
        websocket
    }

    /// It lives on this core from here on.
    pub(super) fn arrive(&mut self, context: &mut Context) {
        let share = self.unfinished_bytes();
        // Without room it stays uncounted until it changes, and is closed then.
        if share > 0 && context.partial.replace(0, share) {
            self.unfinished(&mut context.reading).share = share;
        }
        if let Mode::Chat(session) = &self.mode
            && session.is_counted()
        {
            context.note_session_begin();
        }
    }

    /// It lives elsewhere from here on.
    pub(super) fn leave(&mut self, context: &mut Context) {
        self.give_back_share(context);
        if let Mode::Chat(session) = &self.mode
            && session.is_counted()
        {
            context.note_session_end();
        }
    }

    /// How far it has come.
    pub(super) fn phase(&self) -> Phase {
        match &self.mode {
            _ if self.closing => Phase::Ending,
            Mode::Echo | Mode::Relay { .. } => Phase::Echo,
            Mode::Chat(session) if session.is_welcome() => Phase::Session,
            Mode::Chat(_) => Phase::Unwelcome,
        }
    }

    /// The process drains.
    pub(super) fn begin_drain(&mut self, exchange: &mut Exchange<'_>, after_ms: u64, within_ms: u64) -> Step {
        match &mut self.mode {
            _ if self.closing => Ok(()),
            Mode::Chat(session) => session.begin_drain(exchange, after_ms, within_ms),
            Mode::Echo | Mode::Relay { .. } => Err(End::close(CloseCode::GOING_AWAY, "the server drains")),
        }
    }

    /// A live entry.
    pub(super) fn deliver(&mut self, exchange: &mut Exchange<'_>, delivery: &mut Delivery<'_>) -> Step {
        match &mut self.mode {
            Mode::Chat(session) if !self.closing => session.deliver(exchange, delivery),
            _ => Ok(()),
        }
    }

    /// Frames of the relay for this connection.
    pub(super) fn take_relayed(&mut self, exchange: &mut Exchange<'_>, frames: &[u8]) -> Step {
        if self.takes_relayed(exchange, frames.len())? {
            exchange.output.append_bytes(&mut exchange.context.chunks, frames);
        }
        Ok(())
    }

    /// Frames of the relay for many.
    pub(super) fn take_shared(&mut self, exchange: &mut Exchange<'_>, frames: &Bytes) -> Step {
        if self.takes_relayed(exchange, frames.len())? {
            exchange.output.push(&mut exchange.context.chunks, frames.clone());
        }
        Ok(())
    }

    fn takes_relayed(&self, exchange: &Exchange<'_>, bytes: usize) -> Result<bool, End> {
        if self.closing || !matches!(self.mode, Mode::Relay { .. }) {
            return Ok(false);
        }
        if exchange.output.len() + bytes > exchange.context.settings.queue_bytes_max {
            return Err(End::close(CloseCode::SLOW_READER, "what waits for you passed max_queue_bytes"));
        }
        Ok(true)
    }

    /// Takes bytes that arrived.
    pub(super) fn handle_received(&mut self, exchange: &mut Exchange<'_>, received: &mut [u8]) -> Step {
        if self.is_paused(exchange.output) {
            self.unfinished(&mut exchange.context.reading).held.extend_from_slice(received);
        } else {
            self.read(exchange, received)?;
        }
        self.account(exchange)
    }

    /// Goes on with what was held, if reading is no longer paused. To be called after everything that may
    /// end a pause.
    pub(super) fn go_on(&mut self, exchange: &mut Exchange<'_>) -> Step {
        if !self.held().is_empty() && !self.is_paused(exchange.output) {
            let mut held = std::mem::take(&mut self.unfinished(&mut exchange.context.reading).held);
            self.read(exchange, &mut held)?;
            self.account(exchange)?;
        }
        Ok(())
    }

    /// Takes what the router says.
    pub(super) fn handle_trunk(&mut self, exchange: &mut Exchange<'_>, event: TrunkEvent) -> Step {
        let Mode::Chat(session) = &mut self.mode else { return Ok(()) };
        if self.closing {
            return Ok(());
        }
        let was_paused = session.is_paused();
        session.handle_trunk(exchange, event)?;
        if was_paused && !session.is_paused() {
            // The silence clock stood still while we did not listen.
            self.heard = exchange.now;
        }
        self.go_on(exchange)
    }

    /// Bytes left the queue.
    pub(super) fn handle_drained(&mut self, exchange: &mut Exchange<'_>) -> Step {
        if self.closing {
            return Ok(());
        }
        match &mut self.mode {
            Mode::Chat(session) => session.handle_drained(exchange)?,
            Mode::Echo => self.heard = exchange.now,
            Mode::Relay { .. } => {}
        }
        self.go_on(exchange)
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    pub(super) fn poll_timeout(&self, output: &Output) -> Tick {
        let never = Tick(u64::MAX);
        let silence = if self.is_paused(output) { never } else { self.heard + self.silence_milliseconds() };
        let message = self.message_since().map_or(never, |since| since + MESSAGE_MILLISECONDS);
        let session = match &self.mode {
            Mode::Chat(session) => session.poll_timeout(),
            Mode::Echo | Mode::Relay { .. } => never,
        };
        silence.min(message).min(session)
    }

    /// Time has come to `exchange.now`.
    pub(super) fn handle_timeout(&mut self, exchange: &mut Exchange<'_>) -> Step {
        if self.closing {
            return Ok(());
        }
        let now = exchange.now;
        if !self.is_paused(exchange.output) && now >= self.heard + self.silence_milliseconds() {
            let reason = "nothing was heard: send a ping every heartbeat_ms";
            return Err(End::close(CloseCode::HEARTBEAT_MISSED, reason));
        }
        if self.message_since().is_some_and(|since| now >= since + MESSAGE_MILLISECONDS) {
            let reason = "a message was begun and did not end in time";
            return Err(End::close(CloseCode::HEARTBEAT_MISSED, reason));
        }
        if let Mode::Chat(session) = &mut self.mode {
            session.handle_timeout(exchange)?;
        }
        self.go_on(exchange)
    }

    /// Whether the socket is to be read.
    pub(super) fn is_paused(&self, output: &Output) -> bool {
        !self.closing
            && match &self.mode {
                Mode::Echo => output.len() >= ECHO_QUEUE_BYTES,
                Mode::Relay { .. } => false,
                Mode::Chat(session) => session.is_paused(),
            }
    }

    /// Nothing more is said or read.
    pub(super) fn stop(&mut self) {
        if let Mode::Chat(session) = &mut self.mode {
            session.stop();
        }
        self.closing = true;
        if let Some(unfinished) = &mut self.unfinished {
            unfinished.held = Vec::new();
        }
    }

    /// Queues the last frame of this side. True if the peer's Close has come too: nothing is awaited.
    pub(super) fn finish(&mut self, output: &mut Output, chunks: &mut SendChunks, end: &End) -> bool {
        let answered = match end {
            End::Close(code, reason) => {
                output.append(chunks, CLOSE_BYTES_MAX, |out| append_close(out, *code, reason));
                false
            }
            End::PeerClosed(code) => {
                // Section 5.5.1: an endpoint that has sent its Close does not send another.
                if !self.closing {
                    output.append(chunks, CLOSE_BYTES_MAX, |out| append_close_answer(out, *code));
                }
                true
            }
        };
        self.stop();
        answered
    }

    /// Gives back what is shared and ends the session.
    pub(super) fn release(&mut self, id: ConnectionId, context: &mut Context) {
        self.give_back_share(context);
        match &mut self.mode {
            Mode::Echo => {}
            Mode::Relay { name, in_room } => {
                if let Some(relay) = &mut context.relay {
                    relay.leave(*name, id, *in_room);
                }
            }
            Mode::Chat(session) => session.release(id, context),
        }
    }

    fn silence_milliseconds(&self) -> u64 {
        match self.mode {
            Mode::Chat(_) => SILENCE_MILLISECONDS,
            Mode::Echo | Mode::Relay { .. } => ECHO_SILENCE_MILLISECONDS,
        }
    }

    /// Reads frames until there are no more, or reading pauses.
    fn read(&mut self, exchange: &mut Exchange<'_>, received: &mut [u8]) -> Step {
        let mut rest = received;
        let mut frames = 0;
        let ended = loop {
            let event = match self.reader.next_with(&mut rest, &mut exchange.context.reading.partial) {
                Ok(Some(event)) => event,
                Ok(None) => break Ok(()),
                Err(error) => break Err(End::Close(error.close_code(), error.to_string().into())),
            };
            frames += 1;
            if self.closing {
                match event {
                    Event::Close { code, .. } => break Err(End::PeerClosed(code)),
                    _ => continue,
                }
            }
            if let Err(end) = handle_event(&mut self.mode, exchange, event) {
                break Err(end);
            }
            let paused = match &self.mode {
                Mode::Echo => exchange.output.len() >= ECHO_QUEUE_BYTES,
                Mode::Relay { .. } => false,
                Mode::Chat(session) => session.is_paused(),
            };
            if paused {
                self.hold(rest, &mut exchange.context.reading);
                break Ok(());
            }
        };
        exchange.context.metrics.frames_in.add_alone(frames);
        ended?;
        let ended_one = frames > 0;
        let is_mid_message = self.reader.is_mid_message();
        if ended_one || is_mid_message {
            self.heard = exchange.now;
        }
        let message_since = match (is_mid_message, self.message_since()) {
            (false, _) => None,
            (true, Some(since)) if !ended_one => Some(since),
            (true, _) => Some(exchange.now),
        };
        if message_since != self.message_since() {
            self.unfinished(&mut exchange.context.reading).message_since = message_since;
        }
        Ok(())
    }

    /// Brings our share of the budget up to date.
    fn account(&mut self, exchange: &mut Exchange<'_>) -> Step {
        let share = self.unfinished_bytes();
        let before = self.unfinished.as_ref().map_or(0, |unfinished| unfinished.share);
        if share != before {
            if !exchange.context.partial.replace(before, share) {
                let reason = "the server holds too many messages in part: come back later";
                return Err(End::close(CloseCode::OVERLOADED, reason));
            }
            self.unfinished(&mut exchange.context.reading).share = share;
        }
        self.drop_finished(&mut exchange.context.reading);
        Ok(())
    }

    /// Received while reading is paused, unread.
    pub(super) fn held(&self) -> &[u8] {
        self.unfinished.as_ref().map_or(&[], |unfinished| &unfinished.held)
    }

    fn hold(&mut self, rest: &[u8], memory: &mut ReadMemory) {
        if !rest.is_empty() {
            self.unfinished(memory).held = rest.to_vec();
        }
    }

    /// When the message began that is arriving in part.
    pub(super) fn message_since(&self) -> Option<Tick> {
        self.unfinished.as_ref()?.message_since
    }

    fn unfinished(&mut self, memory: &mut ReadMemory) -> &mut Unfinished {
        self.unfinished.get_or_insert_with(|| memory.unfinished.pop().unwrap_or_default())
    }

    fn unfinished_bytes(&self) -> usize {
        self.reader.heap_bytes() + self.unfinished.as_ref().map_or(0, |unfinished| unfinished.held.capacity())
    }

    fn drop_finished(&mut self, memory: &mut ReadMemory) {
        let finished = self.unfinished.take_if(|unfinished| {
            unfinished.held.is_empty() && unfinished.message_since.is_none() && unfinished.share == 0
        });
        if let Some(finished) = finished {
            memory.put(finished);
        }
    }

    fn give_back_share(&mut self, context: &mut Context) {
        if let Some(unfinished) = &mut self.unfinished {
            context.partial.replace(std::mem::take(&mut unfinished.share), 0);
        }
    }
}

fn handle_event(mode: &mut Mode, exchange: &mut Exchange<'_>, event: Event<'_>) -> Step {
    match (mode, event) {
        (_, Event::Close { code, .. }) => return Err(End::PeerClosed(code)),
        (Mode::Chat(session), Event::Text(text)) => {
            session.handle_message(exchange, Opcode::Text, text.as_bytes())?;
        }
        (Mode::Chat(session), Event::Binary(bytes)) => {
            session.handle_message(exchange, Opcode::Binary, bytes)?;
        }
        (Mode::Chat(session), Event::Ping(payload)) => session.handle_ping(exchange, payload)?,
        (Mode::Chat(session), Event::Pong(_)) => session.handle_pong(exchange)?,
        (Mode::Echo, Event::Text(text)) => echo(exchange, Opcode::Text, text.as_bytes()),
        (Mode::Echo, Event::Binary(bytes)) => echo(exchange, Opcode::Binary, bytes),
        (Mode::Relay { .. }, Event::Text(text)) => relay(exchange, Opcode::Text, text.as_bytes())?,
        (Mode::Relay { .. }, Event::Binary(bytes)) => relay(exchange, Opcode::Binary, bytes)?,
        (Mode::Echo | Mode::Relay { .. }, Event::Ping(payload)) => echo(exchange, Opcode::Pong, payload),
        (Mode::Echo | Mode::Relay { .. }, Event::Pong(_)) => {}
    }
    Ok(())
}

fn echo(exchange: &mut Exchange<'_>, opcode: Opcode, payload: &[u8]) {
    exchange.output.append_frame(&mut exchange.context.chunks, opcode, payload);
    exchange.context.metrics.frames_out.increment();
}

fn relay(exchange: &mut Exchange<'_>, opcode: Opcode, message: &[u8]) -> Step {
    let Some(relay) = &mut exchange.context.relay else { return Ok(()) };
    if relay.post(opcode, message) {
        return Ok(());
    }
    Err(End::close(CloseCode::BAD_REQUEST, "a message begins with U and seven digits, or with R"))
}
