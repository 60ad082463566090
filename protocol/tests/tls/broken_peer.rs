//! A peer that breaks the rules: the error says which, the alert tells it, and nothing is said after.

use std::io::Write;

use ringway_protocol::tls::{Alert, Direction, RecordError, RecordLayer, Role, Suite, limits};
use rustls::AlertDescription;

use crate::pair::{Pair, open_all, read, written};

const SECRET: Direction<'static> = Direction { secret: &[7; 32], sequence: 0 };

/// Two ends of ours that share secrets.
fn ends() -> (RecordLayer, RecordLayer) {
    let new = |role| RecordLayer::new(role, Suite::Aes128GcmSha256, SECRET, SECRET).unwrap();
    (new(Role::Client), new(Role::Server))
}

fn sealed(layer: &mut RecordLayer, data: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    layer.seal(data, &mut out).unwrap();
    out
}

/// After this error, the alert is all that comes, and it is this one.
fn assert_over(mut layer: RecordLayer, client: &mut RecordLayer, alert: Alert) {
    assert!(layer.seal(b"x", &mut Vec::new()).is_err());
    assert_eq!(open_all(&mut layer, b"more"), Err(RecordError::Over));
    let mut out = Vec::new();
    layer.take_outgoing(&mut out, 64).unwrap();
    assert_eq!(open_all(client, &out), Err(RecordError::PeerAlert(alert)));
    assert!(!client.has_outgoing(), "an alert is not answered");
    layer.take_outgoing(&mut out, 64).unwrap();
    assert_eq!(out.len(), 24, "once");
}

#[test]
fn a_changed_bit_anywhere_ends_the_connection_and_what_came_before_counts() {
    let (mut client, _) = ends();
    let stream = [sealed(&mut client, b"before"), sealed(&mut client, b"the one that is damaged")].concat();
    let first = 6 + limits::SEAL_OVERHEAD_BYTES;
    for place in first..stream.len() {
        for piece in [1, 10, stream.len()] {
            let (mut client, mut server) = ends();
            let mut damaged = stream.clone();
            damaged[place] ^= 0x10;
            damaged.extend_from_slice(&[0; 0x2000]);
            let mut said = Vec::new();
            let mut failed = None;
            for arrival in damaged.chunks(piece) {
                let mut arrival = arrival.to_vec();
                let opened = server.open(&mut arrival);
                said.extend(opened.gathered);
                said.extend_from_slice(&arrival[opened.in_place]);
                if let Err(error) = opened.outcome {
                    failed = Some(error);
                    break;
                }
            }
            assert_eq!(said, b"before");
            let alert = match (place - first, failed.expect("it is noticed")) {
                (0, RecordError::UnexpectedType(7)) => Alert::UNEXPECTED_MESSAGE,
                (1.., RecordError::Undecryptable) => Alert::BAD_RECORD_MAC,
                (place, other) => panic!("byte {place}: {other}"),
            };
            assert_over(server, &mut client, alert);
        }
    }
}

#[test]
fn records_out_of_order_and_twice_are_not_opened() {
    let (mut client, mut server) = ends();
    let (first, second) = (sealed(&mut client, b"one"), sealed(&mut client, b"two"));
    assert_eq!(open_all(&mut server, &first).unwrap(), b"one");
    assert_eq!(open_all(&mut server, &first), Err(RecordError::Undecryptable));
    let (_, mut server) = ends();
    assert_eq!(open_all(&mut server, &second), Err(RecordError::Undecryptable));
}

#[test]
fn headers_are_judged_before_their_records_come() {
    let too_long = limits::CIPHERTEXT_BYTES_MAX as u16 + 1;
    let [high, low] = too_long.to_be_bytes();
    for (header, error, alert) in [
        ([23, 3, 3, high, low], RecordError::TooLong(too_long.into()), Alert::RECORD_OVERFLOW),
        ([23, 3, 3, 0xff, 0xff], RecordError::TooLong(0xffff), Alert::RECORD_OVERFLOW),
        ([20, 3, 3, 0, 1], RecordError::UnexpectedType(20), Alert::UNEXPECTED_MESSAGE),
        ([21, 3, 3, 0, 2], RecordError::UnexpectedType(21), Alert::UNEXPECTED_MESSAGE),
        ([22, 3, 3, 0, 2], RecordError::UnexpectedType(22), Alert::UNEXPECTED_MESSAGE),
        ([b'G', b'E', b'T', b' ', b'/'], RecordError::UnexpectedType(b'G'), Alert::UNEXPECTED_MESSAGE),
    ] {
        for cut in 0..=4 {
            let (mut client, mut server) = ends();
            assert_eq!(open_all(&mut server, &header[..cut]), Ok(Vec::new()));
            assert_eq!(open_all(&mut server, &header[cut..]), Err(error));
            assert_over(server, &mut client, alert);
        }
    }
}

#[test]
fn a_record_too_short_for_its_tag_is_not_opened() {
    for len in 0..17u8 {
        let (mut client, mut server) = ends();
        let record = [&[23, 3, 3, 0, len][..], &vec![0; usize::from(len)]].concat();
        let error = open_all(&mut server, &record).unwrap_err();
        assert_eq!(error, RecordError::Undecryptable);
        assert_over(server, &mut client, Alert::BAD_RECORD_MAC);
    }
}

#[test]
fn a_record_that_never_ends_keeps_what_arrived_and_no_more() {
    let (mut client, mut server) = ends();
    let record = sealed(&mut client, &[1; limits::PLAINTEXT_BYTES_MAX]);
    for (index, byte) in record[..record.len() - 1].iter().enumerate() {
        assert_eq!(open_all(&mut server, &[*byte]), Ok(Vec::new()));
        assert!(server.heap_bytes() <= record.len().min(2 * (index + 8)), "{index}");
    }
    assert_eq!(open_all(&mut server, &record[record.len() - 1..]).unwrap(), [1; limits::PLAINTEXT_BYTES_MAX]);
    assert_eq!(server.heap_bytes(), 0);
}

#[test]
fn rustls_is_told_by_alert_and_tells_us() {
    let mut pair = Pair::new(Role::Server, Suite::Aes128GcmSha256);
    pair.theirs.writer().write_all(b"hello").unwrap();
    let mut sent = written(&mut pair.theirs);
    sent[10] ^= 1;
    assert_eq!(open_all(&mut pair.ours, &sent), Err(RecordError::Undecryptable));
    let alert = pair.outgoing();
    let told = read(&mut pair.theirs, &alert).unwrap_err();
    assert_eq!(told, rustls::Error::AlertReceived(AlertDescription::BadRecordMac));

    let mut pair = Pair::new(Role::Client, Suite::Aes128GcmSha256);
    let mut sealed = pair.sealed(b"hello");
    sealed[10] ^= 1;
    assert!(read(&mut pair.theirs, &sealed).is_err());
    assert_eq!(pair.receive(1), Err(RecordError::PeerAlert(Alert::BAD_RECORD_MAC)));
    assert_eq!(pair.outgoing(), b"");
    assert!(pair.ours.seal(b"x", &mut Vec::new()).is_err());
}
