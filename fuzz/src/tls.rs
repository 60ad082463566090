//! The TLS record layer, with rustls at the other end and with a peer that says anything.
//!
//! rustls shakes hands anew for each input, by the same in-memory pair that the tests of `protocol` use. An
//! input is a list of acts, one byte or two each, and is cut off where it would make a test of patience.

#[allow(dead_code, unreachable_pub, reason = "the helpers of a test binary")]
#[path = "../../protocol/tests/tls/pair.rs"]
mod pair;

use std::io::Write;

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf;
use ringway_protocol::byte_cursor::ByteCursor;
use ringway_protocol::tls::{Direction, RecordLayer, Role, Suite, limits};

use pair::{Pair, SUITES, open_all, read, written};

/// Acts of one input. A handshake takes as long as a hundred of them.
const ACTS_MAX: usize = 200;

/// Changes of keys in one input: either end gives up at 33 in a row without data.
const REFRESHES_MAX: usize = 15;

/// By any schedule of sends, splits, key updates, moves and closes, each end hears what the other said.
pub fn tls_records(data: &[u8]) {
    let [setup, acts @ ..] = data else { return };
    let role = if setup & 1 == 0 { Role::Server } else { Role::Client };
    let suite = SUITES[usize::from(setup >> 1) % 3];
    let tickets = usize::from(setup >> 4 & 3);
    let piece = if setup >> 6 == 0 { 1 } else { 1 << (2 * (setup >> 6)) };
    let mut talk = Talk {
        pair: Pair::with_pieces(role, suite, tickets, piece, b"early"),
        to_us: Vec::new(),
        to_them: Vec::new(),
        we_said: Vec::new(),
        they_heard: Vec::new(),
        they_said: Vec::new(),
        we_heard: Vec::new(),
        refreshes: 0,
        they_closed: false,
    };
    for act in acts.chunks(2).take(ACTS_MAX) {
        talk.act(act[0], act.get(1).copied().unwrap_or(1));
    }
    talk.end();
}

struct Talk {
    pair: Pair,
    /// On their way.
    to_us: Vec<u8>,
    to_them: Vec<u8>,
    we_said: Vec<u8>,
    they_heard: Vec<u8>,
    they_said: Vec<u8>,
    we_heard: Vec<u8>,
    refreshes: usize,
    they_closed: bool,
}

impl Talk {
    fn act(&mut self, kind: u8, size: u8) {
        let count = usize::from(kind >> 4 & 7) * 2_500 + usize::from(size);
        match kind % 11 {
            0 if !self.pair.ours.is_closed() => self.we_say(count, usize::MAX),
            1 if !self.pair.ours.is_closed() => self.we_say(count, usize::from(size)),
            2 if !self.they_closed => {
                let speech = vec![size; count];
                self.pair.theirs.writer().write_all(&speech).expect("it takes all");
                self.they_said.extend(speech);
                self.to_us.extend(written(&mut self.pair.theirs));
            }
            3 if self.refreshes < REFRESHES_MAX => {
                self.refreshes += 1;
                self.pair.ours.refresh_keys(size & 1 == 0);
            }
            4 if self.refreshes < REFRESHES_MAX && !self.they_closed => {
                self.refreshes += 1;
                self.pair.theirs.refresh_traffic_keys().expect("the handshake is done");
                self.to_us.extend(written(&mut self.pair.theirs));
            }
            5 => self.we_hear(count),
            6 => self.they_hear(count),
            7 => {
                let mut out = Vec::new();
                self.pair.ours.take_outgoing(&mut out, usize::from(size)).expect("a new key");
                assert!(out.len() <= usize::from(size));
                self.to_them.extend(out);
            }
            8 => self.move_ours(),
            9 if size > 250 => self.pair.ours.close(),
            10 if size > 250 => {
                self.they_closed = true;
                self.pair.theirs.send_close_notify();
                self.to_us.extend(written(&mut self.pair.theirs));
            }
            _ => {}
        }
    }

    fn we_say(&mut self, count: usize, capacity: usize) {
        let start = self.to_them.len();
        let (mut left, word) = (count, count as u8);
        let sealed = self.pair.ours.seal_from(&mut self.to_them, capacity, |out, room| {
            let taken = room.min(left);
            out.resize(out.len() + taken, word);
            left -= taken;
        });
        sealed.expect("it is open, and its key new");
        assert!(self.to_them.len() - start <= capacity);
        self.we_said.resize(self.we_said.len() + count - left, word);
    }

    fn we_hear(&mut self, count: usize) {
        let arrival: Vec<u8> = self.to_us.drain(..count.min(self.to_us.len())).collect();
        self.we_heard.extend(open_all(&mut self.pair.ours, &arrival).expect("rustls keeps the rules"));
        assert!(self.pair.ours.heap_bytes() <= limits::RECORD_BYTES_MAX);
    }

    fn they_hear(&mut self, count: usize) {
        let arrival: Vec<u8> = self.to_them.drain(..count.min(self.to_them.len())).collect();
        self.they_heard.extend(read(&mut self.pair.theirs, &arrival).expect("we keep the rules"));
        self.to_us.extend(written(&mut self.pair.theirs));
    }

    /// To another core and back.
    fn move_ours(&mut self) {
        let secret = [0; 32];
        let nobody = Direction { secret: &secret, sequence: 0 };
        let stand_in = RecordLayer::new(Role::Server, Suite::Aes128GcmSha256, nobody, nobody);
        let ours = std::mem::replace(&mut self.pair.ours, stand_in.expect("the length is right"));
        let (mut frozen, most) = (Vec::new(), ours.frozen_bytes_max());
        ours.freeze(&mut frozen);
        assert!(frozen.len() <= most);
        self.pair.ours = RecordLayer::thaw(&mut ByteCursor::new(&frozen)).expect("what was frozen thaws");
        let again = RecordLayer::thaw(&mut ByteCursor::new(&frozen)).expect("what was frozen thaws");
        let mut frozen_again = Vec::new();
        again.freeze(&mut frozen_again);
        assert_eq!(frozen, frozen_again);
    }

    /// All arrives, and is what was said.
    fn end(mut self) {
        for _ in 0..3 {
            self.pair.ours.take_outgoing(&mut self.to_them, usize::MAX).expect("a new key");
            self.they_hear(usize::MAX);
            self.we_hear(usize::MAX);
        }
        assert_eq!(self.they_said, self.we_heard);
        assert_eq!(self.we_said, self.they_heard);
        assert_eq!(self.pair.ours.peer_has_closed(), self.they_closed);
        assert!(!self.pair.ours.has_outgoing());
    }
}

/// A peer that has the keys and seals anything: the same at any two splittings. And any bytes as a frozen
/// record layer: what thaws goes on without a panic.
pub fn tls_peer(data: &[u8]) {
    let [role, one, other, says @ ..] = data else { return };
    let role = if role & 1 == 0 { Role::Server } else { Role::Client };
    let stream = seal_anything(says);
    let whole = heard(role, &stream, usize::MAX);
    assert_eq!(heard(role, &stream, usize::from(*one) + 1), whole);
    assert_eq!(heard(role, &stream, usize::from(*other) % 7 + 1), whole);

    if let Ok(mut layer) = RecordLayer::thaw(&mut ByteCursor::new(says)) {
        let _ = open_all(&mut layer, says);
        let _ = layer.seal(says, &mut Vec::new());
        let _ = layer.take_outgoing(&mut Vec::new(), 64);
    }
}

const SECRET: [u8; 32] = [7; 32];

/// What a server or client makes of a stream that arrives in pieces of this length.
fn heard(role: Role, stream: &[u8], piece: usize) -> (Vec<u8>, String, Vec<u8>) {
    let end = Direction { secret: &SECRET, sequence: 0 };
    let layer = RecordLayer::new(role, Suite::Aes128GcmSha256, end, end);
    let mut layer = layer.expect("the length is right");
    let (mut said, mut outcome) = (Vec::new(), Ok(()));
    for arrival in stream.chunks(piece.min(stream.len().max(1))) {
        let mut arrival = arrival.to_vec();
        let opened = layer.open(&mut arrival);
        said.extend(opened.gathered);
        said.extend_from_slice(&arrival[opened.in_place]);
        outcome = opened.outcome;
        if outcome.is_err() {
            break;
        }
    }
    // How it ends for the peer, too: what is due is sealed the same way.
    let mut out = Vec::new();
    layer.take_outgoing(&mut out, 64).expect("a new key");
    (said, format!("{outcome:?} {:?}", layer.peer_has_closed()), out)
}

/// One record for each piece of the input: a type, a length in 1 byte with 64 times its value, and what it
/// holds as far as there is something. A type of 255 changes to the next key without saying so.
fn seal_anything(mut says: &[u8]) -> Vec<u8> {
    let (mut stream, mut secret, mut sequence) = (Vec::new(), SECRET, 0u64);
    while let &[kind, len, ref rest @ ..] = says {
        let len = usize::from(len);
        // Long ones are made of one byte.
        let (content, rest) = rest.split_at(len.min(rest.len()));
        says = rest;
        let mut inner = content.to_vec();
        if kind & 0x40 != 0 {
            inner.resize(len * 70, 0x20);
        }
        match kind & 0x3f {
            0..=23 => inner.push(kind & 0x3f),
            24 => {
                secret = expand(&secret, "traffic upd");
                sequence = 0;
                continue;
            }
            25 => inner.extend_from_slice(&[23, 0, 0]),
            26 => inner = [24, 0, 0, 1, len as u8 & 1, 22].to_vec(),
            27 => inner = [21, 0, 21].to_vec(),
            _ => inner.push(22),
        }
        let key: [u8; 16] = expand(&secret, "key");
        let iv: [u8; NONCE_LEN] = expand(&secret, "iv");
        let mut nonce = iv;
        for (byte, count) in nonce[4..].iter_mut().zip(sequence.to_be_bytes()) {
            *byte ^= count;
        }
        sequence += 1;
        let [high, low] = ((inner.len() + 16) as u16).to_be_bytes();
        let header = [23, 3, 3, high, low];
        let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &key).expect("16 bytes"));
        key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(header), &mut inner)
            .expect("a short record");
        stream.extend_from_slice(&header);
        stream.extend(inner);
    }
    // What is left is as it is.
    stream.extend_from_slice(says);
    stream
}

fn expand<const N: usize>(secret: &[u8; 32], label: &str) -> [u8; N] {
    struct Len(usize);
    impl hkdf::KeyType for Len {
        fn len(&self) -> usize {
            self.0
        }
    }
    let label = format!("tls13 {label}");
    let info = [&[0, N as u8, label.len() as u8][..], label.as_bytes(), &[0]];
    let mut out = [0; N];
    hkdf::Prk::new_less_safe(hkdf::HKDF_SHA256, secret)
        .expand(&info, Len(N))
        .and_then(|output| output.fill(&mut out))
        .expect("less than one hash");
    out
}
