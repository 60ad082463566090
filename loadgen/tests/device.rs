//! A device against a server that is a script: what it does when frames are left out, sockets die and
//! close codes come. No socket: bytes go from one end to the other by hand.

use std::ops::Range;

use ringway_loadgen::clock::SECOND;
use ringway_loadgen::device::{Context, Device, Figures, Habits};
use ringway_loadgen::history::{Event, HistoryWriter, Record, read_file};
use ringway_loadgen::logins::Login;
use ringway_protocol::client::{
    Ack, ChangeItem, ClientFrame, Destination, Encoding, ErrorCode, ErrorFrame, Gap, Heads, Limits, LogItem,
    MessageItem, Messages, Placement, ServerFrame, Sync, Welcome, decode, encode,
};
use ringway_protocol::entry::{Body, Change, Message};
use ringway_protocol::ids::{ConversationId, MessageId, Seq, Timestamp};
use ringway_protocol::user::{ClientMessageId, UserId};
use ringway_protocol::websocket::upgrade::{HeadScanner, RequestHead, UpgradeRequest};
use ringway_protocol::websocket::{self, CloseCode, FrameReader, Role};

const ROOM: ConversationId = ConversationId(7);

/// A device, the script's end of its socket, and the history it writes.
struct Stage {
    device: Device,
    context: Context,
    encoding: Encoding,
    reader: FrameReader,
    now: u64,
    writer: Option<HistoryWriter>,
    folder: tempfile::TempDir,
}

impl Stage {
    fn new(encoding: Encoding) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let writer = HistoryWriter::create(&folder.path().join("history")).unwrap();
        let login = Login { user: "u1".into(), token: "token".into() };
        Self {
            device: Device::new(login, "u1-main".into(), encoding, 0, &[ROOM]),
            context: Context {
                recorder: writer.recorder(),
                dice: fastrand::Rng::with_seed(1),
                figures: Figures::default(),
                habits: Habits { payload_bytes: 100, run: 1, ..Habits::default() },
                measured: Range { start: 0, end: u64::MAX },
                scratch: Vec::new(),
                promises: std::collections::HashMap::new(),
            },
            encoding,
            reader: FrameReader::new(Role::Server, 1 << 16),
            now: 1_000 * SECOND,
            writer: Some(writer),
            folder,
        }
    }

    /// Opens a socket, up to what the device says after the upgrade.
    fn open(&mut self, connection: u64) -> Vec<ClientFrame> {
        assert!(self.device.wants_socket(self.now));
        self.device.begin(self.now, connection);
        self.device.connected(self.now, "host:1", "/ws");
        self.reader = FrameReader::new(Role::Server, 1 << 16);
        let request = std::mem::take(&mut self.device.out);
        let end = HeadScanner::default().find_end(&request).unwrap().unwrap();
        assert_eq!(end, request.len());
        let head = RequestHead::parse(&request).unwrap();
        let upgrade = UpgradeRequest::check(&head).unwrap();
        let (_, subprotocol) = upgrade.encoding().unwrap();
        let mut answer = upgrade.accept_response(subprotocol);
        // One byte at a time: the device must not need it whole.
        for byte in &mut answer {
            assert!(self.device.received(&mut self.context, self.now, std::slice::from_mut(byte)));
        }
        self.said()
    }

    /// Opens a socket and welcomes the device.
    fn welcome(&mut self, connection: u64) -> Vec<ClientFrame> {
        let hello = self.open(connection);
        assert!(matches!(hello[..], [ClientFrame::Hello(_)]), "{hello:?}");
        self.tell(ServerFrame::Welcome(Box::new(Welcome {
            user_id: "u1".into(),
            device_id: "u1-main".into(),
            session_id: "s".into(),
            resume: format!("cursor-{connection}"),
            server_ts: Timestamp(1),
            heartbeat_ms: 30_000,
            limits: Limits {
                max_frame_bytes: 65_536,
                max_inflight: 10,
                max_queue_bytes: 262_144,
                send_per_s: 50,
                send_burst: 500,
                dedup_window_s: 86_400,
            },
        })))
    }

    /// The server says something; what the device answers.
    fn tell(&mut self, frame: ServerFrame) -> Vec<ClientFrame> {
        let mut payload = Vec::new();
        encode(self.encoding, &frame, &mut payload);
        let mut bytes = Vec::new();
        websocket::append_frame(&mut bytes, self.encoding.opcode(), &payload);
        assert!(self.device.received(&mut self.context, self.now, &mut bytes));
        self.said()
    }

    fn close(&mut self, code: CloseCode) {
        let mut bytes = Vec::new();
        websocket::append_close(&mut bytes, code, "");
        assert!(!self.device.received(&mut self.context, self.now, &mut bytes));
        self.device.ended(&mut self.context, self.now);
    }

    fn die(&mut self) {
        self.device.ended(&mut self.context, self.now);
    }

    /// Time passes, with a tick every 20 ms.
    fn pass(&mut self, nanoseconds: u64) -> Vec<ClientFrame> {
        let until = self.now + nanoseconds;
        let mut said = Vec::new();
        while self.now < until {
            self.now += SECOND / 50;
            assert!(self.device.tick(&mut self.context, self.now));
            said.extend(self.said());
        }
        said
    }

    fn said(&mut self) -> Vec<ClientFrame> {
        let mut bytes = std::mem::take(&mut self.device.out);
        let mut bytes = &mut bytes[..];
        let mut said = Vec::new();
        while let Some(event) = self.reader.next(&mut bytes).unwrap() {
            match event {
                websocket::Event::Text(text) => said.push(decode(self.encoding, text.as_bytes()).unwrap()),
                websocket::Event::Binary(bytes) => said.push(decode(self.encoding, bytes).unwrap()),
                other => assert!(matches!(other, websocket::Event::Close { .. }), "{other:?}"),
            }
        }
        said
    }

    /// The history so far, without times.
    fn history(&mut self) -> Vec<Event<'static>> {
        self.context.recorder = ringway_loadgen::history::Recorder::forgetful();
        self.writer.take().unwrap().finish().unwrap();
        let mut events = Vec::new();
        read_file(&self.folder.path().join("history"), |record| events.push(owned(&record))).unwrap();
        events
    }
}

/// A record that outlives its line.
fn owned(record: &Record<'_>) -> Event<'static> {
    let mut line = Vec::new();
    record.write(&mut line);
    Record::read(line.leak()).unwrap().event
}

fn message(seq: u64) -> MessageItem {
    MessageItem {
        placement: Placement {
            conversation: ROOM,
            seq: Seq(seq),
            message: MessageId(seq),
            server_ts: Timestamp(1),
            from: UserId::new("", "u2").unwrap(),
        },
        message: Message {
            body: Body::Text(b"hello".as_slice().into()),
            media_ids: Vec::new(),
            reply_to: None,
        },
        client_message_id: None,
    }
}

fn page(seqs: Range<u64>, more: bool) -> ServerFrame {
    let items = seqs.map(|seq| LogItem::Message(message(seq))).collect();
    ServerFrame::Messages(Messages { conversation: ROOM, items, more })
}

fn synced(frames: &[ClientFrame]) -> Vec<u64> {
    frames
        .iter()
        .filter_map(|frame| match frame {
            ClientFrame::Sync(Sync { last_seen, .. }) => last_seen.iter().find(|seen| seen.0 == ROOM),
            _ => None,
        })
        .map(|seen| seen.1.0)
        .collect()
}

fn sends(frames: &[ClientFrame]) -> Vec<String> {
    frames
        .iter()
        .filter_map(|frame| match frame {
            ClientFrame::Send(send) => Some(send),
            _ => None,
        })
        .map(|send| {
            assert_eq!(send.destination, Destination::Conversation(ROOM));
            send.client_message_id.as_str().to_owned()
        })
        .collect()
}

fn heads(last: u64) -> ServerFrame {
    let conversations = if last > 0 { vec![(ROOM, Seq(last))] } else { Vec::new() };
    ServerFrame::Heads(Heads { conversations, recovered: true, resume: "later".into(), more: false })
}

fn has(stage: &Stage, last: u64) -> bool {
    stage.device.has_everything(&|_| last)
}

#[test]
fn a_first_socket_syncs_everything_in_both_encodings() {
    for encoding in Encoding::ALL {
        let mut stage = Stage::new(encoding);
        assert_eq!(synced(&stage.welcome(1)), [0]);
        stage.tell(page(1..4, false));
        assert!(!has(&stage, 3), "the sync is not done");
        stage.tell(ServerFrame::SyncDone);
        assert!(has(&stage, 3));
        stage.tell(ServerFrame::Message(message(4)));
        assert!(has(&stage, 4) && !has(&stage, 5));
    }
}

#[test]
fn a_sync_that_ends_early_is_asked_for_again() {
    let mut stage = Stage::new(Encoding::Json);
    stage.welcome(1);
    stage.tell(page(1..4, true));
    assert_eq!(synced(&stage.tell(ServerFrame::SyncDone)), [3]);
    stage.tell(page(4..6, false));
    stage.tell(ServerFrame::SyncDone);
    assert!(has(&stage, 5));
}

#[test]
fn a_gap_before_the_own_removal_is_synced_too() {
    let mut stage = Stage::new(Encoding::Json);
    stage.welcome(1);
    stage.tell(page(1..3, false));
    let gap = Gap { conversation: Some(ROOM), after_seq: Some(Seq(2)), after_ms: None };
    stage.tell(ServerFrame::Gap(gap));
    let user = UserId::new("", "u1").unwrap();
    let placement = message(4).placement;
    let removal = ChangeItem { placement, change: Change::MemberRemoved { user } };
    stage.tell(ServerFrame::Conversation(removal));
    assert_eq!(synced(&stage.tell(ServerFrame::SyncDone)), [2]);
}

#[test]
fn a_gap_is_synced_at_once_and_a_hole_after_some_patience() {
    let mut stage = Stage::new(Encoding::Protobuf);
    stage.welcome(1);
    stage.tell(ServerFrame::SyncDone);
    stage.tell(ServerFrame::Message(message(1)));
    let gap = Gap { conversation: Some(ROOM), after_seq: Some(Seq(1)), after_ms: None };
    assert_eq!(synced(&stage.tell(ServerFrame::Gap(gap))), [1]);
    stage.tell(page(2..4, false));
    stage.tell(ServerFrame::SyncDone);
    // Nothing announces this hole.
    assert_eq!(synced(&stage.tell(ServerFrame::Message(message(5)))), [0u64; 0]);
    assert_eq!(synced(&stage.pass(2 * SECOND)), [3]);
    stage.tell(page(4..6, false));
    stage.tell(ServerFrame::SyncDone);
    assert!(has(&stage, 5));
}

#[test]
fn a_gap_without_a_conversation_says_hello_again_on_the_same_socket() {
    let mut stage = Stage::new(Encoding::Json);
    stage.welcome(1);
    stage.tell(ServerFrame::SyncDone);
    let gap = Gap { conversation: None, after_seq: None, after_ms: Some(500) };
    assert!(stage.tell(ServerFrame::Gap(gap)).is_empty());
    assert!(!has(&stage, 0));
    let said = stage.pass(SECOND);
    let [ClientFrame::Hello(hello)] = &said[..] else { panic!("{said:?}") };
    assert_eq!(hello.resume.as_deref(), Some("cursor-1"));
}

#[test]
fn a_sync_that_a_socket_took_along_is_asked_for_on_the_next() {
    let mut stage = Stage::new(Encoding::Json);
    stage.welcome(1);
    stage.tell(ServerFrame::SyncDone);
    stage.die();
    stage.now += 2 * SECOND;
    stage.welcome(2);
    assert_eq!(synced(&stage.tell(heads(9))), [0]);
    stage.die();
    stage.now += 4 * SECOND;
    stage.welcome(3);
    // The cursor has moved on, and heads has nothing new to tell.
    assert_eq!(synced(&stage.tell(heads(0))), [0]);
}

#[test]
fn a_send_is_repeated_under_its_id_until_it_is_acked() {
    let mut stage = Stage::new(Encoding::Protobuf);
    stage.welcome(1);
    stage.tell(ServerFrame::SyncDone);
    stage.device.send(&mut stage.context, stage.now, stage.now);
    let first = sends(&stage.said());
    assert_eq!(first.len(), 1);
    // The socket dies before the answer.
    stage.die();
    assert_eq!(stage.device.open_sends(), 1);
    stage.now += 2 * SECOND;
    assert_eq!(sends(&stage.welcome(2)), first);
    // The server does not know whether it is stored.
    let error = ErrorFrame {
        client_message_id: Some(first[0].clone()),
        ..ErrorFrame::new(ErrorCode::Unavailable, "try again")
    };
    stage.tell(ServerFrame::Error(error));
    stage.tell(heads(0));
    stage.tell(ServerFrame::SyncDone);
    assert_eq!(sends(&stage.pass(SECOND)), first);
    let ack = Ack {
        client_message_id: ClientMessageId::new(&first[0]).unwrap(),
        conversation: ROOM,
        message: MessageId(5),
        seq: Seq(1),
        server_ts: Timestamp(1),
        duplicate: true,
    };
    stage.tell(ServerFrame::Ack(ack));
    assert_eq!(stage.device.open_sends(), 0);
    let history = stage.history();
    let steps: Vec<&str> = history
        .iter()
        .filter_map(|event| match event {
            Event::SendInvoked(_) => Some("inv"),
            Event::SendUnknown(_) => Some("info"),
            Event::SendAcknowledged { .. } => Some("ok"),
            _ => None,
        })
        .collect();
    assert_eq!(steps, ["inv", "info", "inv", "info", "inv", "ok"]);
}

#[test]
fn a_send_without_an_answer_is_unknown_before_ten_seconds() {
    let mut stage = Stage::new(Encoding::Json);
    stage.welcome(1);
    stage.tell(ServerFrame::SyncDone);
    stage.device.send(&mut stage.context, stage.now, stage.now);
    let begin = stage.now;
    let first = sends(&stage.said());
    while stage.context.figures.counts.unknown == 0 {
        stage.pass(SECOND / 50);
    }
    assert!(stage.now - begin < 10 * SECOND);
    assert_eq!(sends(&stage.pass(2 * SECOND)), first);
}

#[test]
fn a_close_code_says_by_its_hundred_what_to_do() {
    for (code, gone, latest) in [
        (CloseCode::UNAUTHORIZED, true, 0),
        (CloseCode::OVERLOADED, false, SECOND),
        (CloseCode::DRAIN, false, SECOND / 10),
    ] {
        let mut stage = Stage::new(Encoding::Json);
        stage.welcome(1);
        stage.close(code);
        assert_eq!(stage.device.is_gone(), gone, "{code:?}");
        if !gone {
            let now = stage.now;
            assert!(stage.device.wants_socket(now + latest), "{code:?}");
        }
        let closed = stage
            .history()
            .into_iter()
            .any(|event| matches!(event, Event::Closed { code: recorded, .. } if recorded == code.0));
        assert!(closed, "{code:?}");
    }
}

#[test]
fn a_window_is_kept_and_the_rest_follows() {
    let mut stage = Stage::new(Encoding::Protobuf);
    stage.welcome(1);
    stage.tell(ServerFrame::SyncDone);
    for _ in 0..20 {
        stage.device.send(&mut stage.context, stage.now, stage.now);
    }
    let first = sends(&stage.said());
    assert_eq!(first.len(), 8, "the server's window is 10");
    let mut rest = Vec::new();
    for (number, id) in first.iter().enumerate() {
        let ack = Ack {
            client_message_id: ClientMessageId::new(id).unwrap(),
            conversation: ROOM,
            message: MessageId(number as u64 + 1),
            seq: Seq(number as u64 + 1),
            server_ts: Timestamp(1),
            duplicate: false,
        };
        rest.extend(sends(&stage.tell(ServerFrame::Ack(ack))));
    }
    assert_eq!(rest.len(), 8, "each ack lets one out");
    assert_eq!(sends(&stage.pass(SECOND / 10)).len(), 0);
}

#[test]
fn strangers_bytes_end_the_socket_and_nothing_else() {
    let mut stage = Stage::new(Encoding::Json);
    stage.welcome(1);
    let mut bytes = vec![0xff; 64];
    assert!(!stage.device.received(&mut stage.context, stage.now, &mut bytes));
    assert_eq!(stage.context.figures.counts.unreadable, 1);
}
