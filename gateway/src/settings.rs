//! What the operator decides about the socket plane, and what follows from it for this machine.
//!
//! [`Plan`] turns a number of connections into threads and tables: the limit on open files bounds the table
//! of one ring, so several rings, a thread each, share a core where one does not hold its part.

use std::net::SocketAddr;
use std::num::NonZeroUsize;

use ringway_ring::{KernelSettings, SLOTS_MAX};

use crate::context::ConnectionSettings;
use crate::limits::SOCKET_SEND_BUFFER_BYTES_DEFAULT;
use crate::socket_io::{IoChoice, SocketIo};

/// Settings of a gateway. Each field names the setting it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewaySettings {
    /// `listen.wss`: TLS; port 0 takes any.
    pub wss: Option<SocketAddr>,
    /// `listen.ws`: plain.
    pub ws: Option<SocketAddr>,
    /// `gateway.cores`: `None` is one for each CPU that this process may use.
    pub cores: Option<NonZeroUsize>,
    /// `gateway.rings_per_core`: `None` is as many as the limit on open files asks for.
    pub rings_per_core: Option<NonZeroUsize>,
    /// `gateway.io`: io_uring or epoll.
    pub io: IoChoice,
    /// `gateway.connections_max`: on all cores; past it, 503.
    pub connections_max: u32,
    /// `limits.connections_per_address`: on all cores; an IPv6 address counts by its /64.
    pub connections_per_address: u32,
    /// `limits.socket_send_buffer_bytes`: what the kernel takes for one reader; 0 leaves it to the kernel.
    pub socket_send_buffer_bytes: usize,
    /// What concerns each connection.
    pub connection: ConnectionSettings,
}

impl Default for GatewaySettings {
    /// Loopback, any port.
    fn default() -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        Self {
            wss: Some(any),
            ws: Some(any),
            cores: None,
            rings_per_core: None,
            io: IoChoice::Auto,
            connections_max: 16_000,
            connections_per_address: 1_000,
            socket_send_buffer_bytes: SOCKET_SEND_BUFFER_BYTES_DEFAULT,
            connection: ConnectionSettings::default(),
        }
    }
}

/// Threads and tables for this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Cores in use.
    pub cores: usize,
    /// Threads, each with a ring, that share a core.
    pub rings_per_core: usize,
    /// Sizes of each ring.
    pub ring: KernelSettings,
}

/// Why a machine cannot hold what is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The tables that the limit allows are too small.
    #[error(
        "gateway.connections_max is {wanted}, and {threads} rings under a limit of {limit} open files hold \
         {held}. Raise the limit (ulimit -n), raise gateway.rings_per_core, or lower gateway.connections_max"
    )]
    TooManyConnections {
        /// Connections asked for.
        wanted: u32,
        /// Rings there are.
        threads: usize,
        /// RLIMIT_NOFILE.
        limit: u64,
        /// Connections they hold.
        held: u64,
    },
    /// On epoll all connections of the process come under one limit.
    #[error(
        "gateway.connections_max is {wanted}. On epoll each connection is an open file, so that {needed} are needed, \
         and the limit is {limit}. Raise it (ulimit -n {needed}), lower gateway.connections_max, or make io_uring \
         available, whose sockets are not counted together"
    )]
    TooFewDescriptors {
        /// Connections asked for.
        wanted: u32,
        /// Open files that they need.
        needed: u64,
        /// RLIMIT_NOFILE.
        limit: u64,
    },
    /// More threads than the trunk can name.
    #[error(
        "gateway.cores times gateway.rings_per_core is {threads}, and at most {THREADS_MAX} threads have names"
    )]
    TooManyThreads {
        /// Threads asked for.
        threads: usize,
    },
}

/// Threads that a connection's name can tell apart, less one for the HTTP API.
pub(crate) const THREADS_MAX: usize = (1 << 12) - 1;

/// Descriptors that are not sockets of a table: files of the store, listeners, rings, the admin port. A
/// table counts against the limit by its size alone, so this is only a bound on how small a limit works.
const SLOTS_MIN: u64 = 64;

/// On epoll, descriptors that are left to everything else: the store's files, connections of the admin port, rings.
const DESCRIPTORS_RESERVED: u64 = 1_024;

impl Plan {
    /// For `cpus` CPUs and a limit of `descriptors` open files. A table of io_uring's comes under the limit by itself,
    /// those of epoll all together.
    ///
    /// # Errors
    /// [`PlanError`], with what to change.
    pub fn new(
        settings: &GatewaySettings,
        io: &SocketIo,
        cpus: usize,
        descriptors: u64,
    ) -> Result<Plan, PlanError> {
        let cores = settings.cores.map_or(cpus.max(1), NonZeroUsize::get);
        let on_epoll = matches!(io, SocketIo::Epoll { .. });
        let table_max = descriptors.min(u64::from(SLOTS_MAX)).max(SLOTS_MIN);
        // The kernel's hash spreads connections about evenly: a quarter more a table takes up the rest,
        // and what `table_headroom` keeps free.
        let connections = u64::from(settings.connections_max);
        let wanted = |rings: usize| connections.div_ceil((cores * rings) as u64) * 5 / 4 + SLOTS_MIN;
        let rings_per_core = match settings.rings_per_core {
            Some(rings) => rings.get(),
            None if on_epoll => 1,
            None => usize::try_from(wanted(1).div_ceil(table_max)).unwrap_or(THREADS_MAX),
        };
        let threads = cores * rings_per_core;
        if threads > THREADS_MAX {
            return Err(PlanError::TooManyThreads { threads });
        }
        let table_max = if on_epoll {
            table_max.min(descriptors.saturating_sub(DESCRIPTORS_RESERVED) / threads as u64)
        } else {
            table_max
        };
        let slots = wanted(rings_per_core).min(table_max);
        let held = (slots - slots / 10) * threads as u64;
        if held < connections {
            let wanted = settings.connections_max;
            if on_epoll {
                // A tenth of a table stays free, as above.
                let table = connections.div_ceil(threads as u64) * 10 / 9 + 1;
                let needed = table * threads as u64 + DESCRIPTORS_RESERVED;
                return Err(PlanError::TooFewDescriptors { wanted, needed, limit: descriptors });
            }
            return Err(PlanError::TooManyConnections { wanted, threads, limit: descriptors, held });
        }
        let slots = u32::try_from(slots).unwrap_or(SLOTS_MAX);
        let mut ring = KernelSettings { slots, ..KernelSettings::default() };
        if on_epoll {
            // It has no queues of the kernel's.
            (ring.submissions, ring.completions) = (0, 0);
        }
        Ok(Plan { cores, rings_per_core, ring })
    }

    /// Threads in all.
    pub fn threads(&self) -> usize {
        self.cores * self.rings_per_core
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(connections_max: u32, cpus: usize, descriptors: u64) -> Result<Plan, PlanError> {
        plan_on(&io_uring(), connections_max, cpus, descriptors)
    }

    fn plan_on(
        io: &SocketIo,
        connections_max: u32,
        cpus: usize,
        descriptors: u64,
    ) -> Result<Plan, PlanError> {
        let settings = GatewaySettings { connections_max, ..GatewaySettings::default() };
        Plan::new(&settings, io, cpus, descriptors)
    }

    fn io_uring() -> SocketIo {
        SocketIo::find(IoChoice::IoUring).unwrap()
    }

    fn epoll() -> SocketIo {
        SocketIo::find(IoChoice::Epoll).unwrap()
    }

    #[test]
    fn half_a_million_fits_under_twenty_thousand_descriptors() {
        let plan = plan(500_000, 2, 20_000).unwrap();
        assert!(plan.rings_per_core > 1);
        assert!(plan.ring.slots <= 20_000);
        assert!(u64::from(plan.ring.slots) * plan.threads() as u64 * 9 / 10 >= 500_000);
    }

    #[test]
    fn one_ring_a_core_where_it_is_enough() {
        let plan = plan(16_000, 2, 20_000).unwrap();
        assert_eq!((plan.cores, plan.rings_per_core), (2, 1));
        assert!(plan.ring.slots > 8_000);
    }

    #[test]
    fn too_few_rings_are_refused_with_what_they_hold() {
        let settings = GatewaySettings {
            rings_per_core: NonZeroUsize::new(1),
            connections_max: 100_000,
            ..GatewaySettings::default()
        };
        let error = Plan::new(&settings, &io_uring(), 2, 20_000).unwrap_err();
        assert!(error.to_string().contains("rings_per_core"), "{error}");
    }

    #[test]
    fn on_epoll_all_tables_together_leave_descriptors_for_the_rest() {
        for cpus in [1, 2, 3, 16] {
            let plan = plan_on(&epoll(), 16_000, cpus, 20_000).unwrap();
            let sockets = u64::from(plan.ring.slots) * plan.threads() as u64;
            assert!(sockets <= 20_000 - DESCRIPTORS_RESERVED, "{cpus} CPUs: {sockets}");
        }
    }

    #[test]
    fn on_epoll_too_low_a_limit_is_refused_with_one_that_does() {
        for (wanted, cpus) in [(500_000, 2), (19_000, 3), (70_000, 16)] {
            let error = plan_on(&epoll(), wanted, cpus, 20_000).unwrap_err();
            let PlanError::TooFewDescriptors { needed, .. } = error else { panic!("{error}") };
            assert!(error.to_string().contains("ulimit -n"), "{error}");
            plan_on(&epoll(), wanted, cpus, needed).unwrap();
        }
    }
}
