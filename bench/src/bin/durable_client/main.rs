//! The client of the durable table: messages on their whole way, one to one over wss, and what they cost the server.
//!
//! `closed`: a sender and a receiver a pair, a window of sends outstanding without their ack; it says the processor time
//! of the whole server for each delivered message. `open`: the same pairs send on a fixed schedule whatever comes back,
//! and it says how long acks and deliveries took from the intended time. Bodies have 128 bytes, names and tokens come
//! from a file of `ringway token`, and a message counts when it is both acked and delivered.
//!
//! In `closed` the client lets 64 sockets become readable before it reads, for up to a millisecond: woken by each
//! delivery, it would make the server pay for the wake-ups, and the more of them the faster it is itself.
//!
//! `durable_client closed PORT SERVER_PID TOKENS json|protobuf PAIRS WINDOW MESSAGES`
//! `durable_client open PORT SERVER_PID TOKENS json|protobuf PAIRS RATE SECONDS`
//! `durable_client sync FOLDER BYTES A_SECOND SECONDS`: fsyncs of so many appended bytes, beside no server.
#![forbid(unsafe_code)]

mod connection;
mod load;
mod meter;
mod sync;

use ringway_protocol::client::Encoding;

use load::Load;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["closed", port, pid, tokens, encoding, pairs, window, messages] => {
            let mut load = Load::open(number(port), tokens, encoding_of(encoding), number(pairs));
            load.run_closed(number(pid), number(window), number(messages));
        }
        ["open", port, pid, tokens, encoding, pairs, rate, seconds] => {
            let mut load = Load::open(number(port), tokens, encoding_of(encoding), number(pairs));
            load.run_open(number(pid), number(rate), number(seconds));
        }
        ["sync", folder, bytes, a_second, seconds] => {
            sync::measure(folder.as_ref(), number(bytes), number(a_second), number(seconds));
        }
        _ => panic!("durable_client closed|open|sync …: see the head of its source"),
    }
}

fn number<T: std::str::FromStr>(text: &str) -> T {
    text.parse().unwrap_or_else(|_| panic!("{text} is not a number that fits"))
}

fn encoding_of(name: &str) -> Encoding {
    match name {
        "json" => Encoding::Json,
        "protobuf" => Encoding::Protobuf,
        _ => panic!("json or protobuf"),
    }
}
