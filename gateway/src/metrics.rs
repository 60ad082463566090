//! What a core counts, and how all cores are shown on the metrics page.
//!
//! A core's thread alone writes its set; the page reads them whenever it likes.

use std::sync::Arc;

use ringway_metrics::{Counter, Gauge, Histogram, Text, Unit};
use ringway_protocol::websocket::CloseCode;

use crate::socket_io::SocketIo;

/// The numbers of one core.
#[derive(Debug, Default)]
pub struct CoreMetrics {
    /// Sockets open now, in any state.
    pub connections: Gauge,
    /// Sockets accepted.
    pub accepted: Counter,
    /// Sockets turned away: too many of one address, the table full, or draining.
    pub refused: Counter,
    /// Sockets whose slot was freed.
    pub closed: Counter,
    /// TLS handshakes finished.
    pub handshakes: Counter,
    /// TLS handshakes that failed, by the peer's fault or ours.
    pub handshakes_failed: Counter,
    /// Sessions that got their `welcome`.
    pub sessions: Counter,
    /// Sessions open now.
    pub sessions_open: Gauge,
    /// Connections handed to the HTTP server.
    pub http_connections: Counter,
    /// WebSocket frames received.
    pub frames_in: Counter,
    /// WebSocket frames queued to be sent.
    pub frames_out: Counter,
    /// Bytes received from sockets.
    pub bytes_in: Counter,
    /// Bytes the kernel took from us.
    pub bytes_out: Counter,
    /// Sends submitted: frames_out over this is how well a pass coalesces.
    pub sends: Counter,
    /// Sends that the kernel cut short and we continued.
    pub sends_short: Counter,
    /// Requests pushed to the router's workers.
    pub requests: Counter,
    /// From a client's send to its ack, as the core sees it.
    pub ack: Histogram,
    /// From the owner's acceptance of an entry (its `server_ts`) to its place in a recipient's queue, one
    /// a recipient. Two wall clocks of a millisecond each: a step of the machine's clock shows.
    pub delivery: Histogram,
    /// First requests answered with an HTTP error by the gateway itself, upgrades above all.
    pub requests_refused: Counter,
    /// `rate_limited` errors.
    pub rate_refusals: Counter,
    /// WebSockets that we closed, by what the code says.
    pub closes: Closes,
    /// Connections closed as slow readers (4102).
    pub slow_readers: Counter,
    /// `gap` frames sent in place of bodies.
    pub gaps: Counter,
    /// Messages taken out of the core's inbox.
    pub inbox_messages: Counter,
    /// Passes of the event loop.
    pub passes: Counter,
    /// System calls into the ring; on epoll, all that are made for its sockets.
    pub enters: Counter,
    /// Workers that slept when this core had something for them and woke them, a system call each.
    pub worker_wakes: Counter,
    /// Times that the HTTP server's threads woke this core, a system call of theirs each.
    pub http_wakes: Counter,
    /// Completions that one pass handled.
    pub completions_a_pass: Histogram,
    /// Time one pass took, from its wake-up to its next sleep: what a ready socket may wait.
    pub pass_time: Histogram,
    /// Receives that ended because no provided buffer was free.
    pub buffers_exhausted: Counter,
    /// Passes that found the completion queue overflown.
    pub completion_overflows: Counter,
    /// Times that accepting was paused because the table was full.
    pub accept_pauses: Counter,
}

/// WebSockets that we closed.
#[derive(Debug, Default)]
pub struct Closes {
    /// By hundred of the code, in the order of [`CODES`].
    by_code: [Counter; CODES.len()],
    /// The peer broke the protocol: 1002, 1003, 1007, 1009, 4000.
    protocol_errors: Counter,
    /// Nothing was heard of the peer: 4103.
    silent: Counter,
}

/// What the label `code` of closes may be.
const CODES: [&str; 4] = ["10xx", "40xx", "41xx", "42xx"];

impl Closes {
    /// Counts a Close frame of ours.
    pub fn count(&self, code: CloseCode) {
        let hundred = match code.0 {
            4000..=4099 => 1,
            4100..=4199 => 2,
            4200.. => 3,
            _ => 0,
        };
        self.by_code[hundred].increment();
        match code {
            CloseCode::PROTOCOL_ERROR
            | CloseCode::UNSUPPORTED_DATA
            | CloseCode::INVALID_PAYLOAD
            | CloseCode::MESSAGE_TOO_BIG
            | CloseCode::BAD_REQUEST => self.protocol_errors.increment(),
            CloseCode::HEARTBEAT_MISSED => self.silent.increment(),
            _ => {}
        }
    }
}

/// Renders what carries the sockets, and all cores. A label names the core.
pub fn render(cores: &[Arc<CoreMetrics>], io: &SocketIo, text: &mut Text) {
    let carrier = format!("io=\"{}\"", io.name());
    text.gauge("ringway_gateway_io_info", "What carries the sockets: io_uring or epoll.", [(carrier, 1)]);
    type Counted = (&'static str, &'static str, fn(&CoreMetrics) -> &Counter);
    let counters: [Counted; 28] = [
        ("accepted_total", "Sockets accepted.", |core| &core.accepted),
        ("refused_total", "Sockets turned away.", |core| &core.refused),
        ("closed_total", "Sockets closed.", |core| &core.closed),
        ("tls_handshakes_total", "TLS handshakes finished.", |core| &core.handshakes),
        ("tls_handshakes_failed_total", "TLS handshakes failed.", |core| &core.handshakes_failed),
        ("sessions_total", "Sessions that got their welcome.", |core| &core.sessions),
        ("http_connections_total", "Connections handed to the HTTP server.", |core| &core.http_connections),
        ("frames_in_total", "WebSocket frames received.", |core| &core.frames_in),
        ("frames_out_total", "WebSocket frames queued to be sent.", |core| &core.frames_out),
        ("bytes_in_total", "Bytes received.", |core| &core.bytes_in),
        ("bytes_out_total", "Bytes sent.", |core| &core.bytes_out),
        ("sends_total", "Sends submitted.", |core| &core.sends),
        ("sends_short_total", "Sends continued after a short count.", |core| &core.sends_short),
        ("requests_total", "Requests pushed to the router.", |core| &core.requests),
        (
            "requests_refused_total",
            "First requests, upgrades above all, refused with an HTTP error.",
            |core| &core.requests_refused,
        ),
        ("rate_refusals_total", "rate_limited errors.", |core| &core.rate_refusals),
        (
            "protocol_errors_total",
            "Closed as the peer broke the protocol: 1002, 1003, 1007, 1009, 4000.",
            |core| &core.closes.protocol_errors,
        ),
        ("silence_closes_total", "Connections closed as nothing was heard of them (4103).", |core| {
            &core.closes.silent
        }),
        ("slow_readers_total", "Connections closed as slow readers.", |core| &core.slow_readers),
        ("gaps_total", "Gap frames sent in place of bodies.", |core| &core.gaps),
        ("inbox_messages_total", "Messages taken from the inbox.", |core| &core.inbox_messages),
        ("passes_total", "Passes of the event loop.", |core| &core.passes),
        ("ring_enters_total", "System calls into the ring; on epoll, all for sockets.", |core| &core.enters),
        ("worker_wakes_total", "Wake-ups of router workers that slept, a system call each.", |core| {
            &core.worker_wakes
        }),
        (
            "http_wakes_total",
            "Wake-ups of this core by the HTTP server, a system call of its threads each.",
            |core| &core.http_wakes,
        ),
        ("ring_buffers_exhausted_total", "Receives ended without a free buffer.", |core| {
            &core.buffers_exhausted
        }),
        ("ring_completion_overflows_total", "Passes that found the completion queue overflown.", |core| {
            &core.completion_overflows
        }),
        ("accept_pauses_total", "Times accepting was paused, the table full.", |core| &core.accept_pauses),
    ];
    for (name, help, counter) in counters {
        let values = label(cores).map(|(labels, core)| (labels, counter(core).get()));
        text.counter(&format!("ringway_gateway_{name}"), help, values);
    }
    let closes = label(cores).flat_map(|(labels, core)| {
        let codes = CODES.iter().zip(&core.closes.by_code);
        codes.map(move |(code, counter)| (format!("{labels},code=\"{code}\""), counter.get()))
    });
    text.counter("ringway_gateway_closes_total", "Close frames of ours, by hundred of the code.", closes);
    let connections = label(cores).map(|(labels, core)| (labels, core.connections.get()));
    text.gauge("ringway_gateway_connections", "Sockets open now.", connections);
    let sessions = label(cores).map(|(labels, core)| (labels, core.sessions_open.get()));
    text.gauge("ringway_gateway_sessions_open", "Sessions open now.", sessions);
    text.histogram(
        "ringway_gateway_ack_seconds",
        "From a client's send to its ack, as the core sees it.",
        Unit::Seconds,
        label(cores).map(|(labels, core)| (labels, &core.ack)),
    );
    text.histogram(
        "ringway_gateway_delivery_seconds",
        "From an entry's server_ts to its place in a recipient's queue, one a recipient. The resolution is a \
         millisecond of the wall clock.",
        Unit::Seconds,
        label(cores).map(|(labels, core)| (labels, &core.delivery)),
    );
    text.histogram(
        "ringway_gateway_pass_seconds",
        "Time one pass of the event loop took: what a ready socket may wait.",
        Unit::Seconds,
        label(cores).map(|(labels, core)| (labels, &core.pass_time)),
    );
    text.histogram(
        "ringway_gateway_completions_a_pass",
        "Completions that one pass of the event loop handled.",
        Unit::Plain,
        label(cores).map(|(labels, core)| (labels, &core.completions_a_pass)),
    );
}

fn label(cores: &[Arc<CoreMetrics>]) -> impl Iterator<Item = (String, &CoreMetrics)> {
    cores.iter().enumerate().map(|(index, core)| (format!("core=\"{index}\""), core.as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::socket_io::IoChoice;

    fn on_epoll() -> SocketIo {
        SocketIo::find(IoChoice::Epoll).unwrap()
    }

    #[test]
    fn every_core_is_shown_under_its_number() {
        let cores = [Arc::new(CoreMetrics::default()), Arc::new(CoreMetrics::default())];
        cores[1].frames_in.add(7);
        let mut text = Text::default();
        render(&cores, &on_epoll(), &mut text);
        let page = text.finish();
        assert!(page.contains("ringway_gateway_io_info{io=\"epoll\"} 1\n"), "{page}");
        assert!(page.contains("ringway_gateway_frames_in_total{core=\"0\"} 0\n"), "{page}");
        assert!(page.contains("ringway_gateway_frames_in_total{core=\"1\"} 7\n"), "{page}");
    }

    #[test]
    fn a_close_is_counted_under_its_hundred_and_its_cause() {
        let cores = [Arc::new(CoreMetrics::default())];
        for code in [1001, 1002, 1009, 4000, 4001, 4102, 4103, 4200] {
            cores[0].closes.count(CloseCode(code));
        }
        let mut text = Text::default();
        render(&cores, &on_epoll(), &mut text);
        let page = text.finish();
        for line in [
            "closes_total{core=\"0\",code=\"10xx\"} 3",
            "closes_total{core=\"0\",code=\"40xx\"} 2",
            "closes_total{core=\"0\",code=\"41xx\"} 2",
            "closes_total{core=\"0\",code=\"42xx\"} 1",
            "protocol_errors_total{core=\"0\"} 3",
            "silence_closes_total{core=\"0\"} 1",
        ] {
            assert!(page.contains(&format!("ringway_gateway_{line}\n")), "{line}: {page}");
        }
    }
}
