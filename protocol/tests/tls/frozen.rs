//! A record layer that is frozen and thawed anywhere goes on as if nothing had been.

use std::io::Write;

use ringway_protocol::byte_cursor::ByteCursor;
use ringway_protocol::tls::{RecordLayer, Role, ThawError};

use crate::pair::{Pair, SUITES, open_all, read, written};

fn moved(layer: RecordLayer) -> RecordLayer {
    let most = layer.frozen_bytes_max();
    let mut frozen = Vec::new();
    layer.freeze(&mut frozen);
    assert!((most - 2..=most).contains(&frozen.len()), "{} of {most}", frozen.len());
    let mut cursor = ByteCursor::new(&frozen);
    let thawed = RecordLayer::thaw(&mut cursor).unwrap();
    assert!(cursor.is_at_end());
    thawed
}

#[test]
fn it_goes_on_from_any_byte() {
    for (role, suite) in [(Role::Server, SUITES[0]), (Role::Client, SUITES[1]), (Role::Server, SUITES[2])] {
        let mut pair = Pair::new(role, suite);
        pair.theirs.writer().write_all(b"hello").unwrap();
        pair.theirs.refresh_traffic_keys().unwrap();
        pair.theirs.writer().write_all(b" and again").unwrap();
        pair.ours.refresh_keys(true);
        let mut said = Vec::new();
        for byte in written(&mut pair.theirs) {
            said.extend(open_all(&mut pair.ours, &[byte]).unwrap());
            pair.ours = moved(pair.ours);
        }
        assert_eq!(said, b"hello and again");
        assert!(pair.ours.has_outgoing(), "what is due moves along");
        assert_eq!(pair.send(b"still me"), b"still me");
        pair.ours.close();
        pair.ours = moved(pair.ours);
        let goodbye = pair.outgoing();
        read(&mut pair.theirs, &goodbye).unwrap();
        pair.ours = moved(pair.ours);
        assert!(pair.ours.is_closed());
        assert!(pair.ours.seal(b"x", &mut Vec::new()).is_err());
    }
}

#[test]
fn cut_and_damaged_bytes_are_refused_or_thaw_to_something_harmless() {
    let mut pair = Pair::new(Role::Server, SUITES[0]);
    pair.theirs.writer().write_all(&[7; 600]).unwrap();
    let sent = written(&mut pair.theirs);
    open_all(&mut pair.ours, &sent[..500]).unwrap();
    let mut frozen = Vec::new();
    pair.ours.freeze(&mut frozen);
    for end in 0..frozen.len() {
        let cut = RecordLayer::thaw(&mut ByteCursor::new(&frozen[..end])).unwrap_err();
        assert!(matches!(cut, ThawError::Truncated(_)), "{end}: {cut}");
    }
    for place in 0..frozen.len() {
        for value in [0, 1, 2, 3, 4, 5, 0x7f, 0xff] {
            let mut damaged = frozen.clone();
            damaged[place] = value;
            let Ok(mut layer) = RecordLayer::thaw(&mut ByteCursor::new(&damaged)) else { continue };
            let _ = open_all(&mut layer, &sent[500..]);
            let _ = layer.seal(b"x", &mut Vec::new());
            let _ = layer.take_outgoing(&mut Vec::new(), 64);
        }
    }
    frozen[0] = 9;
    let other = RecordLayer::thaw(&mut ByteCursor::new(&frozen));
    assert_eq!(other.unwrap_err(), ThawError::Version(9));
}
