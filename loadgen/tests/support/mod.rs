//! A tiny chat server for tests of the generator: one thread a connection, all in memory, and with a fault
//! that is planted, so that what the generator must find is known.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use ringway_protocol::client::{
    Ack, ClientFrame, Destination, Encoding, Limits, MessageItem, Placement, Pong, ServerFrame, Welcome,
    decode, encode,
};
use ringway_protocol::ids::{ConversationId, MessageId, Seq, Timestamp};
use ringway_protocol::user::UserId;
use ringway_protocol::websocket::upgrade::{HeadScanner, RequestHead, UpgradeRequest};
use ringway_protocol::websocket::{Event, FrameReader, Role, append_close, append_frame};

/// What the server does wrong.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Fault {
    /// Stands still for so long, once in so long.
    pub(crate) pause: Option<(Duration, Duration)>,
    /// Of its deliveries, it forgets one in so many.
    pub(crate) forgets_one_in: Option<u64>,
}

/// A running server; its threads end with the test.
pub(crate) struct TinyServer {
    /// Where it is.
    pub(crate) address: SocketAddr,
    ended: Arc<AtomicBool>,
}

#[derive(Default)]
struct State {
    conversations: HashMap<ConversationId, (Vec<String>, u64)>,
    /// The write side of each user's socket, and what it speaks.
    sockets: HashMap<String, (TcpStream, Encoding)>,
    messages: u64,
    deliveries: u64,
}

#[derive(Clone)]
struct Shared {
    state: Arc<Mutex<State>>,
    fault: Fault,
}

impl TinyServer {
    /// Starts one. A user's token is the user's name.
    pub(crate) fn start(fault: Fault) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Shared { state: Arc::default(), fault };
        let ended = Arc::new(AtomicBool::new(false));
        if let Some((length, every)) = fault.pause {
            let (state, ended) = (Arc::clone(&shared.state), Arc::clone(&ended));
            std::thread::spawn(move || {
                while !ended.load(Ordering::Relaxed) {
                    std::thread::sleep(every - length);
                    let still = lock(&state);
                    std::thread::sleep(length);
                    drop(still);
                }
            });
        }
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = shared.clone();
                std::thread::spawn(move || shared.serve(stream));
            }
        });
        Self { address, ended }
    }

    /// The URL of its socket.
    pub(crate) fn url(&self) -> String {
        format!("ws://{}/ws", self.address)
    }
}

impl Drop for TinyServer {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap()
}

impl Shared {
    fn serve(&self, mut stream: TcpStream) -> Option<()> {
        stream.set_nodelay(true).ok()?;
        let mut received = Vec::new();
        let mut buffer = [0; 16 * 1024];
        loop {
            let end = loop {
                if let Some(end) = HeadScanner::default().find_end(&received).ok()? {
                    break end;
                }
                let count = stream.read(&mut buffer).ok().filter(|count| *count > 0)?;
                received.extend_from_slice(&buffer[..count]);
            };
            let head: Vec<u8> = received.drain(..end).collect();
            let parsed = RequestHead::parse(&head).ok()?;
            let bearer = parsed
                .values("authorization")
                .next()
                .map(|value| String::from_utf8_lossy(value).trim_start_matches("Bearer ").to_owned());
            if let Ok(upgrade) = UpgradeRequest::check(&parsed) {
                let (encoding, subprotocol) = upgrade.encoding().ok()?;
                stream.write_all(&upgrade.accept_response(subprotocol)).ok()?;
                return self.talk(stream, bearer, encoding);
            }
            let length: usize = parsed
                .values("content-length")
                .next()
                .and_then(|value| String::from_utf8_lossy(value).trim().parse().ok())
                .unwrap_or(0);
            while received.len() < length {
                let count = stream.read(&mut buffer).ok().filter(|count| *count > 0)?;
                received.extend_from_slice(&buffer[..count]);
            }
            let body: Vec<u8> = received.drain(..length).collect();
            let answer = self.create(&bearer?, &body)?;
            let head = format!("HTTP/1.1 201 Created\r\nContent-Length: {}\r\n\r\n", answer.len());
            stream.write_all((head + &answer).as_bytes()).ok()?;
        }
    }

    fn create(&self, owner: &str, body: &[u8]) -> Option<String> {
        let body: serde_json::Value = serde_json::from_slice(body).ok()?;
        let mut members = vec![owner.to_owned()];
        let others = body["member_ids"].as_array()?;
        members.extend(others.iter().filter_map(|member| member.as_str().map(str::to_owned)));
        let mut state = lock(&self.state);
        let id = ConversationId(state.conversations.len() as u64 + 1);
        state.conversations.insert(id, (members, 0));
        Some(format!(r#"{{"conversation_id":"{id}"}}"#))
    }

    fn talk(&self, mut stream: TcpStream, bearer: Option<String>, encoding: Encoding) -> Option<()> {
        let mut user = bearer;
        let mut reader = FrameReader::new(Role::Server, 1 << 16);
        let mut buffer = [0; 16 * 1024];
        loop {
            let count = stream.read(&mut buffer).ok().filter(|count| *count > 0)?;
            let mut bytes = &mut buffer[..count];
            while let Some(event) = reader.next(&mut bytes).ok()? {
                let frame = match event {
                    Event::Text(text) => decode(encoding, text.as_bytes()).ok()?,
                    Event::Binary(bytes) => decode(encoding, bytes).ok()?,
                    Event::Close { code, .. } => {
                        let mut out = Vec::new();
                        append_close(&mut out, code.unwrap(), "");
                        stream.write_all(&out).ok()?;
                        return None;
                    }
                    Event::Ping(_) | Event::Pong(_) => continue,
                };
                if let ClientFrame::Hello(hello) = &frame {
                    user = user.or_else(|| hello.token.clone());
                    let name = user.clone()?;
                    let its = stream.try_clone().ok()?;
                    lock(&self.state).sockets.insert(name, (its, encoding));
                }
                self.answer(user.as_deref()?, frame)?;
            }
        }
    }

    fn answer(&self, user: &str, frame: ClientFrame) -> Option<()> {
        let mut state = lock(&self.state);
        let frames = match frame {
            ClientFrame::Hello(hello) => {
                let mut frames = vec![welcome(user)];
                if hello.resume.is_some() {
                    frames.push(ServerFrame::Heads(ringway_protocol::client::Heads {
                        conversations: Vec::new(),
                        recovered: true,
                        more: false,
                        resume: "r".into(),
                    }));
                }
                frames
            }
            ClientFrame::Sync(_) => vec![ServerFrame::SyncDone],
            ClientFrame::Ping { nonce } => {
                vec![ServerFrame::Pong(Pong { nonce, server_ts: Timestamp(1), resume: "r".into() })]
            }
            ClientFrame::Send(send) => {
                let Destination::Conversation(conversation) = send.destination else { return None };
                state.messages += 1;
                let message = MessageId(state.messages);
                let (members, last) = state.conversations.get_mut(&conversation)?;
                *last += 1;
                let seq = Seq(*last);
                let members = members.clone();
                let placement = Placement {
                    conversation,
                    seq,
                    message,
                    server_ts: Timestamp(1),
                    from: UserId::new("", user).unwrap(),
                };
                let item = MessageItem { placement, message: send.message, client_message_id: None };
                for member in members.iter().filter(|member| *member != user) {
                    state.deliveries += 1;
                    let deliveries = state.deliveries;
                    if !self.fault.forgets_one_in.is_some_and(|many| deliveries.is_multiple_of(many)) {
                        tell(&mut state, member, &ServerFrame::Message(item.clone()));
                    }
                }
                let client_message_id = send.client_message_id;
                let (server_ts, duplicate) = (Timestamp(1), false);
                vec![ServerFrame::Ack(Ack {
                    client_message_id,
                    conversation,
                    message,
                    seq,
                    server_ts,
                    duplicate,
                })]
            }
            _ => Vec::new(),
        };
        frames.iter().for_each(|frame| tell(&mut state, user, frame));
        Some(())
    }
}

fn tell(state: &mut State, user: &str, frame: &ServerFrame) {
    let Some((stream, encoding)) = state.sockets.get_mut(user) else { return };
    let mut payload = Vec::new();
    encode(*encoding, frame, &mut payload);
    let mut bytes = Vec::new();
    append_frame(&mut bytes, encoding.opcode(), &payload);
    // A socket that is gone is no fault of this server.
    let _ = stream.write_all(&bytes);
}

fn welcome(user: &str) -> ServerFrame {
    ServerFrame::Welcome(Box::new(Welcome {
        user_id: user.into(),
        device_id: "d".into(),
        session_id: "s".into(),
        resume: "r".into(),
        server_ts: Timestamp(1),
        heartbeat_ms: 30_000,
        limits: Limits {
            max_frame_bytes: 65_536,
            max_inflight: 256,
            max_queue_bytes: 262_144,
            send_per_s: 1_000,
            send_burst: 10_000,
            dedup_window_s: 86_400,
        },
    }))
}
