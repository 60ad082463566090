//! The events of a history and their lines.
//!
//! A line is one JSON object: `t` is the time (nanoseconds of CLOCK_MONOTONIC), `e` names the event, and
//! the other fields depend on it. Ids are JSON numbers of 64 bits. Lines are written by hand and read by
//! serde without copies, because a run of a minute has millions of them.

use std::borrow::Cow;
use std::io::Write;

use ringway_protocol::ids::{ConversationId, MessageId, Seq};
use serde::Deserialize;

/// One line.
#[derive(Clone, Debug, PartialEq)]
pub struct Record<'a> {
    /// Nanoseconds of CLOCK_MONOTONIC.
    pub time: u64,
    /// What happened.
    pub event: Event<'a>,
}

/// One attempt to send a message: a retry is another attempt with the same idempotency key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt<'a> {
    /// The sender.
    pub user: Cow<'a, str>,
    /// The device that sends.
    pub device: Cow<'a, str>,
    /// The socket that it goes over.
    pub connection: u64,
    /// Where to.
    pub conversation: ConversationId,
    /// The idempotency key, with conversation and sender.
    pub client_message_id: Cow<'a, str>,
    /// [`crate::payload::hash`] of the body.
    pub hash: u64,
}

/// A log entry as somebody saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Its conversation.
    pub conversation: ConversationId,
    /// Its place.
    pub seq: Seq,
    /// Its id; 0 where the frame does not tell (a change).
    pub message: MessageId,
    /// [`crate::payload::hash`] of the body, or of the change's words.
    pub hash: u64,
    /// Who sent it.
    pub sender: Cow<'a, str>,
    /// The client message id that the body names; empty for a change.
    pub client_message_id: Cow<'a, str>,
    /// Empty if the body proved its origin, else a word for what is wrong with it.
    pub forgery: Cow<'a, str>,
    /// Empty for a message, else the change's name in the protocol (`member_added` …).
    pub change: Cow<'a, str>,
    /// The users that a change names.
    pub users: Vec<Cow<'a, str>>,
}

/// How an entry came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Via {
    /// On the socket, as it happened.
    Live,
    /// On the socket, in a page of a sync.
    Catchup,
    /// Over HTTP; `connection` is the number of the read.
    History,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event<'a> {
    /// `send_inv`: an attempt starts.
    SendInvoked(Attempt<'a>),
    /// `send_ok`: an attempt was acked.
    SendAcknowledged {
        /// Which.
        attempt: Attempt<'a>,
        /// The message's id.
        message: MessageId,
        /// Its place.
        seq: Seq,
        /// The server says that it was stored before.
        duplicate: bool,
    },
    /// `send_fail`: an attempt was refused for certain.
    SendRefused {
        /// Which.
        attempt: Attempt<'a>,
        /// The protocol's error code.
        code: Cow<'a, str>,
    },
    /// `send_info`: nobody knows what became of an attempt.
    SendUnknown(Attempt<'a>),
    /// `recv`: a device got an entry.
    Received {
        /// Whose device.
        user: Cow<'a, str>,
        /// Which device.
        device: Cow<'a, str>,
        /// The socket, or for [`Via::History`] the number of the read.
        connection: u64,
        /// How.
        via: Via,
        /// What.
        entry: Entry<'a>,
    },
    /// `join_ok`: a user is a member from this place on.
    Joined {
        /// Where.
        conversation: ConversationId,
        /// Who.
        user: Cow<'a, str>,
        /// The entry that says so; 0 if the answer did not tell.
        seq: Seq,
    },
    /// `leave_ok`: a user is no member after this place.
    Left {
        /// Where.
        conversation: ConversationId,
        /// Who.
        user: Cow<'a, str>,
        /// The entry that says so; 0 if the answer did not tell.
        seq: Seq,
    },
    /// `hist_inv`: a read of history starts.
    HistoryInvoked {
        /// Numbers the read.
        read: u64,
        /// Who reads.
        user: Cow<'a, str>,
        /// On which device.
        device: Cow<'a, str>,
        /// What.
        conversation: ConversationId,
    },
    /// `hist_ok`: it returned, its rows as `recv` lines before this one.
    HistoryReturned {
        /// Which.
        read: u64,
        /// The first place it answers for.
        low: Seq,
        /// The last place it answers for; `Seq(u64::MAX)` if it reached the newest.
        high: Seq,
    },
    /// `conn_open`: a device's socket was welcomed.
    Opened {
        /// Whose.
        user: Cow<'a, str>,
        /// Which device.
        device: Cow<'a, str>,
        /// Numbers the socket.
        connection: u64,
    },
    /// `conn_close`: it ended.
    Closed {
        /// Whose.
        user: Cow<'a, str>,
        /// Which device.
        device: Cow<'a, str>,
        /// Which.
        connection: u64,
        /// The close code; 1006 if the socket ended without one.
        code: u16,
    },
    /// `sync_inv`: a device asks for what it missed of one conversation.
    SyncInvoked {
        /// Whose.
        user: Cow<'a, str>,
        /// Which device.
        device: Cow<'a, str>,
        /// Over which socket.
        connection: u64,
        /// Of what.
        conversation: ConversationId,
        /// The last place that it has.
        after: Seq,
    },
    /// `sync_done`: the server says that everything asked for was brought.
    SyncDone {
        /// Whose.
        user: Cow<'a, str>,
        /// Which device.
        device: Cow<'a, str>,
        /// Over which socket.
        connection: u64,
    },
    /// `gap`: the server says that it left entries out on this socket.
    Gap {
        /// Whose.
        user: Cow<'a, str>,
        /// Which device.
        device: Cow<'a, str>,
        /// Over which socket.
        connection: u64,
        /// Of what; of everything, if `None`.
        conversation: Option<ConversationId>,
    },
    /// `final`: a row of the full read after the run.
    Final {
        /// Numbers the read.
        read: u64,
        /// What it says.
        entry: Entry<'a>,
    },
    /// `final_ok`: the full read of a conversation is complete.
    FinalReturned {
        /// Which read.
        read: u64,
        /// Of what.
        conversation: ConversationId,
        /// Rows that it had.
        rows: u64,
    },
    /// `device_end`: from here on the device has, or should have, everything.
    DeviceEnd {
        /// Whose.
        user: Cow<'a, str>,
        /// Which.
        device: Cow<'a, str>,
    },
    /// `durable`, from the server's trace: an entry survives from here on.
    Durable {
        /// Its conversation.
        conversation: ConversationId,
        /// Its place.
        seq: Seq,
    },
    /// `loaded`, from the server's trace: an owner read the conversation from the store, so that everything
    /// up to here is durable.
    Loaded {
        /// Which.
        conversation: ConversationId,
        /// Its last place.
        seq: Seq,
    },
    /// `ack`, from the server's trace: an ack was handed to the sender's gateway.
    Acked {
        /// Its conversation.
        conversation: ConversationId,
        /// Its place.
        seq: Seq,
    },
    /// `deliver`, from the server's trace: an entry was handed to the members' gateways.
    Delivered {
        /// Its conversation.
        conversation: ConversationId,
        /// Its place.
        seq: Seq,
    },
}

impl Record<'_> {
    /// Appends the line, with its line feed.
    pub fn write(&self, out: &mut Vec<u8>) {
        write_line(self.time, &self.event, out);
    }
}

/// Appends the line of an event, with its line feed.
pub fn write_line(time: u64, event: &Event<'_>, out: &mut Vec<u8>) {
    let mut line = Line { out };
    line.out.extend_from_slice(b"{\"t\":");
    push_number(line.out, time);
    match event {
        Event::SendInvoked(attempt) => line.kind("send_inv").attempt(attempt),
        Event::SendAcknowledged { attempt, message, seq, duplicate } => {
            line.kind("send_ok").attempt(attempt).number("mid", message.0).number("seq", seq.0);
            if *duplicate {
                line.number("dup", 1);
            }
            &mut line
        }
        Event::SendRefused { attempt, code } => line.kind("send_fail").attempt(attempt).text("code", code),
        Event::SendUnknown(attempt) => line.kind("send_info").attempt(attempt),
        Event::Received { user, device, connection, via, entry } => {
            line.kind("recv").socket(user, device, *connection).text("via", via.as_str()).entry(entry)
        }
        Event::Joined { conversation, user, seq } => {
            line.kind("join_ok").number("conv", conversation.0).text("user", user).number("seq", seq.0)
        }
        Event::Left { conversation, user, seq } => {
            line.kind("leave_ok").number("conv", conversation.0).text("user", user).number("seq", seq.0)
        }
        Event::HistoryInvoked { read, user, device, conversation } => {
            line.kind("hist_inv").socket(user, device, *read).number("conv", conversation.0)
        }
        Event::HistoryReturned { read, low, high } => {
            line.kind("hist_ok").number("conn", *read).number("low", low.0).number("high", high.0)
        }
        Event::Opened { user, device, connection } => {
            line.kind("conn_open").socket(user, device, *connection)
        }
        Event::Closed { user, device, connection, code } => {
            line.kind("conn_close").socket(user, device, *connection).number("close", u64::from(*code))
        }
        Event::SyncInvoked { user, device, connection, conversation, after } => line
            .kind("sync_inv")
            .socket(user, device, *connection)
            .number("conv", conversation.0)
            .number("low", after.0),
        Event::SyncDone { user, device, connection } => {
            line.kind("sync_done").socket(user, device, *connection)
        }
        Event::Gap { user, device, connection, conversation } => line
            .kind("gap")
            .socket(user, device, *connection)
            .number("conv", conversation.map_or(0, |conversation| conversation.0)),
        Event::Final { read, entry } => line.kind("final").number("conn", *read).entry(entry),
        Event::FinalReturned { read, conversation, rows } => {
            line.kind("final_ok").number("conn", *read).number("conv", conversation.0).number("rows", *rows)
        }
        Event::DeviceEnd { user, device } => {
            line.kind("device_end").text("user", user).text("device", device)
        }
        Event::Durable { conversation, seq } => line.kind("durable").place(*conversation, *seq),
        Event::Loaded { conversation, seq } => line.kind("loaded").place(*conversation, *seq),
        Event::Acked { conversation, seq } => line.kind("ack").place(*conversation, *seq),
        Event::Delivered { conversation, seq } => line.kind("deliver").place(*conversation, *seq),
    };
    out.extend_from_slice(b"}\n");
}

impl<'a> Entry<'a> {
    /// A change, which has no body: its hash is that of its words.
    pub fn change(
        conversation: ConversationId,
        seq: Seq,
        message: MessageId,
        sender: impl Into<Cow<'a, str>>,
        change: impl Into<Cow<'a, str>>,
        users: Vec<impl Into<Cow<'a, str>>>,
    ) -> Self {
        let change = change.into();
        let users: Vec<Cow<'a, str>> = users.into_iter().map(Into::into).collect();
        let mut words = change.as_bytes().to_vec();
        for user in &users {
            words.push(b' ');
            words.extend_from_slice(user.as_bytes());
        }
        Self {
            conversation,
            seq,
            message,
            hash: crate::payload::hash(&words),
            sender: sender.into(),
            client_message_id: "".into(),
            forgery: "".into(),
            change,
            users,
        }
    }
}

impl Via {
    /// Its word in a line.
    pub fn as_str(self) -> &'static str {
        match self {
            Via::Live => "live",
            Via::Catchup => "catchup",
            Via::History => "history",
        }
    }
}

/// Appends fields to a line.
struct Line<'a> {
    out: &'a mut Vec<u8>,
}

impl Line<'_> {
    fn kind(&mut self, kind: &str) -> &mut Self {
        self.text("e", kind)
    }

    fn number(&mut self, name: &str, value: u64) -> &mut Self {
        self.name(name);
        push_number(self.out, value);
        self
    }

    fn text(&mut self, name: &str, value: &str) -> &mut Self {
        self.name(name);
        push_text(self.out, value);
        self
    }

    fn socket(&mut self, user: &str, device: &str, connection: u64) -> &mut Self {
        self.text("user", user).text("device", device).number("conn", connection)
    }

    fn place(&mut self, conversation: ConversationId, seq: Seq) -> &mut Self {
        self.number("conv", conversation.0).number("seq", seq.0)
    }

    fn attempt(&mut self, attempt: &Attempt<'_>) -> &mut Self {
        self.socket(&attempt.user, &attempt.device, attempt.connection)
            .number("conv", attempt.conversation.0)
            .text("cid", &attempt.client_message_id)
            .number("hash", attempt.hash)
    }

    fn entry(&mut self, entry: &Entry<'_>) -> &mut Self {
        self.place(entry.conversation, entry.seq)
            .number("mid", entry.message.0)
            .number("hash", entry.hash)
            .text("from", &entry.sender);
        if !entry.client_message_id.is_empty() {
            self.text("cid", &entry.client_message_id);
        }
        if !entry.forgery.is_empty() {
            self.text("proof", &entry.forgery);
        }
        if !entry.change.is_empty() {
            self.text("change", &entry.change);
        }
        if !entry.users.is_empty() {
            self.name("users");
            self.out.push(b'[');
            for (index, user) in entry.users.iter().enumerate() {
                if index > 0 {
                    self.out.push(b',');
                }
                push_text(self.out, user);
            }
            self.out.push(b']');
        }
        self
    }

    fn name(&mut self, name: &str) {
        self.out.extend_from_slice(b",\"");
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
    }
}

fn push_number(out: &mut Vec<u8>, mut value: u64) {
    let mut digits = [0u8; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[start..]);
}

fn push_text(out: &mut Vec<u8>, text: &str) {
    if text.bytes().all(|byte| byte >= b' ' && byte != b'"' && byte != b'\\') {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    } else {
        serde_json::to_writer(out.by_ref(), text).expect("a vector takes every byte");
    }
}

/// A line as serde reads it: every field that any event has.
#[derive(Deserialize)]
struct Fields<'a> {
    t: u64,
    #[serde(borrow)]
    e: Cow<'a, str>,
    #[serde(borrow, default)]
    user: Cow<'a, str>,
    #[serde(borrow, default)]
    device: Cow<'a, str>,
    #[serde(default)]
    conn: u64,
    #[serde(default)]
    conv: u64,
    #[serde(default)]
    seq: u64,
    #[serde(default)]
    mid: u64,
    #[serde(default)]
    hash: u64,
    #[serde(borrow, default)]
    from: Cow<'a, str>,
    #[serde(borrow, default)]
    cid: Cow<'a, str>,
    #[serde(borrow, default)]
    proof: Cow<'a, str>,
    #[serde(borrow, default)]
    change: Cow<'a, str>,
    #[serde(default)]
    users: Vec<String>,
    #[serde(default)]
    via: Option<Via>,
    #[serde(borrow, default)]
    code: Cow<'a, str>,
    #[serde(default)]
    close: u16,
    #[serde(default)]
    dup: u8,
    #[serde(default)]
    low: u64,
    #[serde(default)]
    high: u64,
    #[serde(default)]
    rows: u64,
}

impl<'a> Record<'a> {
    /// Reads one line.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn read(line: &'a [u8]) -> Result<Self, String> {
        let fields: Fields<'a> = serde_json::from_slice(line).map_err(|error| error.to_string())?;
        let time = fields.t;
        Ok(Record { time, event: fields.event()? })
    }
}

impl<'a> Fields<'a> {
    fn event(self) -> Result<Event<'a>, String> {
        let conversation = ConversationId(self.conv);
        let (seq, message, connection) = (Seq(self.seq), MessageId(self.mid), self.conn);
        Ok(match &*self.e {
            "send_inv" => Event::SendInvoked(self.attempt()),
            "send_ok" => {
                let duplicate = self.dup != 0;
                Event::SendAcknowledged { attempt: self.attempt(), message, seq, duplicate }
            }
            "send_fail" => {
                let code = self.code.clone();
                Event::SendRefused { attempt: self.attempt(), code }
            }
            "send_info" => Event::SendUnknown(self.attempt()),
            "recv" => {
                let via = self.via.ok_or("recv without via")?;
                let (user, device) = (self.user.clone(), self.device.clone());
                Event::Received { user, device, connection, via, entry: self.entry() }
            }
            "join_ok" => Event::Joined { conversation, user: self.user, seq },
            "leave_ok" => Event::Left { conversation, user: self.user, seq },
            "hist_inv" => {
                Event::HistoryInvoked { read: connection, user: self.user, device: self.device, conversation }
            }
            "hist_ok" => {
                Event::HistoryReturned { read: connection, low: Seq(self.low), high: Seq(self.high) }
            }
            "conn_open" => Event::Opened { user: self.user, device: self.device, connection },
            "conn_close" => {
                Event::Closed { user: self.user, device: self.device, connection, code: self.close }
            }
            "sync_inv" => Event::SyncInvoked {
                user: self.user,
                device: self.device,
                connection,
                conversation,
                after: Seq(self.low),
            },
            "sync_done" => Event::SyncDone { user: self.user, device: self.device, connection },
            "gap" => Event::Gap {
                user: self.user,
                device: self.device,
                connection,
                conversation: (self.conv != 0).then_some(conversation),
            },
            "final" => Event::Final { read: connection, entry: self.entry() },
            "final_ok" => Event::FinalReturned { read: connection, conversation, rows: self.rows },
            "device_end" => Event::DeviceEnd { user: self.user, device: self.device },
            "durable" => Event::Durable { conversation, seq },
            "loaded" => Event::Loaded { conversation, seq },
            "ack" => Event::Acked { conversation, seq },
            "deliver" => Event::Delivered { conversation, seq },
            other => return Err(format!("no event is called {other:?}")),
        })
    }

    fn attempt(self) -> Attempt<'a> {
        Attempt {
            user: self.user,
            device: self.device,
            connection: self.conn,
            conversation: ConversationId(self.conv),
            client_message_id: self.cid,
            hash: self.hash,
        }
    }

    fn entry(self) -> Entry<'a> {
        Entry {
            conversation: ConversationId(self.conv),
            seq: Seq(self.seq),
            message: MessageId(self.mid),
            hash: self.hash,
            sender: self.from,
            client_message_id: self.cid,
            forgery: self.proof,
            change: self.change,
            users: self.users.into_iter().map(Cow::Owned).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt() -> Attempt<'static> {
        Attempt {
            user: "u\"1".into(),
            device: "d1".into(),
            connection: 3,
            conversation: ConversationId(u64::MAX),
            client_message_id: "u1-1".into(),
            hash: u64::MAX - 1,
        }
    }

    fn entry() -> Entry<'static> {
        Entry {
            conversation: ConversationId(1),
            seq: Seq(2),
            message: MessageId(3),
            hash: 4,
            sender: "u1".into(),
            client_message_id: "".into(),
            forgery: "crc".into(),
            change: "member_added".into(),
            users: vec!["ü2".into(), "u3\n".into()],
        }
    }

    #[test]
    fn every_event_is_read_back_as_it_was_written() {
        let (user, device) = (Cow::from("u1"), Cow::from("d\\1"));
        let (connection, conversation, seq) = (9, ConversationId(8), Seq(7));
        let events = [
            Event::SendInvoked(attempt()),
            Event::SendAcknowledged { attempt: attempt(), message: MessageId(1), seq, duplicate: true },
            Event::SendRefused { attempt: attempt(), code: "forbidden".into() },
            Event::SendUnknown(attempt()),
            Event::Received {
                user: user.clone(),
                device: device.clone(),
                connection,
                via: Via::Catchup,
                entry: entry(),
            },
            Event::Joined { conversation, user: user.clone(), seq },
            Event::Left { conversation, user: user.clone(), seq },
            Event::HistoryInvoked { read: 5, user: user.clone(), device: device.clone(), conversation },
            Event::HistoryReturned { read: 5, low: seq, high: Seq(u64::MAX) },
            Event::Opened { user: user.clone(), device: device.clone(), connection },
            Event::Closed { user: user.clone(), device: device.clone(), connection, code: 4103 },
            Event::SyncInvoked {
                user: user.clone(),
                device: device.clone(),
                connection,
                conversation,
                after: seq,
            },
            Event::SyncDone { user: user.clone(), device: device.clone(), connection },
            Event::Gap { user: user.clone(), device: device.clone(), connection, conversation: None },
            Event::Final { read: 6, entry: entry() },
            Event::FinalReturned { read: 6, conversation, rows: 7 },
            Event::DeviceEnd { user, device },
            Event::Durable { conversation, seq },
            Event::Loaded { conversation, seq },
            Event::Acked { conversation, seq },
            Event::Delivered { conversation, seq },
        ];
        for (time, event) in events.into_iter().enumerate() {
            let record = Record { time: time as u64, event };
            let mut line = Vec::new();
            record.write(&mut line);
            assert_eq!(line.pop(), Some(b'\n'));
            assert!(!line.contains(&b'\n'));
            assert_eq!(Record::read(&line).as_ref(), Ok(&record), "{}", String::from_utf8_lossy(&line));
        }
    }

    #[test]
    fn a_line_that_is_no_event_says_why() {
        for line in [&b""[..], b"{", b"[]", br#"{"t":1,"e":"nothing"}"#, br#"{"t":1,"e":"recv"}"#] {
            assert!(Record::read(line).is_err(), "{}", String::from_utf8_lossy(line));
        }
    }
}
