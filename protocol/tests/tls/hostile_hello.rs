//! A stranger's first bytes: what they may cost before anybody is known.

use ringway_protocol::tls::{
    HELLO_GATHERED_BYTES_MAX, HandshakeError, ServerHandshake, Suite, with_server_secrets,
};

use crate::pair::server_config;

fn server() -> ServerHandshake {
    ServerHandshake::accept(with_server_secrets(server_config(Suite::Aes128GcmSha256, 1))).unwrap()
}

/// A ClientHello that says to be so long, in records of so many bytes each.
fn hello(len: usize, piece: usize) -> Vec<u8> {
    let [_, high, middle, low] = (len as u32).to_be_bytes();
    let mut message = vec![1, high, middle, low, 3, 3];
    message.resize(len, 0x55);
    let record = |bytes: &[u8]| [&[22, 3, 1, (bytes.len() >> 8) as u8, bytes.len() as u8], bytes].concat();
    message.chunks(piece).flat_map(record).collect()
}

#[test]
fn a_hello_without_an_end_is_refused_when_it_is_longer_than_any() {
    for piece in [1, 50, 5_000, 16_384] {
        for arrival in [1, 4_096, 70_000] {
            let mut server = server();
            let bytes = hello(60_000, piece);
            let mut taken = 0;
            let refused = bytes.chunks(arrival).find_map(|arrival| {
                let outcome = server.handle_received(arrival);
                taken += arrival.len();
                assert!(server.gathered_bytes() <= HELLO_GATHERED_BYTES_MAX);
                outcome.err()
            });
            assert!(matches!(refused, Some(HandshakeError::TooLong(_))), "{piece} {arrival}: {refused:?}");
            assert!(taken <= HELLO_GATHERED_BYTES_MAX + arrival);
        }
    }
}
