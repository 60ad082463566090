//! Frames as JSON: written straight into the bytes to send, field by field in the order of `protocol.md`.
//!
//! No line break is ever written, so that a batch is one object a line.

use base64::display::Base64Display;
use base64::engine::general_purpose::STANDARD;

use super::client_frame::{ClientFrame, Destination, Nonce, Send, Sync};
use super::server_frame::{ChangeItem, ErrorFrame, LogItem, MessageItem, Placement, ServerFrame, Welcome};
use crate::entry::{Body, Change, Message, Role};
use crate::ids::{ConversationId, Seq};
use crate::live_message::{LiveBody, LiveMessage};
use crate::user::UserId;

/// Appends a server's frame.
pub(super) fn encode(frame: &ServerFrame, out: &mut Vec<u8>) {
    match frame {
        ServerFrame::Welcome(welcome) => write_welcome(Object::of_type(out, "welcome"), welcome),
        ServerFrame::Heads(heads) => {
            let mut object = Object::of_type(out, "heads");
            object.heads("conversations", &heads.conversations);
            object.flag("recovered", heads.recovered);
            object.text("resume", &heads.resume);
            object.flag("more", heads.more);
            object.end();
        }
        ServerFrame::Ack(ack) => {
            let mut object = Object::of_type(out, "ack");
            object.text("client_msg_id", ack.client_message_id.as_str());
            object.id("conversation_id", ack.conversation.0);
            object.id("message_id", ack.message.0);
            object.number("seq", ack.seq.0);
            object.number("server_ts", ack.server_ts.0);
            object.flag("duplicate", ack.duplicate);
            object.end();
        }
        ServerFrame::Message(item) => write_message(Object::of_type(out, "message"), item),
        ServerFrame::Messages(page) => {
            let mut object = Object::of_type(out, "messages");
            object.id("conversation_id", page.conversation.0);
            object.list("messages", &page.items, write_item);
            object.flag("more", page.more);
            object.end();
        }
        ServerFrame::Conversation(item) => {
            write_change(Object::of_type(out, "conversation"), "change", item);
        }
        ServerFrame::Gap(gap) => {
            let mut object = Object::of_type(out, "gap");
            if let Some(conversation) = gap.conversation {
                object.id("conversation_id", conversation.0);
            }
            object.number_if("after_seq", gap.after_seq.map(|seq| seq.0));
            object.number_if("after_ms", gap.after_ms);
            object.end();
        }
        ServerFrame::Reconnect(reconnect) => {
            let mut object = Object::of_type(out, "reconnect");
            object.text("reason", &reconnect.reason);
            object.text_if("url", reconnect.url.as_deref());
            object.number("after_ms", reconnect.after_ms);
            object.number("within_ms", reconnect.within_ms);
            object.end();
        }
        ServerFrame::SyncDone => Object::of_type(out, "sync_done").end(),
        ServerFrame::Pong(pong) => {
            let mut object = Object::of_type(out, "pong");
            object.nonce(pong.nonce.as_ref());
            object.number("server_ts", pong.server_ts.0);
            object.text("resume", &pong.resume);
            object.end();
        }
        ServerFrame::Error(error) => write_error(Object::of_type(out, "error"), error),
    }
}

/// Appends one entry as an element of `messages`, or of an HTTP history page: the fields of `message`, or
/// those of a change with its name as `kind`.
pub fn encode_item(item: &LogItem, out: &mut Vec<u8>) {
    write_item(out, item);
}

/// Appends a client's frame.
pub(super) fn encode_client(frame: &ClientFrame, out: &mut Vec<u8>) {
    match frame {
        ClientFrame::Hello(hello) => {
            let mut object = Object::of_type(out, "hello");
            object.text_if("token", hello.token.as_deref());
            object.text_if("device_id", hello.device.as_ref().map(|device| device.as_str()));
            object.text_if("client", hello.client.as_deref());
            if hello.batch {
                object.flag("batch", true);
            }
            object.text_if("resume", hello.resume.as_deref());
            object.end();
        }
        ClientFrame::Refresh { token } => {
            let mut object = Object::of_type(out, "refresh");
            object.text("token", token);
            object.end();
        }
        ClientFrame::Send(send) => write_send(Object::of_type(out, "send"), send),
        ClientFrame::Sync(Sync { last_seen, limit }) => {
            let mut object = Object::of_type(out, "sync");
            object.heads("last_seen", last_seen);
            object.number_if("limit", limit.map(u64::from));
            object.end();
        }
        ClientFrame::Ping { nonce } => {
            let mut object = Object::of_type(out, "ping");
            object.nonce(nonce.as_ref());
            object.end();
        }
    }
}

fn write_welcome(mut object: Object<'_>, welcome: &Welcome) {
    object.text("user_id", &welcome.user_id);
    object.text("device_id", &welcome.device_id);
    object.text("session_id", &welcome.session_id);
    object.text("resume", &welcome.resume);
    object.number("server_ts", welcome.server_ts.0);
    object.number("heartbeat_ms", welcome.heartbeat_ms);
    let limits = &welcome.limits;
    let mut inner = Object::begin(object.name("limits"));
    inner.number("max_frame_bytes", limits.max_frame_bytes);
    inner.number("max_inflight", limits.max_inflight.into());
    inner.number("max_queue_bytes", limits.max_queue_bytes);
    inner.number("send_per_s", limits.send_per_s.into());
    inner.number("send_burst", limits.send_burst.into());
    inner.number("dedup_window_s", limits.dedup_window_s);
    inner.end();
    object.end();
}

fn write_item(out: &mut Vec<u8>, item: &LogItem) {
    match item {
        LogItem::Message(item) => write_message(Object::begin(out), item),
        LogItem::Change(item) => write_change(Object::begin(out), "kind", item),
    }
}

/// Appends a live message.
pub(super) fn encode_live(live: &LiveMessage<'_>, for_sender: bool, out: &mut Vec<u8>) {
    let mut object = Object::of_type(out, "message");
    object.id("conversation_id", live.conversation.0);
    object.id("message_id", live.message.0);
    object.number("seq", live.seq.0);
    object.text("from", live.from());
    object.number("server_ts", live.server_ts.0);
    object.text("kind", "message");
    match live.body {
        LiveBody::Text(text) => object.text("text", text),
        LiveBody::Ciphertext { alg, data } => {
            object.base64("ciphertext", data);
            object.text("alg", alg);
        }
    }
    if let Some(message) = live.reply_to {
        object.id("reply_to", message.0);
    }
    object.text_if("client_msg_id", live.client_message_id.filter(|_| for_sender));
    object.end();
}

fn write_message(mut object: Object<'_>, item: &MessageItem) {
    write_placement(&mut object, &item.placement);
    object.text("kind", "message");
    write_body(&mut object, &item.message);
    object.text_if("client_msg_id", item.client_message_id.as_ref().map(|id| id.as_str()));
    object.end();
}

fn write_change(mut object: Object<'_>, name_of_change: &str, item: &ChangeItem) {
    write_placement(&mut object, &item.placement);
    object.text(name_of_change, item.change.name());
    match &item.change {
        Change::Created { kind, name, members } => {
            object.text("conversation_type", kind.as_str());
            object.text("name", name);
            object.list("members", members, |out, (user, role): &(UserId, Role)| {
                let mut member = Object::begin(out);
                member.text("user_id", user.sub());
                member.text("role", role.as_str());
                member.end();
            });
        }
        Change::MemberAdded { user, role } => {
            object.text("user_id", user.sub());
            object.text("role", role.as_str());
        }
        Change::MemberRemoved { user } => object.text("user_id", user.sub()),
        Change::Renamed { name } => object.text("name", name),
        Change::Deleted => {}
    }
    object.end();
}

fn write_placement(object: &mut Object<'_>, placement: &Placement) {
    object.id("conversation_id", placement.conversation.0);
    object.id("message_id", placement.message.0);
    object.number("seq", placement.seq.0);
    object.text("from", placement.from.sub());
    object.number("server_ts", placement.server_ts.0);
}

fn write_body(object: &mut Object<'_>, message: &Message) {
    match &message.body {
        // A text was checked where it came in; were it damaged since, it is shown with replacements.
        Body::Text(text) => object.text("text", &String::from_utf8_lossy(text)),
        Body::Ciphertext { alg, data } => {
            object.base64("ciphertext", data);
            object.text("alg", alg);
        }
    }
    if !message.media_ids.is_empty() {
        object.list("media_ids", &message.media_ids, |out, media: &String| write_string(out, media));
    }
    if let Some(message) = message.reply_to {
        object.id("reply_to", message.0);
    }
}

fn write_error(mut object: Object<'_>, error: &ErrorFrame) {
    object.text("code", error.code.as_str());
    object.text("message", &error.message);
    object.text_if("client_msg_id", error.client_message_id.as_deref());
    object.number_if("retry_after_ms", error.retry_after_ms);
    object.flag("temporary", error.temporary);
    object.end();
}

fn write_send(mut object: Object<'_>, send: &Send) {
    match &send.destination {
        Destination::Conversation(conversation) => object.id("conversation_id", conversation.0),
        Destination::User(user) => object.text("to", user),
    }
    object.text("client_msg_id", send.client_message_id.as_str());
    write_body(&mut object, &send.message);
    object.end();
}

/// A JSON object being written.
struct Object<'out> {
    out: &'out mut Vec<u8>,
    is_empty: bool,
}

impl<'out> Object<'out> {
    fn begin(out: &'out mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, is_empty: true }
    }

    /// A frame: its type comes first, where a reader finds it soonest.
    fn of_type(out: &'out mut Vec<u8>, name: &str) -> Self {
        let mut object = Self::begin(out);
        object.text("type", name);
        object
    }

    fn end(self) {
        self.out.push(b'}');
    }

    /// Names are ours: letters and underscores.
    fn name(&mut self, name: &str) -> &mut Vec<u8> {
        if !self.is_empty {
            self.out.push(b',');
        }
        self.is_empty = false;
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.out
    }

    fn text(&mut self, name: &str, text: &str) {
        write_string(self.name(name), text);
    }

    fn text_if(&mut self, name: &str, text: Option<&str>) {
        if let Some(text) = text {
            self.text(name, text);
        }
    }

    fn number(&mut self, name: &str, number: u64) {
        write_number(self.name(name), number);
    }

    fn number_if(&mut self, name: &str, number: Option<u64>) {
        if let Some(number) = number {
            self.number(name, number);
        }
    }

    fn id(&mut self, name: &str, id: u64) {
        write_id(self.name(name), id);
    }

    fn flag(&mut self, name: &str, flag: bool) {
        self.name(name).extend_from_slice(if flag { b"true" } else { b"false" });
    }

    fn nonce(&mut self, nonce: Option<&Nonce>) {
        match nonce {
            None => {}
            Some(Nonce::Text(text)) => self.text("nonce", text),
            Some(Nonce::Number(number)) => self.number("nonce", *number),
        }
    }

    fn base64(&mut self, name: &str, data: &[u8]) {
        use std::io::Write as _;
        // Writing into a Vec does not fail, and base64 needs no escaping.
        let _ = write!(self.name(name), "\"{}\"", Base64Display::new(data, &STANDARD));
    }

    /// Conversation to seq.
    fn heads(&mut self, name: &str, heads: &[(ConversationId, Seq)]) {
        let out = self.name(name);
        out.push(b'{');
        for (index, (conversation, seq)) in heads.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            write_id(out, conversation.0);
            out.push(b':');
            write_number(out, seq.0);
        }
        out.push(b'}');
    }

    fn list<T>(&mut self, name: &str, items: &[T], write: impl Fn(&mut Vec<u8>, &T)) {
        let out = self.name(name);
        out.push(b'[');
        for (index, item) in items.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            write(out, item);
        }
        out.push(b']');
    }
}

fn write_string(out: &mut Vec<u8>, text: &str) {
    // Writing into a Vec does not fail.
    let _ = serde_json::to_writer(out, text);
}

fn write_number(out: &mut Vec<u8>, number: u64) {
    let _ = serde_json::to_writer(out, &number);
}

fn write_id(out: &mut Vec<u8>, id: u64) {
    out.push(b'"');
    write_number(out, id);
    out.push(b'"');
}
