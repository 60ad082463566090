//! Pairs that talk: the even connection of a pair sends to the odd one, which only listens.
//!
//! The number of a message is its `client_msg_id` and the front of its body, so that an ack and a delivery tell which
//! message they are of. The first message of a pair names the receiver and makes the conversation; all later ones name
//! the conversation, as a client does that was told it by its first ack.

use std::time::{Duration, Instant};

use bytes::Bytes;
use ringway_protocol::client::{ClientFrame, Destination, Encoding, Send, ServerFrame};
use ringway_protocol::entry::{Body, Message};
use ringway_protocol::ids::ConversationId;
use ringway_protocol::user::ClientMessageId;
use rustix::event::{Timespec, epoll};
use rustix::fd::OwnedFd;

use crate::connection::{Connection, config};
use crate::meter::{Meter, percentiles};

const BODY_BYTES: usize = 128;
/// Readable sockets that a closed loop waits for, and how long, and how often it looks.
const TOGETHER: usize = 64;
const TOGETHER_WAIT: Duration = Duration::from_millis(1);
const TOGETHER_PAUSE: Duration = Duration::from_micros(50);
/// Nothing comes for so long: something is lost.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest wait of an open loop for an answer, between two messages that are due.
const LOOK: Duration = Duration::from_micros(200);

pub(crate) struct Load {
    connections: Vec<Connection>,
    users: Vec<String>,
    /// By pair, once its first message was acked.
    conversations: Vec<Option<ConversationId>>,
    poll: OwnedFd,
    ready: Vec<epoll::Event>,
    buffer: Vec<u8>,
    next: u64,
    acked: u64,
    delivered: u64,
}

/// What came on a connection.
enum Came {
    Ack(u64),
    Delivery(u64),
}

impl Load {
    /// Opens two connections a pair and makes the conversations.
    pub(crate) fn open(port: u16, tokens: &str, encoding: Encoding, pairs: usize) -> Self {
        let config = config();
        let text = std::fs::read_to_string(tokens).expect("a file of tokens");
        let logins = text.lines().filter_map(|line| line.split_once(' ')).take(2 * pairs);
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC).expect("an epoll");
        let (mut connections, mut users) = (Vec::new(), Vec::new());
        for (index, (user, token)) in logins.enumerate() {
            let connection = Connection::open(port, &config, encoding, token);
            let data = epoll::EventData::new_u64(index as u64);
            epoll::add(&poll, &connection.socket, data, epoll::EventFlags::IN).expect("a place");
            connections.push(connection);
            users.push(user.to_owned());
        }
        assert_eq!(connections.len(), 2 * pairs, "too few tokens");
        let mut load = Self {
            connections,
            users,
            conversations: vec![None; pairs],
            poll,
            ready: Vec::with_capacity(2 * pairs),
            buffer: vec![0; 256 * 1024],
            next: 0,
            acked: 0,
            delivered: 0,
        };
        for pair in 0..pairs {
            load.send(pair);
        }
        load.settle(pairs as u64);
        load
    }

    /// A window of sends a pair without their ack, until so many messages came.
    pub(crate) fn run_closed(&mut self, pid: u32, window: u64, messages: u64) {
        let first = self.next;
        for pair in 0..self.conversations.len() {
            (0..window).for_each(|_| self.queue(pair));
            self.flush(pair);
        }
        let mut due: Vec<u64> = vec![0; self.conversations.len()];
        let mut running: Option<(Meter, u64)> = None;
        let (warm, mut last) = (first + messages / 5, Instant::now());
        loop {
            self.wait_for_many();
            let mut some = false;
            self.receive_all(|load, connection, came| {
                some = true;
                match came {
                    Came::Ack(_) => due[connection / 2] += 1,
                    Came::Delivery(_) => load.delivered += 1,
                }
            });
            for (pair, due) in due.iter_mut().enumerate().filter(|(_, due)| **due > 0) {
                (0..std::mem::take(due)).for_each(|_| self.queue(pair));
                self.flush(pair);
            }
            match &running {
                None if self.delivered >= warm => running = Some((Meter::start(pid), self.delivered)),
                Some((meter, from)) if self.delivered >= from + messages => {
                    println!("{{{}}}", meter.figures(self.delivered - from));
                    return;
                }
                _ => {}
            }
            if some {
                last = Instant::now();
            }
            assert!(
                last.elapsed() < PATIENCE,
                "{} delivered of {}: nothing comes",
                self.delivered,
                self.next
            );
        }
    }

    /// So many messages a second on a fixed schedule, pair by pair, after a tenth of the time that is not counted.
    pub(crate) fn run_open(&mut self, pid: u32, rate: u64, seconds: u64) {
        let (first, warm, all) = (self.next, rate * seconds / 10, rate * seconds + rate * seconds / 10);
        let interval = 1_000_000_000.0 / rate as f64;
        let began = Instant::now();
        let intended =
            |number: u64| began + Duration::from_nanos(((number - first) as f64 * interval) as u64);
        let (mut acks, mut deliveries) = (Vec::new(), Vec::new());
        let (mut meter, mut late, mut last) = (None, 0u64, Instant::now());
        let pairs = self.conversations.len();
        while ((acks.len() + deliveries.len()) as u64) < 2 * (all - warm) {
            let now = Instant::now();
            while self.next < first + all && intended(self.next) <= now {
                // Behind its own schedule by a millisecond, the client and not the server would be measured.
                late += u64::from(now.duration_since(intended(self.next)) > Duration::from_millis(1));
                let pair = ((self.next - first) % pairs as u64) as usize;
                self.send(pair);
                if self.next - first == warm {
                    meter = Some(Meter::start(pid));
                }
            }
            let due = if self.next < first + all { intended(self.next) } else { now + LOOK };
            self.wait(due.saturating_duration_since(Instant::now()).min(LOOK));
            let now = Instant::now();
            self.receive_all(|_, _, came| {
                last = now;
                let (Came::Ack(number) | Came::Delivery(number)) = came;
                if number >= first + warm {
                    let took = now.duration_since(intended(number)).as_micros() as u64;
                    if let Came::Ack(_) = came { acks.push(took) } else { deliveries.push(took) }
                }
            });
            assert!(last.elapsed() < PATIENCE, "{} acks of {}: nothing comes", acks.len(), all - warm);
        }
        println!(
            "{{\"rate\":{rate},{},\"late_starts\":{late},{},{}}}",
            meter.expect("it began").figures(all - warm),
            percentiles("ack", &mut acks),
            percentiles("delivery", &mut deliveries)
        );
    }

    /// Waits until so many more messages were acked and delivered.
    fn settle(&mut self, messages: u64) {
        let (goal, until) = (messages, Instant::now() + PATIENCE);
        while self.acked < goal || self.delivered < goal {
            assert!(Instant::now() < until, "{} of {goal} acked, {} delivered", self.acked, self.delivered);
            self.wait(LOOK);
            self.receive_all(|load, _, came| match came {
                Came::Ack(_) => load.acked += 1,
                Came::Delivery(_) => load.delivered += 1,
            });
        }
    }

    fn send(&mut self, pair: usize) {
        self.queue(pair);
        self.flush(pair);
    }

    fn flush(&mut self, pair: usize) {
        // A sender has at most a window on its way: it fits the socket's buffer.
        assert!(self.connections[2 * pair].flush(), "the server does not read");
    }

    fn queue(&mut self, pair: usize) {
        let number = self.next;
        self.next += 1;
        let text = format!("{number}|{:x<BODY_BYTES$}", "");
        let text = Bytes::copy_from_slice(&text.as_bytes()[..BODY_BYTES]);
        let destination = match self.conversations[pair] {
            Some(conversation) => Destination::Conversation(conversation),
            None => Destination::User(self.users[2 * pair + 1].clone()),
        };
        let send = Send {
            destination,
            client_message_id: ClientMessageId::new(&number.to_string()).expect("a short name"),
            message: Message { body: Body::Text(text), media_ids: Vec::new(), reply_to: None },
        };
        self.connections[2 * pair].queue(&ClientFrame::Send(send));
    }

    /// Waits for one readable socket.
    fn wait(&mut self, at_most: Duration) {
        self.ready.clear();
        let timeout = Timespec { tv_sec: 0, tv_nsec: at_most.as_nanos() as _ };
        let ready = rustix::buffer::spare_capacity(&mut self.ready);
        match epoll::wait(&self.poll, ready, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => panic!("epoll_wait: {error}"),
        }
    }

    /// Waits for many.
    fn wait_for_many(&mut self) {
        let until = Instant::now() + TOGETHER_WAIT;
        loop {
            self.wait(Duration::ZERO);
            if self.ready.len() >= TOGETHER || Instant::now() >= until {
                return;
            }
            std::thread::sleep(TOGETHER_PAUSE);
        }
    }

    /// Reads each readable socket once.
    fn receive_all(&mut self, mut handle: impl FnMut(&mut Self, usize, Came)) {
        let (ready, mut buffer) = (std::mem::take(&mut self.ready), std::mem::take(&mut self.buffer));
        let mut came = Vec::new();
        for event in &ready {
            let index = event.data.u64() as usize;
            self.connections[index].receive(&mut buffer, |frame| match frame {
                ServerFrame::Ack(ack) => {
                    assert!(index.is_multiple_of(2) && !ack.duplicate);
                    let number = ack.client_message_id.as_str().parse().expect("a number of ours");
                    self.conversations[index / 2] = Some(ack.conversation);
                    came.push(Came::Ack(number));
                }
                ServerFrame::Message(item) => {
                    let Body::Text(text) = &item.message.body else { panic!("a body of ours is text") };
                    assert!(!index.is_multiple_of(2) && text.len() == BODY_BYTES);
                    let digits = text.split(|byte| *byte == b'|').next().unwrap_or_default();
                    let number = std::str::from_utf8(digits).ok().and_then(|text| text.parse().ok());
                    came.push(Came::Delivery(number.expect("a number of ours")));
                }
                // The first message of a pair makes its conversation.
                ServerFrame::Conversation(_) => {}
                other => panic!("{other:?}"),
            });
            came.drain(..).for_each(|came| handle(self, index, came));
        }
        (self.ready, self.buffer) = (ready, buffer);
    }
}
