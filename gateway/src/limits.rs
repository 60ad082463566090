//! Every bound of the socket plane, with unit and reason, and what they add up to in memory.
//!
//! What a client is promised has its bounds in `ringway_protocol::limits`; here are those of the machine.
//! [`MemoryBudget`] is the sum, term by term, printed at start: a process that keeps these bounds cannot
//! need more.

/// Bytes from a client that may wait for the HTTP server to read, a connection.
pub const HTTP_INPUT_BYTES_MAX: usize = 64 * 1024;

/// Bytes of an HTTP answer that may wait for the socket, a connection.
pub const HTTP_OUTPUT_BYTES_MAX: usize = 64 * 1024;

/// Bytes of one send: a whole TLS record of 16 KiB with its frame, exactly a size class of the allocator.
pub const SEND_CHUNK_BYTES: usize = 20 * 1024;

/// Free send chunks a core keeps: a fan-out to a thousand sockets allocates nothing after the first.
pub const SEND_CHUNKS_KEPT: usize = 1_024;

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

const _: () = assert!(SEND_CHUNK_BYTES >= 16 * 1024 + 256, "a full TLS record fits in one send");

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
        let slot_bytes = (crate::slots::SLOT_BYTES + crate::timer_wheel::TIMER_BYTES) as u64 + 16;
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
                    threads * (SEND_CHUNKS_KEPT * SEND_CHUNK_BYTES) as u64,
                ),
                ("idle connections: connections x slot", connections * slot_bytes),
                ("if all send at once: connections x chunk", connections * SEND_CHUNK_BYTES as u64),
                ("if all read slowly: connections x queue", connections * terms.queue_bytes_max as u64),
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
        assert!(budget.total() > 1_000 * 262_144);
        assert!(budget.to_string().ends_with("at most"));
    }

    #[test]
    fn a_small_table_has_headroom_too() {
        assert_eq!(table_headroom(2), 1);
        assert_eq!(table_headroom(18_000), 1_800);
    }
}
