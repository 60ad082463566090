//! The thread of one core: pinned to a CPU, it makes its ring (a ring belongs to the thread that made it)
//! and runs the event loop until told to stop.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use ringway_protocol::ids::EndpointId;
use ringway_ring::{Driver, EpollDriver, KernelDriver, KernelSettings, Ring, RingError};
use ringway_trunk::Inbox;
use rustix::thread::CpuSet;

use crate::admission::Admission;
use crate::clock::wall_clock;
use crate::connection::Transport;
use crate::context::{Context, ContextParts};
use crate::core_message::CoreMessage;
use crate::event_loop::{EventLoop, EventLoopParts};
use crate::socket_io::SocketIo;

/// All that a core's thread begins with.
pub(crate) struct CoreThread {
    pub(crate) endpoint: EndpointId,
    /// The CPU to stay on, if there are enough of them.
    pub(crate) cpu: Option<usize>,
    /// Which driver its ring is on.
    pub(crate) io: SocketIo,
    pub(crate) ring: KernelSettings,
    pub(crate) listeners: Vec<(TcpListener, Transport)>,
    pub(crate) inbox: Inbox<CoreMessage>,
    pub(crate) context: ContextParts,
    pub(crate) admission: Arc<Admission>,
}

impl CoreThread {
    /// The thread's life. Says through `ready` whether it could begin.
    pub(crate) fn run(self, ready: &SyncSender<Result<(), RingError>>) -> Result<(), RingError> {
        if let Some(cpu) = self.cpu {
            pin(cpu);
        }
        let sizes = self.ring;
        match self.io {
            SocketIo::IoUring(_) => self.serve(KernelDriver::new(sizes), ready),
            SocketIo::Epoll { .. } => self.serve(EpollDriver::new(sizes), ready),
        }
    }

    fn serve<D: Driver>(
        self,
        driver: Result<D, RingError>,
        ready: &SyncSender<Result<(), RingError>>,
    ) -> Result<(), RingError> {
        let (endpoint, io) = (self.endpoint, self.io.name());
        let event_loop = driver.and_then(|driver| {
            let ring = Ring::new(driver);
            let epoch_ms = wall_clock().0.saturating_sub(ring.now_milliseconds());
            let context = Context::new(ContextParts { epoch_ms, ..self.context });
            EventLoop::new(EventLoopParts {
                endpoint,
                ring,
                listeners: self.listeners,
                inbox: self.inbox,
                context,
                admission: self.admission,
                follow_wall_clock: true,
            })
            .map_err(RingError::Enter)
        });
        let mut event_loop = match event_loop {
            Ok(event_loop) => event_loop,
            Err(error) => {
                // Who starts us waits for this word; if it is gone, nobody wants the thread any more.
                let _ = ready.send(Err(error));
                return Ok(());
            }
        };
        let _ = ready.send(Ok(()));
        tracing::debug!(core = %endpoint, cpu = ?self.cpu, io, "a core serves");
        event_loop.run().inspect_err(|error| {
            tracing::error!(core = %endpoint, %error, "a core lost its ring: its connections are closed");
        })
    }
}

/// The CPUs that this process may use.
pub(crate) fn allowed_cpus() -> Vec<usize> {
    let allowed = rustix::thread::sched_getaffinity(None);
    let cpus = |set: CpuSet| (0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect::<Vec<usize>>();
    match allowed.map(cpus) {
        Ok(cpus) if !cpus.is_empty() => cpus,
        _ => (0..std::thread::available_parallelism().map_or(1, usize::from)).collect(),
    }
}

fn pin(cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu);
    if let Err(error) = rustix::thread::sched_setaffinity(None, &set) {
        tracing::warn!(cpu, %error, "a core is not pinned: the kernel moves it as it likes");
    }
}
