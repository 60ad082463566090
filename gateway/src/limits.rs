//! Every bound of the socket plane, with unit and reason, and what they add up to in memory.
//!
//! What a client is promised has its bounds in `ringway_protocol::limits`; here are those of the machine.
//! [`MemoryBudget`] is the sum, term by term, printed at start: a process that keeps these bounds cannot
//! need more.

use ringway_protocol::limits::NAME_BYTES_MAX;
use ringway_protocol::tls;
use ringway_protocol::user::NAME_HEADER_BYTES;

/// Bytes from a client that may wait for the HTTP server to read, a connection.
pub const HTTP_INPUT_BYTES_MAX: usize = 64 * 1024;

/// Bytes of an HTTP answer that may wait for the socket, a connection.
pub const HTTP_OUTPUT_BYTES_MAX: usize = 64 * 1024;

/// Bytes of one send: a whole TLS record of 16 KiB with its frame, exactly a size class of the allocator.
pub const SEND_CHUNK_BYTES: usize = 20 * 1024;

/// Free send chunks a core keeps: as many sockets as speak in one pass.
pub const SEND_CHUNKS_KEPT: usize = 1_024;

/// Bytes of a send that is short, as nearly all are: eight messages of 128 bytes with their frames and a TLS
/// record, exactly a size class of the allocator, and no power of two, so that the chunks of many sockets do not
/// all want the same lines of a cache.
pub const SMALL_CHUNK_BYTES: usize = 1_280;

/// Free ones that a core keeps.
pub const SMALL_CHUNKS_KEPT: usize = 4_096;

/// Messages in parts whose memory a core keeps for the next: as many as are split over two receive buffers while
/// many sockets speak.
pub const READ_MEMORY_KEPT: usize = 64;

/// Messages that may wait for a core. A message that finds it full comes to its connections as a `gap`,
/// or to its sender as `unavailable`; a fan-out of any size is one.
pub const INBOX_MESSAGES: usize = 8_192;

/// Deliveries (connections told of something by other threads) that one pass makes: about 20 ms of work.
/// The rest waits for the next pass, so that sockets are looked at in between.
pub const DELIVERIES_A_PASS: usize = 16_384;

/// Bytes of one reader's frames that the kernel takes from us, which it doubles for its bookkeeping: what it
/// then holds of a slow reader is what its queue holds. At a round trip of 100 ms it is 1.3 MB a second, and
/// within what the kernel allows everybody (net.core.wmem_max, 208 KiB by default). Left to itself the
/// kernel takes up to 4 MiB a socket (net.ipv4.tcp_wmem).
pub const SOCKET_SEND_BUFFER_BYTES_DEFAULT: usize = 128 * 1024;

/// Time until accepting is tried again after the machine refused, in milliseconds.
pub const ACCEPT_RETRY_MILLISECONDS: u64 = 100;

/// Time until the end of a session that found a worker's inbox full is told again, in milliseconds.
pub const OWED_RETRY_MILLISECONDS: u64 = 5;

/// Time that a connection which was turned away has to read its answer, in milliseconds.
pub const REFUSAL_MILLISECONDS: u64 = 2_000;

/// Slots of a table that stay free: what the kernel accepts between our asking it to stop and its
/// stopping must find a place.
pub const fn table_headroom(slots: u32) -> u32 {
    if slots < 20 { 1 } else { slots / 10 }
}

const _: () = assert!(SEND_CHUNK_BYTES >= tls::HELLO_GATHERED_BYTES_MAX, "and a hello takes no more");
const _: () = assert!(SEND_CHUNK_BYTES >= tls::limits::RECORD_BYTES_MAX, "a full TLS record fits in a chunk");

/// What an idle connection takes that is logged in, over a plain socket or [over TLS](Self::over_tls), term by term,
/// in bytes. It is all that it takes: no buffer, in neither direction, and nothing of rustls's or aws-lc's. The kernel's part is no memory of the process; the router's is a
/// seat for each worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdleConnection {
    /// Its entry in the table of its core's connections.
    pub entry: usize,
    /// Its deadline in the timer wheel.
    pub timer: usize,
    /// What the ring knows of its socket.
    pub ring_slot: usize,
    /// Its WebSocket with its session, a block on the heap.
    pub websocket: usize,
    /// The name of its user, shared with its requests and with the router.
    pub user: usize,
    /// The name of its device, shared in the same way.
    pub device: usize,
    /// Secrets, keys and counts of TLS 1.3, a block on the heap; nothing on a plain socket.
    pub tls: usize,
}

impl IdleConnection {
    /// One whose names have so many bytes; the user's with its tenant.
    pub const fn new(user_bytes: usize, device_bytes: usize) -> Self {
        Self {
            entry: crate::slots::ENTRY_BYTES,
            timer: crate::timer_wheel::TIMER_BYTES,
            ring_slot: ringway_ring::SLOT_BYTES,
            websocket: crate::connection::WEBSOCKET_BYTES,
            // A byte for the length of the tenant.
            user: NAME_HEADER_BYTES + 1 + user_bytes,
            device: NAME_HEADER_BYTES + device_bytes,
            tls: 0,
        }
    }

    /// The same over TLS 1.3.
    pub const fn over_tls(self) -> Self {
        Self { tls: crate::tls::STATE_BYTES, ..self }
    }

    /// Bytes in tables, which are there in any case.
    pub const fn in_tables(&self) -> usize {
        self.entry + self.timer + self.ring_slot
    }

    /// Bytes that are asked of the allocator.
    pub const fn on_heap(&self) -> usize {
        self.websocket + self.user + self.device + self.tls
    }

    /// The sum of the terms, each block as large as the allocator makes it.
    pub const fn total(&self) -> usize {
        let blocks = block_bytes(self.websocket) + block_bytes(self.user) + block_bytes(self.device);
        self.in_tables() + blocks + block_bytes(self.tls)
    }
}

/// The block that mimalloc has for so many bytes, none for none: up to 64 a multiple of 16, from there on four sizes to each
/// doubling.
const fn block_bytes(bytes: usize) -> usize {
    if bytes <= 64 {
        bytes.next_multiple_of(16)
    } else {
        bytes.next_multiple_of(bytes.next_power_of_two() / 8)
    }
}

const _: () = assert!(
    IdleConnection::new(16, 32).total() <= 408,
    "512 bytes a connection, less the router's part and what the allocator does not fill"
);

const _: () = assert!(
    IdleConnection::new(16, 32).over_tls().total() <= 664,
    "1,024 bytes a connection over TLS, less the same"
);

/// What a gateway may need in memory, term by term, in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryBudget {
    terms: Vec<(&'static str, u64)>,
}

/// What a [`MemoryBudget`] is the sum for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryTerms {
    /// Threads, each with its ring.
    pub threads: usize,
    /// Connections on all of them.
    pub connections: u32,
    /// The sizes of each ring.
    pub ring: ringway_ring::KernelSettings,
    /// Bytes that may wait for one reader.
    pub queue_bytes_max: usize,
    /// Bytes of messages received in part, a core.
    pub partial_bytes_max: usize,
}

impl MemoryBudget {
    /// Sums up.
    pub fn new(terms: MemoryTerms) -> Self {
        let threads = terms.threads as u64;
        let connections = u64::from(terms.connections);
        let ring = terms.ring;
        let ring_queues = u64::from(ring.submissions) * 64 + u64::from(ring.completions) * 16;
        let idle = IdleConnection::new(2 * NAME_BYTES_MAX, NAME_BYTES_MAX);
        let in_tables = idle.in_tables() as u64;
        let on_heap = idle.total() as u64 - in_tables;
        Self {
            terms: vec![
                (
                    "receive buffers: threads x buffers x bytes",
                    threads * u64::from(ring.buffers) * u64::from(ring.buffer_bytes),
                ),
                ("ring queues: threads x (64 x submissions + 16 x completions)", threads * ring_queues),
                (
                    "inboxes: threads x messages x bytes",
                    threads * (INBOX_MESSAGES * (size_of::<crate::core_message::CoreMessage>() + 8)) as u64,
                ),
                (
                    "free send chunks: threads x chunks x bytes",
                    threads
                        * (SEND_CHUNKS_KEPT * SEND_CHUNK_BYTES + SMALL_CHUNKS_KEPT * SMALL_CHUNK_BYTES)
                            as u64,
                ),
                (
                    "memory kept for messages in parts: threads x bytes",
                    threads * crate::connection::ReadMemory::BYTES_MAX as u64,
                ),
                ("tables: connections x (entry + timer + ring's slot)", connections * in_tables),
                ("idle sessions: connections x (WebSocket + longest names)", connections * on_heap),
                (
                    "TLS of idle connections: connections x state",
                    connections * crate::tls::STATE_BYTES as u64,
                ),
                (
                    "if all are in their TLS handshake: connections x state",
                    connections * crate::tls::HANDSHAKE_BYTES_MAX as u64,
                ),
                (
                    "if all break off in a TLS record or hello: connections x chunk",
                    connections * SEND_CHUNK_BYTES as u64,
                ),
                ("if all send at once: connections x chunk", connections * SEND_CHUNK_BYTES as u64),
                (
                    // A piece of a queue is at least half full.
                    "if all read slowly: connections x 2 x queue",
                    connections * 2 * terms.queue_bytes_max as u64,
                ),
                (
                    "if all speak HTTP, or have not yet said what: connections x (input + output)",
                    connections * (HTTP_INPUT_BYTES_MAX + HTTP_OUTPUT_BYTES_MAX) as u64,
                ),
                ("messages in parts: threads x bytes", threads * terms.partial_bytes_max as u64),
            ],
        }
    }

    /// The sum: no load takes more.
    pub fn total(&self) -> u64 {
        self.terms.iter().map(|(_, bytes)| bytes).sum()
    }

    /// Each term with its bytes.
    pub fn terms(&self) -> &[(&'static str, u64)] {
        &self.terms
    }
}

impl std::fmt::Display for MemoryBudget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (name, bytes) in &self.terms {
            writeln!(f, "{:>12} KiB  {name}", bytes.div_ceil(1024))?;
        }
        write!(f, "{:>12} KiB  at most", self.total().div_ceil(1024))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_is_the_sum_of_its_lines() {
        let budget = MemoryBudget::new(MemoryTerms {
            threads: 2,
            connections: 1_000,
            ring: ringway_ring::KernelSettings::default(),
            queue_bytes_max: 262_144,
            partial_bytes_max: 1 << 28,
        });
        assert_eq!(budget.terms()[0].1, 2 * 1_024 * 4_096);
        assert!(budget.total() > 2 * 1_000 * 262_144);
        assert!(budget.to_string().ends_with("at most"));
    }

    #[test]
    fn blocks_are_those_of_the_allocator() {
        let blocks =
            [(0, 0), (1, 16), (24, 32), (64, 64), (65, 80), (113, 128), (128, 128), (129, 160), (145, 160)];
        for (bytes, block) in blocks {
            assert_eq!(block_bytes(bytes), block, "{bytes}");
        }
    }

    #[test]
    fn a_small_table_has_headroom_too() {
        assert_eq!(table_headroom(2), 1);
        assert_eq!(table_headroom(18_000), 1_800);
    }
}
