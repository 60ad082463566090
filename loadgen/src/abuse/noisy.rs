//! Those who do too much at once, too little at a time, or say what cannot be.

use std::io;
use std::time::{Duration, Instant};

use ringway_protocol::websocket::{Event, Opcode, append_masked_frame};

use super::client::{Client, MASK, hello, upgrade_request};
use super::{FLOOD_PINGS, HUGE_LENGTHS, RESETS, Report, SLOW_PINGS, Target};

/// Time without a pong after which a flood's answers are taken to be all.
const QUIET: Duration = Duration::from_secs(3);

pub(super) fn ping_flood(target: &Target, deadline: Instant) -> io::Result<Report> {
    let mut client = Client::log_in(target, "ping-flood")?;
    let mut frames = Vec::new();
    for number in 0..FLOOD_PINGS {
        append_masked_frame(&mut frames, Opcode::Ping, &number.to_be_bytes(), MASK);
    }
    // A write that fails is the server's end of it, and what was said before is still to be read.
    let _ = client.write(&frames);
    let mut report = Report::default();
    let mut end = None;
    let mut pongs = None;
    while end.is_none() && pongs != Some(client.pongs()) && Instant::now() < deadline {
        pongs = Some(client.pongs());
        end = client.read_to_end((Instant::now() + QUIET).min(deadline))?;
    }
    report.add(end, &client);
    Ok(report)
}

pub(super) fn byte_at_a_time(target: &Target, deadline: Instant) -> io::Result<Report> {
    let mut client = Client::open(target.ws)?;
    client.write_one_by_one(upgrade_request(target).as_bytes())?;
    client.finish_upgrade()?;
    let mut frames = Vec::new();
    append_masked_frame(&mut frames, Opcode::Text, hello(target, "byte-at-a-time").as_bytes(), MASK);
    for number in 0..SLOW_PINGS {
        append_masked_frame(&mut frames, Opcode::Ping, &number.to_be_bytes(), MASK);
    }
    client.write_one_by_one(&frames)?;
    let mut pongs = 0;
    let end = client.read_while(deadline, |event| {
        pongs += u32::from(matches!(event, Event::Pong(_)));
        pongs < SLOW_PINGS
    })?;
    let mut report = Report::default();
    report.add(end, &client);
    Ok(report)
}

pub(super) fn reset_mid_frame(target: &Target, deadline: Instant) -> io::Result<Report> {
    let mut report = Report::default();
    let mut frame = Vec::new();
    append_masked_frame(&mut frame, Opcode::Text, &[b' '; 4096], MASK);
    while report.opened < RESETS && Instant::now() < deadline {
        let mut client = Client::log_in(target, "reset-mid-frame")?;
        client.write(&frame[..2048])?;
        client.reset()?;
        // Ended by us: neither open nor ended by the server.
        report.opened += 1;
    }
    Ok(report)
}

pub(super) fn huge_length(target: &Target, deadline: Instant) -> io::Result<Report> {
    let mut report = Report::default();
    for length in HUGE_LENGTHS {
        let mut client = Client::log_in(target, "huge-length")?;
        // FIN, binary; masked, a length of 64 bits.
        let mut header = vec![0x82, 0xff];
        header.extend_from_slice(&length.to_be_bytes());
        header.extend_from_slice(&MASK);
        client.write(&header)?;
        let end = client.read_to_end(deadline)?;
        report.add(end, &client);
    }
    Ok(report)
}
