//! A gateway as its process sees it: bind, start, drain, join.
//!
//! ```text
//!   Gateway::bind ──▶ addresses(), endpoints() ──▶ the router starts with them
//!        │
//!        └─ start(workers, …) ──▶ RunningGateway: drain, reload_tls, metrics, join
//! ```
//! Binding opens the ports and makes the cores' inboxes, so that the router can be given them before the
//! first connection is accepted. Starting makes the threads; each makes its own ring.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use ringway_metrics::Text;
use ringway_protocol::ids::EndpointId;
use ringway_protocol::token::KeySet;
use ringway_ring::RingError;
use ringway_trunk::{Endpoint, Inbox, Outbox, Workers, inbox};

use crate::admission::Admission;
use crate::connection::Transport;
use crate::context::ContextParts;
use crate::core_message::{Command, CoreEndpoint, CoreMessage};
use crate::core_thread::{CoreThread, allowed_cpus};
use crate::http_stream::{HttpDoor, HttpServer};
use crate::limits::{INBOX_MESSAGES, MemoryBudget, MemoryTerms};
use crate::listener::{ListenError, listen};
use crate::metrics::{self, CoreMetrics};
use crate::relay::RelayHub;
use crate::settings::{GatewaySettings, Plan, PlanError};
use crate::socket_io::SocketIo;

/// Why a gateway cannot start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// A port cannot be had.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The machine does not hold what is asked.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The kernel refuses a ring, or one broke.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// No descriptor is left for a core's event, or no memory for its thread.
    #[error("a core cannot be set up: {0}. Raise the limits on open files and processes (ulimit -n, -u)")]
    Core(#[from] std::io::Error),
    /// TLS is listened for and no certificate is there.
    #[error(
        "listen.wss is on and there is no certificate: set tls.certificate and tls.key, or listen.wss to off"
    )]
    NoCertificate,
    /// A core's thread panicked: a fault of ours.
    #[error("core {core} panicked; its connections are closed, the others were served on")]
    Panicked {
        /// Which.
        core: usize,
    },
}

/// Ports and inboxes; nobody is served yet.
pub struct Gateway {
    settings: GatewaySettings,
    plan: Plan,
    io: SocketIo,
    cores: Vec<BoundCore>,
    addresses: Addresses,
}

struct BoundCore {
    listeners: Vec<(TcpListener, Transport)>,
    inbox: Inbox<CoreMessage>,
    outbox: Outbox<CoreMessage>,
}

/// Where a gateway listens, ports as the kernel gave them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// TLS.
    pub wss: Option<SocketAddr>,
    /// Plain.
    pub ws: Option<SocketAddr>,
}

/// What a gateway needs of others to serve.
pub struct Started {
    /// The router.
    pub workers: Arc<dyn Workers>,
    /// The endpoint number of the first core; the others follow.
    pub endpoint_base: EndpointId,
    /// Who answers HTTP requests that are no upgrade; without one, 404.
    pub http: Option<Arc<dyn HttpServer>>,
    /// The keys that sign tokens.
    pub keys: Arc<ArcSwap<KeySet>>,
    /// Needed if `listen.wss` is on.
    pub tls: Option<Arc<rustls::ServerConfig>>,
}

/// A gateway that serves.
pub struct RunningGateway {
    threads: Vec<JoinHandle<Result<(), RingError>>>,
    outboxes: Vec<Outbox<CoreMessage>>,
    metrics: Vec<Arc<CoreMetrics>>,
    tls: Option<Arc<ArcSwap<rustls::ServerConfig>>>,
    io: SocketIo,
}

impl Gateway {
    /// Looks at what the kernel gives (and warns if that is epoll where io_uring was hoped for), raises the soft
    /// limit on open files to the hard one, and opens the ports: from here on connections wait in the backlog.
    ///
    /// # Errors
    /// [`GatewayError`], with what to change.
    pub fn bind(settings: GatewaySettings) -> Result<Gateway, GatewayError> {
        let io = SocketIo::find(settings.io)?;
        if let Some(warning) = io.warning() {
            tracing::warn!("{warning}");
        }
        let plan = plan(&settings, &io)?;
        let threads = plan.threads();
        let mut listeners: Vec<Vec<(TcpListener, Transport)>> = (0..threads).map(|_| Vec::new()).collect();
        let mut bind = |address: Option<SocketAddr>, transport, setting| -> Result<_, ListenError> {
            let Some(address) = address else { return Ok(None) };
            let sockets = listen(address, threads, setting, settings.socket_send_buffer_bytes)?;
            let bound = sockets.first().and_then(|socket| socket.local_addr().ok());
            for (core, socket) in listeners.iter_mut().zip(sockets) {
                core.push((socket, transport));
            }
            Ok(bound)
        };
        let wss = bind(settings.wss, Transport::Tls, "listen.wss")?;
        let ws = bind(settings.ws, Transport::Plain, "listen.ws")?;
        let cores = listeners
            .into_iter()
            .map(|listeners| {
                let (inbox, outbox) = inbox(INBOX_MESSAGES)?;
                Ok(BoundCore { listeners, inbox, outbox })
            })
            .collect::<std::io::Result<Vec<BoundCore>>>()?;
        Ok(Gateway { settings, plan, io, cores, addresses: Addresses { wss, ws } })
    }

    /// What [`bind`](Self::bind) would find out about this machine, without a port.
    ///
    /// # Errors
    /// As [`bind`](Self::bind) would have.
    pub fn check(settings: &GatewaySettings) -> Result<SocketIo, GatewayError> {
        let io = SocketIo::find(settings.io)?;
        plan(settings, &io)?;
        Ok(io)
    }

    /// Where it listens.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// What carries the sockets and what the kernel gave, to be printed at start.
    pub fn io(&self) -> &SocketIo {
        &self.io
    }

    /// Threads and tables that were chosen, to be printed at start.
    pub fn plan(&self) -> Plan {
        self.plan
    }

    /// What it may need in memory, to be printed at start.
    pub fn memory_budget(&self) -> MemoryBudget {
        MemoryBudget::new(MemoryTerms {
            threads: self.plan.threads(),
            connections: self.settings.connections_max,
            ring: self.plan.ring,
            queue_bytes_max: self.settings.connection.queue_bytes_max,
            partial_bytes_max: self.settings.connection.partial_bytes_max,
        })
    }

    /// The cores as the router reaches them, in the order of their endpoint numbers.
    pub fn endpoints(&self) -> Vec<Arc<dyn Endpoint>> {
        let endpoint =
            |core: &BoundCore| Arc::new(CoreEndpoint { outbox: core.outbox.clone() }) as Arc<dyn Endpoint>;
        self.cores.iter().map(endpoint).collect()
    }

    /// Starts the threads; returns when all of them serve.
    ///
    /// # Errors
    /// [`GatewayError`]; then nothing runs.
    pub fn start(self, started: Started) -> Result<RunningGateway, GatewayError> {
        if self.addresses.wss.is_some() && started.tls.is_none() {
            return Err(GatewayError::NoCertificate);
        }
        let settings = Arc::new(self.settings.connection.clone());
        let admission =
            Arc::new(Admission::new(self.settings.connections_max, self.settings.connections_per_address));
        let cpus = allowed_cpus();
        let mut running = RunningGateway {
            threads: Vec::new(),
            outboxes: self.cores.iter().map(|core| core.outbox.clone()).collect(),
            metrics: self.cores.iter().map(|_| Arc::default()).collect(),
            io: self.io.clone(),
            tls: started.tls.map(|config| Arc::new(ArcSwap::new(crate::tls::prepared(config)))),
        };
        let relay =
            settings.relay.then(|| Arc::new(RelayHub::new(started.endpoint_base, running.outboxes.clone())));
        let (ready, all_ready) = sync_channel(self.cores.len());
        for (index, core) in self.cores.into_iter().enumerate() {
            let outbox = core.outbox;
            let counted = Arc::clone(&running.metrics[index]);
            let wake = move || counted.http_wakes.add(u64::from(outbox.wake()));
            let thread = CoreThread {
                endpoint: EndpointId(started.endpoint_base.0 + index as u16),
                // Rings of one core share its CPU. With fewer CPUs than cores, the kernel decides.
                cpu: (self.plan.cores <= cpus.len()).then(|| cpus[index / self.plan.rings_per_core]),
                io: self.io.clone(),
                ring: self.plan.ring,
                listeners: core.listeners,
                inbox: core.inbox,
                context: ContextParts {
                    settings: Arc::clone(&settings),
                    keys: Arc::clone(&started.keys),
                    tls: running.tls.clone(),
                    workers: Arc::clone(&started.workers),
                    metrics: Arc::clone(&running.metrics[index]),
                    http: HttpDoor::new(started.http.clone(), Arc::new(wake)),
                    relay: relay.clone(),
                    epoch_ms: 0,
                    seed: random_seed(),
                },
                admission: Arc::clone(&admission),
            };
            let ready = ready.clone();
            let spawned = std::thread::Builder::new()
                .name(format!("gateway-{index}"))
                .spawn(move || thread.run(&ready));
            match spawned {
                Ok(handle) => running.threads.push(handle),
                Err(error) => return Err(running.abandon(error.into())),
            }
        }
        drop(ready);
        for _ in 0..running.threads.len() {
            match all_ready.recv() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Err(running.abandon(error.into())),
                // A thread ended without a word: it panicked, and joining says which.
                Err(_) => break,
            }
        }
        Ok(running)
    }
}

impl RunningGateway {
    /// Takes nobody in any more and sends everybody elsewhere, spread over this time. Returns at once;
    /// [`join`](Self::join) returns when all are gone, two seconds after that time at the latest.
    pub fn drain(&self, over: Duration) {
        self.tell(Command::Drain { over });
    }

    /// Closes everything at once.
    pub fn stop(&self) {
        self.tell(Command::Stop);
    }

    /// New handshakes use this configuration; open connections stay as they are.
    pub fn reload_tls(&self, config: Arc<rustls::ServerConfig>) {
        if let Some(tls) = &self.tls {
            tls.store(crate::tls::prepared(config));
        }
    }

    /// What the cores count.
    pub fn metrics(&self) -> &[Arc<CoreMetrics>] {
        &self.metrics
    }

    /// What carries the sockets.
    pub fn io(&self) -> &SocketIo {
        &self.io
    }

    /// Writes what the cores count on the metrics page.
    pub fn render_metrics(&self, text: &mut Text) {
        metrics::render(&self.metrics, &self.io, text);
    }

    /// Whether a core's thread has ended: all have after a drain; one alone has failed.
    pub fn has_ended_core(&self) -> bool {
        self.threads.iter().any(JoinHandle::is_finished)
    }

    /// Waits until all cores have ended.
    ///
    /// # Errors
    /// The first core that ended badly, and how.
    pub fn join(self) -> Result<(), GatewayError> {
        let mut outcome = Ok(());
        for (core, thread) in self.threads.into_iter().enumerate() {
            let ended = match thread.join() {
                Ok(result) => result.map_err(GatewayError::from),
                Err(_) => Err(GatewayError::Panicked { core }),
            };
            if outcome.is_ok() {
                outcome = ended;
            }
        }
        outcome
    }

    fn tell(&self, command: Command) {
        for (thread, outbox) in self.threads.iter().zip(&self.outboxes) {
            // A full inbox is being emptied: the command waits for its place.
            while outbox.send(CoreMessage::Command(command)).is_err() && !thread.is_finished() {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }

    /// Ends what was started, for a start that failed.
    fn abandon(self, error: GatewayError) -> GatewayError {
        self.stop();
        // What the others say is a consequence of the first error.
        let _ = self.join();
        error
    }
}

/// Raises the soft limit on open files to the hard one, and plans for it.
fn plan(settings: &GatewaySettings, io: &SocketIo) -> Result<Plan, PlanError> {
    let descriptors = ringway_ring::raise_descriptor_limit();
    Plan::new(settings, io, allowed_cpus().len(), descriptors)
}

fn random_seed() -> u64 {
    let mut seed = [0; 8];
    // Session ids need to differ, not to be secret; without randomness the clock's nanoseconds differ.
    if aws_lc_rs::rand::fill(&mut seed).is_err() {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        seed = (now.as_nanos() as u64).to_ne_bytes();
    }
    u64::from_ne_bytes(seed)
}
