//! A virtual device: the client's side of the protocol as plain data. Bytes and time go in, bytes to send
//! come out, and everything that it does and sees goes into the history.
//!
//! It behaves as the protocol asks of a client: it resumes with its cursor, syncs what `heads` names, keeps
//! its window, repeats what was not answered under the same id, and treats a close code by its hundred.
//! `link.rs` moves the bytes; `worker.rs` tells the time.
//!
//! - `view.rs`: what it has of a conversation
//! - `outgoing.rs`: sends that have not ended
//! - `upgrade.rs`: the WebSocket handshake
//! - `frames.rs`: what it does with each frame
//! - `sending.rs`: what it sends, and again

mod frames;
mod outgoing;
mod sending;
mod upgrade;
mod view;

use std::collections::HashMap;
use std::sync::Arc;

use ringway_protocol::client::{ClientFrame, Encoding, Hello, Nonce, Sync, encode_client};
use ringway_protocol::ids::{ConversationId, Seq};
use ringway_protocol::user::DeviceId;
use ringway_protocol::websocket::{
    CloseCode, Event as Arrived, FrameReader, Opcode, Role, append_masked_close, append_masked_frame,
};

use crate::clock::{MILLISECOND, SECOND};
use crate::history::{Event, Recorder};
use crate::latency::Latencies;
use crate::logins::Login;

use outgoing::Outbox;
use upgrade::Upgrade;
use view::View;

/// The code of a socket that ended without a Close frame (RFC 6455 section 7.1.5).
const NO_CLOSE_FRAME: u16 = 1006;

/// From the start of a connection to `welcome`, at most, unless the habits say otherwise.
const GREETING_MAX: u64 = 10 * SECOND;

/// From our Close frame to the end of the socket, at most.
const LEAVING_MAX: u64 = 2 * SECOND;

/// From a ping to the next byte of the server, at most.
const SILENCE_MAX: u64 = 15 * SECOND;

/// Backoff of the protocol: full jitter below this, doubling.
const BACKOFF_FIRST: u64 = SECOND;
/// See [`BACKOFF_FIRST`].
const BACKOFF_MAX: u64 = 60 * SECOND;

/// Largest message of a server: a page of 64 KiB of entries, with the growth of its encoding.
const SERVER_MESSAGE_BYTES_MAX: usize = 1 << 20;

/// What one thread's devices share.
pub struct Context {
    /// Where events go.
    pub recorder: Recorder,
    /// Jitter, masks, choices.
    pub dice: fastrand::Rng,
    /// Counts and latencies since they were last collected.
    pub figures: Figures,
    /// How sends are made.
    pub habits: Habits,
    /// Only sends intended within these times count for latencies.
    pub measured: std::ops::Range<u64>,
    /// For frames on their way out.
    pub scratch: Vec<u8>,
    /// What the acks of this thread's devices promise, by conversation; only of those that are in it.
    pub promises: HashMap<ConversationId, Promise>,
}

/// What the acks of a conversation promise its members.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Promise {
    /// Devices that get each of its messages.
    pub recipients: u32,
    /// The last place that was acked.
    pub last: u64,
}

/// How sends are made.
#[derive(Clone, Copy, Debug)]
pub struct Habits {
    /// Bytes of a body.
    pub payload_bytes: usize,
    /// Of all sends, how many are repeats of an acked one.
    pub repeat: f64,
    /// Tells the client message ids of this run from those of others.
    pub run: u32,
    /// Sends of a device that may be without their ack; the server's own limit holds in any case.
    pub window: u32,
    /// Sends of a device that may wait or be without their ack; past it, the schedule's are dropped.
    pub open_sends_max: usize,
    /// From the start of a connection to `welcome`, at most.
    pub greeting_max: u64,
}

impl Default for Habits {
    /// As much as the server takes, and no schedule's send is dropped.
    fn default() -> Self {
        Self {
            payload_bytes: 0,
            repeat: 0.0,
            run: 0,
            window: u32::MAX,
            open_sends_max: usize::MAX,
            greeting_max: GREETING_MAX,
        }
    }
}

/// Counts and latencies.
#[derive(Clone, Default)]
pub struct Figures {
    /// From the intended times, of the measured phase.
    pub latencies: Latencies,
    /// Everything that is counted.
    pub counts: Counts,
}

/// Everything that is counted.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub struct Counts {
    /// Sends of the schedule.
    pub scheduled: u64,
    /// Sends of the schedule that no conversation was there for.
    pub homeless: u64,
    /// Sends of the schedule that found too many of their device open.
    pub dropped: u64,
    /// Sends of the schedule whose first attempt went out.
    pub begun: u64,
    /// Sends of the schedule that were acked for the first time.
    pub acked: u64,
    /// Deliveries that the acks of these promise.
    pub expected: u64,
    /// Messages that came for the first time, live or in pages.
    pub delivered: u64,
    /// Messages whose body does not prove its origin.
    pub corrupted: u64,
    /// Welcomed sockets that ended without being asked to.
    pub disconnects: u64,
    /// Sockets that ended before they were welcomed.
    pub connect_failures: u64,
    /// Sockets that ended because the device wanted it.
    pub left: u64,
    /// Attempts on the wire.
    pub attempts: u64,
    /// Acks.
    pub acks: u64,
    /// Acks that said `duplicate`.
    pub duplicate_acks: u64,
    /// Definite refusals.
    pub refusals: u64,
    /// Attempts whose outcome was unknown.
    pub unknown: u64,
    /// Entries that came live.
    pub live: u64,
    /// Entries that came in pages.
    pub caught_up: u64,
    /// Entries that the device had.
    pub duplicates: u64,
    /// Sockets that were welcomed.
    pub welcomes: u64,
    /// Sockets that ended without being asked to.
    pub drops: u64,
    /// `gap` frames.
    pub gaps: u64,
    /// `error` frames that concern no send.
    pub errors: u64,
    /// Frames or bytes that a client can't read: each is a bug of the server.
    pub unreadable: u64,
    /// Devices that will not come back, because a close code says so.
    pub gave_up: u64,
}

impl Figures {
    /// Adds all of another's.
    pub fn merge(&mut self, other: &Figures) {
        self.latencies.merge(&other.latencies);
        let (all, more) = (&mut self.counts, &other.counts);
        all.scheduled += more.scheduled;
        all.homeless += more.homeless;
        all.dropped += more.dropped;
        all.begun += more.begun;
        all.acked += more.acked;
        all.expected += more.expected;
        all.delivered += more.delivered;
        all.corrupted += more.corrupted;
        all.disconnects += more.disconnects;
        all.connect_failures += more.connect_failures;
        all.left += more.left;
        all.attempts += more.attempts;
        all.acks += more.acks;
        all.duplicate_acks += more.duplicate_acks;
        all.refusals += more.refusals;
        all.unknown += more.unknown;
        all.live += more.live;
        all.caught_up += more.caught_up;
        all.duplicates += more.duplicates;
        all.welcomes += more.welcomes;
        all.drops += more.drops;
        all.gaps += more.gaps;
        all.errors += more.errors;
        all.unreadable += more.unreadable;
        all.gave_up += more.gave_up;
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.latencies.clear();
        self.counts = Counts::default();
    }
}

/// How far a device's connection is.
#[derive(Debug)]
enum Phase {
    /// No socket; the next one at this time.
    Away { until: u64 },
    /// No socket, and none is wanted.
    Gone,
    /// TCP and TLS are being opened.
    Connecting { since: u64 },
    /// The request for the upgrade is sent.
    Upgrading { since: u64, upgrade: Box<Upgrade> },
    /// `hello` is sent, for the first time or again after a `gap` without an id.
    Greeting { since: u64, resumed: bool },
    /// Welcome.
    Open,
    /// Our Close frame is sent.
    Leaving { since: u64 },
}

/// What a device does after its socket ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Afterwards {
    /// As the close code says.
    ByCode,
    /// Comes back after so many nanoseconds.
    Return(u64),
    /// Stays away.
    Stay,
}

/// A virtual device.
pub struct Device {
    login: Login,
    name: Arc<str>,
    encoding: Encoding,
    bearer: bool,
    phase: Phase,
    reader: FrameReader,
    /// Numbers the sockets of the whole run, so that a history tells them apart.
    connection: u64,
    close_code: u16,
    afterwards: Afterwards,
    failures: u32,
    /// Left by its own wish, and has not tried to come back.
    absent: bool,
    resume: Option<String>,
    heartbeat: u64,
    next_beat: u64,
    /// A ping was sent then, and nothing came since.
    unanswered_since: Option<u64>,
    window: u32,
    views: Vec<View>,
    /// `heads` that came so far of the running resume.
    behind_heads: Vec<(ConversationId, u64)>,
    /// A resume was asked for, and its last `heads` has not come.
    heads_due: bool,
    /// Reads slowly on purpose: what it gets is late by its own doing.
    slow: bool,
    /// What was sent before this moment may have waited for it, being a slow reader.
    read_slowly_until: u64,
    /// Its bytes wait at the generator's doorway: see [`Device::set_arriving`].
    arriving: bool,
    sync_since: Option<u64>,
    hello_again_at: Option<u64>,
    outbox: Outbox,
    counter: u64,
    /// Bytes for the socket.
    pub out: Vec<u8>,
}

impl Device {
    /// A device that connects at `first`, and knows these conversations but nothing of what was said.
    pub fn new(
        login: Login,
        name: Arc<str>,
        encoding: Encoding,
        first: u64,
        conversations: &[ConversationId],
    ) -> Self {
        let bearer = name.len().is_multiple_of(2);
        Self {
            login,
            name,
            encoding,
            bearer,
            phase: Phase::Away { until: first },
            reader: FrameReader::new(Role::Client, SERVER_MESSAGE_BYTES_MAX),
            connection: 0,
            close_code: NO_CLOSE_FRAME,
            afterwards: Afterwards::ByCode,
            failures: 0,
            absent: false,
            resume: None,
            heartbeat: 30 * SECOND,
            next_beat: u64::MAX,
            unanswered_since: None,
            window: 1,
            views: conversations.iter().copied().map(View::new).collect(),
            behind_heads: Vec::new(),
            heads_due: false,
            slow: false,
            read_slowly_until: 0,
            arriving: false,
            sync_since: None,
            hello_again_at: None,
            outbox: Outbox::default(),
            counter: 0,
            out: Vec::new(),
        }
    }

    /// The conversations that it takes itself for a member of.
    pub fn conversations(&self) -> impl Iterator<Item = ConversationId> {
        self.views.iter().filter(|view| view.member).map(|view| view.conversation)
    }

    /// Its login.
    pub fn login(&self) -> &Login {
        &self.login
    }

    /// Whether it is welcome, and so can send.
    pub fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open)
    }

    /// Whether it is away by its own wish: nobody is there to send.
    pub fn is_absent(&self) -> bool {
        self.absent
    }

    /// Whether it has no socket and wants none.
    pub fn is_gone(&self) -> bool {
        matches!(self.phase, Phase::Gone)
    }

    /// Whether it wants a socket now.
    pub fn wants_socket(&self, now: u64) -> bool {
        matches!(self.phase, Phase::Away { until } if until <= now)
    }

    /// Sends that have not ended.
    pub fn open_sends(&self) -> usize {
        self.outbox.len()
    }

    /// Whether it is welcome, has asked for nothing that has not come, and has each of its conversations up
    /// to the place that `last` names.
    pub fn has_everything(&self, last: &dyn Fn(ConversationId) -> u64) -> bool {
        self.is_open()
            && self.sync_since.is_none()
            && self.hello_again_at.is_none()
            && self
                .views
                .iter()
                .all(|view| !view.behind && (!view.member || view.cursor().0 >= last(view.conversation)))
    }

    /// A socket is being opened; it has this number.
    pub fn begin(&mut self, now: u64, connection: u64) {
        self.connection = connection;
        self.absent = false;
        self.close_code = NO_CLOSE_FRAME;
        self.afterwards = Afterwards::ByCode;
        self.reader = FrameReader::new(Role::Client, SERVER_MESSAGE_BYTES_MAX);
        self.unanswered_since = None;
        self.hello_again_at = None;
        self.sync_since = None;
        self.out.clear();
        self.phase = Phase::Connecting { since: now };
    }

    /// The socket is open: asks for the upgrade.
    pub fn connected(&mut self, now: u64, authority: &str, path: &str) {
        let bearer = self.bearer.then(|| self.login.token());
        let upgrade = Upgrade::ask(authority, path, self.encoding, bearer.as_deref(), &mut self.out);
        let since = match self.phase {
            Phase::Connecting { since } => since,
            _ => now,
        };
        self.phase = Phase::Upgrading { since, upgrade: Box::new(upgrade) };
    }

    /// Takes bytes of the socket. False: close it.
    pub fn received(&mut self, context: &mut Context, now: u64, mut bytes: &mut [u8]) -> bool {
        self.unanswered_since = None;
        if let Phase::Upgrading { upgrade, .. } = &mut self.phase {
            match upgrade.read(bytes) {
                Ok(None) => return true,
                Ok(Some(head)) => {
                    bytes = &mut bytes[head..];
                    self.greet(context, now);
                }
                Err(error) => {
                    if let upgrade::UpgradeError::Status { status: 400 | 401 | 403 | 404 | 426, .. } = error {
                        self.afterwards = Afterwards::Stay;
                    }
                    context.figures.counts.errors += 1;
                    return false;
                }
            }
        }
        // The reader is lent out while its events are handled.
        let mut reader = std::mem::replace(&mut self.reader, FrameReader::new(Role::Client, 0));
        let goes_on = loop {
            match reader.next(&mut bytes) {
                Ok(Some(event)) => {
                    if !self.arrived(context, now, event) {
                        break false;
                    }
                }
                Ok(None) => break true,
                Err(_) => {
                    context.figures.counts.unreadable += 1;
                    break false;
                }
            }
        };
        self.reader = reader;
        goes_on
    }

    fn arrived(&mut self, context: &mut Context, now: u64, event: Arrived<'_>) -> bool {
        let payload = match event {
            Arrived::Text(text) if self.encoding == Encoding::Json => text.as_bytes(),
            Arrived::Binary(bytes) if self.encoding == Encoding::Protobuf => bytes,
            Arrived::Text(_) | Arrived::Binary(_) => {
                context.figures.counts.unreadable += 1;
                return true;
            }
            Arrived::Ping(payload) => {
                append_masked_frame(&mut self.out, Opcode::Pong, payload, mask(context));
                return true;
            }
            Arrived::Pong(_) => return true,
            Arrived::Close { code, .. } => {
                self.close_code = code.map_or(1005, |code| code.0);
                if !matches!(self.phase, Phase::Leaving { .. }) {
                    append_masked_close(&mut self.out, code, "", mask(context));
                }
                return false;
            }
        };
        match ringway_protocol::client::decode_server(self.encoding, payload) {
            Ok(frame) => self.handle(context, now, frame),
            Err(_) => context.figures.counts.unreadable += 1,
        }
        true
    }

    fn greet(&mut self, context: &mut Context, now: u64) {
        let resumed = self.resume.is_some();
        let hello = Hello {
            token: (!self.bearer).then(|| self.login.token().into_owned()),
            device: DeviceId::new(&self.name).ok(),
            client: Some(concat!("loadgen/", env!("CARGO_PKG_VERSION")).into()),
            batch: false,
            resume: self.resume.clone(),
        };
        self.say(context, &ClientFrame::Hello(hello));
        self.behind_heads.clear();
        self.heads_due = resumed;
        self.hello_again_at = None;
        self.phase = Phase::Greeting { since: now, resumed };
    }

    /// The socket is gone.
    pub fn ended(&mut self, context: &mut Context, now: u64) {
        let welcomed = matches!(self.phase, Phase::Open | Phase::Leaving { .. })
            || matches!(self.phase, Phase::Greeting { .. } if self.next_beat != u64::MAX);
        self.give_up_attempts(context, now);
        if welcomed {
            context.recorder.record_at(
                now,
                &Event::Closed {
                    user: (&*self.login.user).into(),
                    device: (&*self.name).into(),
                    connection: self.connection,
                    code: self.close_code,
                },
            );
        }
        self.next_beat = u64::MAX;
        self.heads_due = false;
        // The next heads need not name again what this socket's sync has not brought.
        let unfinished = self.sync_since.take().is_some();
        for view in &mut self.views {
            view.behind |= unfinished || view.hole_since().is_some();
        }
        self.out.clear();
        let asked = matches!(self.phase, Phase::Leaving { .. }) || self.afterwards != Afterwards::ByCode;
        let counts = &mut context.figures.counts;
        counts.drops += u64::from(!asked);
        // A slow reader that was put out has had its way.
        let wanted = asked || self.slow && welcomed;
        counts.left += u64::from(wanted && welcomed);
        counts.disconnects += u64::from(!wanted && welcomed);
        counts.connect_failures += u64::from(!asked && !welcomed);
        self.phase = match (self.afterwards, self.close_code / 100) {
            (Afterwards::Stay, _) => Phase::Gone,
            (Afterwards::Return(after), _) => Phase::Away { until: now + after },
            (Afterwards::ByCode, 40) => {
                context.figures.counts.gave_up += 1;
                Phase::Gone
            }
            (Afterwards::ByCode, 42) => Phase::Away { until: now + context.dice.u64(0..100 * MILLISECOND) },
            (Afterwards::ByCode, _) => {
                let most = (BACKOFF_FIRST << self.failures.min(6)).min(BACKOFF_MAX);
                self.failures += 1;
                Phase::Away { until: now + context.dice.u64(0..most) }
            }
        };
    }

    /// Sends a Close frame.
    pub fn leave(&mut self, context: &mut Context, now: u64, afterwards: Afterwards) {
        self.afterwards = afterwards;
        self.absent = afterwards != Afterwards::ByCode;
        if matches!(self.phase, Phase::Open | Phase::Greeting { .. }) {
            append_masked_close(&mut self.out, Some(CloseCode::NORMAL), "", mask(context));
            self.phase = Phase::Leaving { since: now };
        } else if matches!(self.phase, Phase::Away { .. }) {
            self.phase = match afterwards {
                Afterwards::Stay => Phase::Gone,
                Afterwards::Return(after) => Phase::Away { until: now + after },
                Afterwards::ByCode => Phase::Away { until: now },
            };
        }
    }

    /// What to do when the socket is cut without a word; the caller cuts it.
    pub fn will_return_after(&mut self, nanoseconds: u64) {
        self.absent = true;
        self.afterwards = Afterwards::Return(nanoseconds);
    }

    /// Does what is due. False: cut the socket, it is dead.
    pub fn tick(&mut self, context: &mut Context, now: u64) -> bool {
        match self.phase {
            Phase::Away { .. } | Phase::Gone => return true,
            Phase::Connecting { since } | Phase::Upgrading { since, .. } | Phase::Greeting { since, .. } => {
                return now < since + context.habits.greeting_max;
            }
            Phase::Leaving { since } => return now < since + LEAVING_MAX,
            Phase::Open => {}
        }
        // Who does not read hears nothing.
        if !self.slow && self.unanswered_since.is_some_and(|since| now > since + SILENCE_MAX) {
            return false;
        }
        if now >= self.next_beat {
            self.next_beat = now + self.heartbeat;
            self.unanswered_since.get_or_insert(now);
            self.say(context, &ClientFrame::Ping { nonce: Some(Nonce::Number(now / MILLISECOND)) });
        }
        if self.hello_again_at.is_some_and(|at| now >= at) {
            self.greet(context, now);
            return true;
        }
        self.ask_for_what_is_missing(context, now);
        self.time_out_attempts(context, now);
        self.try_again(context, now);
        true
    }

    /// From now on it reads slowly, or no longer does. What was sent meanwhile comes late by its own doing: no
    /// latency of the server, no sign that the socket is dead, and no fault if the server puts it out.
    pub fn set_slow(&mut self, slow: bool, now: u64) {
        if self.slow && !slow {
            self.read_slowly_until = now;
        }
        self.slow = slow;
        self.unanswered_since = None;
    }

    /// From now on its bytes may wait for its turn to arrive, or no longer do. What comes live meanwhile is
    /// no latency of the server; how long the arrival takes is measured as such.
    pub fn set_arriving(&mut self, arriving: bool) {
        self.arriving = arriving;
    }

    /// Whether it is welcome and has caught up with what the server told it to.
    pub fn has_arrived(&self) -> bool {
        self.is_open() && !self.heads_due && self.sync_since.is_none() && self.hello_again_at.is_none()
    }

    /// When it is to be ticked next, at the latest; `u64::MAX` while nothing is due. Time-outs of what is
    /// open are looked at every `step`.
    pub fn next_tick(&self, context: &Context, now: u64, step: u64) -> u64 {
        match self.phase {
            Phase::Away { until } => until,
            Phase::Gone => u64::MAX,
            Phase::Connecting { since } | Phase::Upgrading { since, .. } | Phase::Greeting { since, .. } => {
                since + context.habits.greeting_max
            }
            Phase::Leaving { since } => since + LEAVING_MAX,
            Phase::Open => {
                let busy = self.outbox.len() > 0
                    || self.sync_since.is_some()
                    || self.hello_again_at.is_some()
                    || self.views.iter().any(|view| view.behind || view.hole_since().is_some());
                let silent = self.unanswered_since.map_or(u64::MAX, |since| since + SILENCE_MAX + 1);
                let busy = if busy { now + step } else { u64::MAX };
                self.next_beat.min(silent).min(busy)
            }
        }
    }

    /// Messages that the acks of its conversations promise and that it does not have.
    pub fn missing(&self, context: &Context) -> u64 {
        let missing = |view: &View| match context.promises.get(&view.conversation) {
            Some(promise) if view.member => view.missing_up_to(Seq(promise.last)),
            _ => 0,
        };
        self.views.iter().map(missing).sum()
    }

    fn say(&mut self, context: &mut Context, frame: &ClientFrame) {
        let mut payload = std::mem::take(&mut context.scratch);
        payload.clear();
        encode_client(self.encoding, frame, &mut payload);
        append_masked_frame(&mut self.out, self.encoding.opcode(), &payload, mask(context));
        context.scratch = payload;
    }

    /// Syncs these conversations, and says for the others of `claimed` that nothing is missing.
    fn sync(&mut self, context: &mut Context, now: u64, claimed: bool) {
        let mut last_seen = Vec::new();
        for view in &mut self.views {
            view.more = false;
            // Also where the user was removed: a gap before the removal is theirs to fill.
            if !(view.behind || claimed && view.member) {
                continue;
            }
            context.recorder.record_at(
                now,
                &Event::SyncInvoked {
                    user: (&*self.login.user).into(),
                    device: (&*self.name).into(),
                    connection: self.connection,
                    conversation: view.conversation,
                    after: view.cursor(),
                },
            );
            if view.behind {
                view.behind = false;
                view.hole_is_asked_for(now);
                last_seen.push((view.conversation, view.cursor()));
            }
        }
        if last_seen.is_empty() {
            if claimed {
                self.record_sync_done(context, now);
            }
            return;
        }
        self.sync_since = Some(now);
        self.say(context, &ClientFrame::Sync(Sync { last_seen, limit: None }));
    }

    fn record_sync_done(&self, context: &mut Context, now: u64) {
        context.recorder.record_at(
            now,
            &Event::SyncDone {
                user: (&*self.login.user).into(),
                device: (&*self.name).into(),
                connection: self.connection,
            },
        );
    }

    fn view(&mut self, conversation: ConversationId) -> Option<&mut View> {
        self.views.iter_mut().find(|view| view.conversation == conversation)
    }

    /// Says that it has, or should have, everything.
    pub fn record_end(&self, context: &mut Context) {
        context
            .recorder
            .record(&Event::DeviceEnd { user: (&*self.login.user).into(), device: (&*self.name).into() });
    }
}

/// Any mask will do where no proxy of others is between (RFC 6455 section 10.3).
fn mask(context: &mut Context) -> [u8; 4] {
    context.dice.u32(..).to_le_bytes()
}
