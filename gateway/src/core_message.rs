//! What other threads tell a core, through its bounded inbox.
//!
//! Deliveries from the router's workers are nearly all of it; the rest are the few words of who runs the
//! gateway. The HTTP server's threads say only *look there*, by a list of their own (`http_stream.rs`).

use std::time::Duration;

use ringway_protocol::trunk::ToEndpoint;
use ringway_trunk::{Endpoint, Outbox};

use crate::relay::RelayedFrames;

/// One message for a core.
#[derive(Debug)]
pub enum CoreMessage {
    /// From a worker.
    Router(ToEndpoint),
    /// From another core: frames of `/relay`.
    Relayed(RelayedFrames),
    /// From who runs the gateway.
    Command(Command),
}

/// What a core is told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Take nobody in any more, send everybody elsewhere spread over this time, and stop when all are
    /// gone or it is over.
    Drain {
        /// The time.
        over: Duration,
    },
    /// Close everything and stop.
    Stop,
}

/// A core, as a router worker reaches it.
pub(crate) struct CoreEndpoint {
    pub(crate) outbox: Outbox<CoreMessage>,
}

impl Endpoint for CoreEndpoint {
    fn push(&self, message: ToEndpoint) -> Result<(), Box<ToEndpoint>> {
        match self.outbox.push(CoreMessage::Router(message)) {
            Ok(()) => Ok(()),
            Err(CoreMessage::Router(message)) => Err(Box::new(message)),
            Err(CoreMessage::Relayed(_) | CoreMessage::Command(_)) => {
                unreachable!("the inbox gives back what was pushed")
            }
        }
    }

    fn wake(&self) -> bool {
        self.outbox.wake()
    }
}
