//! Clients that behave badly, on plain blocking sockets: what a server must bear without others noticing.
//!
//! Each kind runs a bounded number of sockets for a bounded time and reports how the server ended them;
//! [`Abuse::verdict`] says whether that is how it must be. The tests of the real binary use both; `loadgen
//! abuse` runs a kind beside a load, so that the load's latency with and without it can be compared.
//!
//! `client.rs` is their socket, `silent.rs` those who do too little, `noisy.rs` those who do too much.

pub mod client;
mod noisy;
mod silent;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Pings of one flood.
pub const FLOOD_PINGS: u32 = 10_000;

/// Pings that come a byte at a time.
pub const SLOW_PINGS: u32 = 100;

/// Sockets that fall silent together: fewer than a user may have, so that one token is enough.
pub const HALF_OPEN_PEERS: usize = 8;

/// Sockets that stop in the middle of a handshake.
pub const STALLED_HANDSHAKES: usize = 200;

/// Connections that are reset in the middle of a frame.
pub const RESETS: usize = 500;

/// Lengths that are announced: too long, and impossible (RFC 6455 section 5.2: the top bit must be 0).
pub const HUGE_LENGTHS: [u64; 3] = [1 << 40, 1 << 63, u64::MAX];

/// Close codes of the protocol that the kinds end with.
mod code {
    pub(super) const PROTOCOL_ERROR: u16 = 1002;
    pub(super) const TOO_BIG: u16 = 1009;
    pub(super) const SLOW_READER: u16 = 4102;
    pub(super) const HEARTBEAT_MISSED: u16 = 4103;
    pub(super) const RATE_LIMITED: u16 = 4104;
    pub(super) const NO_HELLO: u16 = 4108;
}

/// A way to behave badly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Abuse {
    /// Logs in, asks again and again, and never reads what comes.
    SlowReader,
    /// Logs in [`HALF_OPEN_PEERS`] times and is gone without a FIN: it says nothing more.
    HalfOpen,
    /// Sends [`FLOOD_PINGS`] pings as fast as it can and reads nothing meanwhile.
    PingFlood,
    /// Sends its upgrade, its `hello` and [`SLOW_PINGS`] pings one byte a segment.
    ByteAtATime,
    /// Sends half a frame and resets the connection, [`RESETS`] times.
    ResetMidFrame,
    /// Announces messages of [`HUGE_LENGTHS`] bytes.
    HugeLength,
    /// Opens [`STALLED_HANDSHAKES`] sockets and stops in the middle of TLS, of the request's head, or
    /// before `hello`; some go on at a byte a second.
    StalledHandshakes,
}

impl Abuse {
    /// All of them.
    pub const ALL: [Abuse; 7] = [
        Abuse::SlowReader,
        Abuse::HalfOpen,
        Abuse::PingFlood,
        Abuse::ByteAtATime,
        Abuse::ResetMidFrame,
        Abuse::HugeLength,
        Abuse::StalledHandshakes,
    ];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Abuse::SlowReader => "slow-reader",
            Abuse::HalfOpen => "half-open",
            Abuse::PingFlood => "ping-flood",
            Abuse::ByteAtATime => "byte-at-a-time",
            Abuse::ResetMidFrame => "reset-mid-frame",
            Abuse::HugeLength => "huge-length",
            Abuse::StalledHandshakes => "stalled-handshakes",
        }
    }

    /// The one of that name.
    pub fn named(name: &str) -> Option<Abuse> {
        Abuse::ALL.into_iter().find(|abuse| abuse.name() == name)
    }

    /// Behaves like this once: until the server has ended every socket, or for `patience`.
    ///
    /// # Errors
    /// The server did not take a connection, or a login, that it should have taken.
    pub fn run(self, target: &Target, patience: Duration) -> io::Result<Report> {
        let deadline = Instant::now() + patience;
        match self {
            Abuse::SlowReader => silent::slow_reader(target, deadline),
            Abuse::HalfOpen => silent::half_open(target, deadline),
            Abuse::PingFlood => noisy::ping_flood(target, deadline),
            Abuse::ByteAtATime => noisy::byte_at_a_time(target, deadline),
            Abuse::ResetMidFrame => noisy::reset_mid_frame(target, deadline),
            Abuse::HugeLength => noisy::huge_length(target, deadline),
            Abuse::StalledHandshakes => silent::stalled_handshakes(target, deadline),
        }
    }

    /// Within what time the server is to have ended it: its deadlines (8 s for each stage of a handshake,
    /// 45 s of silence, 3 s for the closing), and some for a busy machine.
    pub fn ends_within(self) -> Duration {
        match self {
            Abuse::SlowReader | Abuse::HalfOpen => Duration::from_secs(60),
            Abuse::StalledHandshakes => Duration::from_secs(20),
            _ => Duration::from_secs(30),
        }
    }

    /// Whether it goes on until the server or its patience ends it; the others are done when they have
    /// said what they have to say.
    pub fn lasts(self) -> bool {
        matches!(self, Abuse::SlowReader | Abuse::HalfOpen | Abuse::StalledHandshakes)
    }

    /// Whether the server ended it as it must, of a run that had `patience`.
    ///
    /// # Errors
    /// What it should have done.
    pub fn verdict(self, report: &Report, patience: Duration) -> Result<(), String> {
        let only = |codes: &[u16]| report.ended.keys().all(|code| codes.contains(code));
        let had_time = patience >= self.ends_within();
        let (as_it_must, wanted) = match self {
            // It is told nothing while it does not read; 0 is a socket that went before it looked.
            Abuse::SlowReader => (only(&[0, code::SLOW_READER]), "to stay below its bound, or 4102"),
            Abuse::HalfOpen => (
                only(&[code::HEARTBEAT_MISSED]) && (report.open == 0 || !had_time),
                "4103 after 45 s for every one",
            ),
            Abuse::PingFlood => (
                report.pongs == FLOOD_PINGS
                    || (report.open == 0 && only(&[code::SLOW_READER, code::RATE_LIMITED])),
                "every pong, or 4104 or 4102",
            ),
            Abuse::ByteAtATime => (report.pongs == SLOW_PINGS && report.open == 1, "every pong"),
            Abuse::ResetMidFrame => (report.opened == RESETS, "to take every login"),
            Abuse::HugeLength => (
                report.open == 0 && only(&[code::PROTOCOL_ERROR, code::TOO_BIG]),
                "1009 or 1002 for every one",
            ),
            Abuse::StalledHandshakes => (
                only(&[0, 408, code::NO_HELLO]) && (report.open == 0 || !had_time),
                "the end of every one when its stage's 8 s are over",
            ),
        };
        if as_it_must {
            Ok(())
        } else {
            Err(format!("{} must bring {wanted}, and brought {report:?}", self.name()))
        }
    }
}

/// Whom it is done to.
#[derive(Clone, Debug)]
pub struct Target {
    /// The plain listener.
    pub ws: SocketAddr,
    /// The TLS listener.
    pub wss: SocketAddr,
    /// A token of a user, for those who log in.
    pub token: String,
}

/// How the server ended the sockets.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Report {
    /// Sockets opened.
    pub opened: usize,
    /// Ended by the server, with this close code or HTTP status; 0 for an end without a word.
    pub ended: BTreeMap<u16, usize>,
    /// Still open when patience was over.
    pub open: usize,
    /// Pongs that came back.
    pub pongs: u32,
    /// `gap` frames that came.
    pub gaps: u32,
}

impl Report {
    /// Adds another run's.
    pub fn merge(&mut self, other: &Report) {
        self.opened += other.opened;
        self.open += other.open;
        self.pongs += other.pongs;
        self.gaps += other.gaps;
        for (code, count) in &other.ended {
            *self.ended.entry(*code).or_default() += count;
        }
    }

    /// Of one socket that was opened: its end, if it has come to one, and what it was told.
    fn add(&mut self, end: Option<u16>, client: &client::Client) {
        self.end(end);
        self.pongs += client.pongs();
        self.gaps += client.gaps();
    }

    fn end(&mut self, code: Option<u16>) {
        self.opened += 1;
        match code {
            Some(code) => *self.ended.entry(code).or_default() += 1,
            None => self.open += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_name() {
        for abuse in Abuse::ALL {
            assert_eq!(Abuse::named(abuse.name()), Some(abuse));
        }
        assert_eq!(Abuse::named("kindness"), None);
    }

    #[test]
    fn a_verdict_tells_a_right_end_from_a_wrong_one() {
        let long = Duration::from_secs(100);
        let ended = |code, count| Report {
            opened: count,
            ended: BTreeMap::from([(code, count)]),
            ..Report::default()
        };
        let open = Report { opened: 8, open: 8, ..Report::default() };
        assert!(Abuse::HalfOpen.verdict(&ended(4103, 8), long).is_ok());
        assert!(Abuse::HalfOpen.verdict(&ended(0, 8), long).is_err());
        assert!(Abuse::HalfOpen.verdict(&open, long).is_err());
        assert!(Abuse::HalfOpen.verdict(&open, Duration::from_secs(9)).is_ok(), "not long enough to tell");
        assert!(Abuse::PingFlood.verdict(&ended(4104, 1), long).is_ok());
        assert!(Abuse::PingFlood.verdict(&ended(0, 1), long).is_err());
        assert!(Abuse::HugeLength.verdict(&ended(1009, 3), long).is_ok());
        assert!(Abuse::HugeLength.verdict(&open, long).is_err());
        assert!(Abuse::ByteAtATime.verdict(&ended(1002, 1), long).is_err());
    }
}
