//! Those who do too little: who does not read, does not speak any more, or does not finish what it began.

use std::io;
use std::time::{Duration, Instant};

use ringway_protocol::websocket::Opcode;

use super::client::{Client, upgrade_request};
use super::{HALF_OPEN_PEERS, Report, STALLED_HANDSHAKES, Target};

/// Between two pings of the slow reader: just within the rate that every client may have (20 a second).
const PING_EVERY: Duration = Duration::from_millis(60);

/// Between two bytes of a handshake that goes on slowly.
const DRIP_EVERY: Duration = Duration::from_secs(1);

/// Time to look at what came, when patience is over.
const LAST_LOOK: Duration = Duration::from_secs(2);

pub(super) fn slow_reader(target: &Target, deadline: Instant) -> io::Result<Report> {
    let mut client = Client::open_with_small_buffers(target.ws)?.welcome(target, "slow-reader")?;
    // Each ping is answered, and with it what was left out: that queue grows. A failed write is the
    // server's end of it.
    while Instant::now() < deadline && client.send(Opcode::Text, br#"{"type":"ping"}"#).is_ok() {
        std::thread::sleep(PING_EVERY);
    }
    let mut report = Report::default();
    let end = client.read_to_end(Instant::now() + LAST_LOOK)?;
    report.add(end, &client);
    Ok(report)
}

pub(super) fn half_open(target: &Target, deadline: Instant) -> io::Result<Report> {
    let mut peers = Vec::new();
    for number in 0..HALF_OPEN_PEERS {
        peers.push(Client::log_in(target, &format!("half-open-{number}"))?);
    }
    let mut report = Report::default();
    for peer in &mut peers {
        let end = peer.read_to_end(deadline)?;
        report.add(end, peer);
    }
    Ok(report)
}

/// How far a stalled handshake has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stalled {
    /// On the plain port, without a byte.
    Nothing,
    /// On the plain port, half of the request's head.
    Head,
    /// On the TLS port, without a byte.
    NothingOfTls,
    /// On the TLS port, the beginning of a ClientHello.
    ClientHello,
    /// Upgraded, without `hello`.
    NoHello,
}

const STAGES: [Stalled; 5] =
    [Stalled::Nothing, Stalled::Head, Stalled::NothingOfTls, Stalled::ClientHello, Stalled::NoHello];

/// The head of a TLS record that announces a ClientHello of 512 bytes, and 4 of them.
const HALF_CLIENT_HELLO: [u8; 9] = [0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc];

pub(super) fn stalled_handshakes(target: &Target, deadline: Instant) -> io::Result<Report> {
    let request = upgrade_request(target);
    let (begun, rest) = request.as_bytes().split_at(request.len() / 2);
    let mut sockets = Vec::new();
    for stage in STAGES.iter().copied().cycle().take(STALLED_HANDSHAKES) {
        let mut client = match stage {
            Stalled::NothingOfTls | Stalled::ClientHello => Client::open(target.wss)?,
            Stalled::Nothing | Stalled::Head | Stalled::NoHello => Client::open(target.ws)?,
        };
        match stage {
            Stalled::Nothing | Stalled::NothingOfTls => {}
            Stalled::Head => client.write(begun)?,
            Stalled::ClientHello => client.write(&HALF_CLIENT_HELLO)?,
            Stalled::NoHello => client.upgrade(target)?,
        }
        sockets.push((stage, client));
    }
    // A deadline that begins anew with each byte would let these live for minutes.
    let drips = rest.iter().take_while(|_| Instant::now() < deadline);
    for byte in drips {
        let mut alive = false;
        for (_, client) in sockets.iter_mut().filter(|(stage, _)| *stage == Stalled::Head) {
            alive |= client.write(&[*byte]).is_ok();
        }
        for (_, client) in sockets.iter_mut().filter(|(stage, _)| *stage == Stalled::ClientHello) {
            alive |= client.write(&[0]).is_ok();
        }
        if !alive {
            break;
        }
        std::thread::sleep(DRIP_EVERY.min(deadline.saturating_duration_since(Instant::now())));
    }
    let mut report = Report::default();
    for (stage, client) in &mut sockets {
        let end = match stage {
            Stalled::NoHello => client.read_to_end(deadline)?,
            _ => client.read_status_to_end(deadline)?,
        };
        report.add(end, client);
    }
    Ok(report)
}
