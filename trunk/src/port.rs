//! The two directions of the trunk, without saying where the other side is: in this process behind an
//! inbox, or on another machine behind a socket.

use std::sync::Arc;

use ringway_protocol::ids::{EndpointId, ShardId};
use ringway_protocol::trunk::{ToEndpoint, ToRouter};

/// The router's workers, as an endpoint reaches them.
pub trait Workers: Send + Sync {
    /// How many there are. A shard's worker is [`ShardId::worker`] of this.
    fn count(&self) -> usize;

    /// Puts a message in a worker's inbox, without waking it.
    ///
    /// # Errors
    /// Gives the message back when the inbox is full: answer the client `unavailable`.
    fn push(&self, worker: usize, message: ToRouter) -> Result<(), Box<ToRouter>>;

    /// Wakes a worker after the last push of a pass. True if that took a system call.
    fn wake(&self, worker: usize) -> bool;

    /// The worker of a shard.
    fn of(&self, shard: ShardId) -> usize {
        shard.worker(self.count())
    }
}

/// One endpoint, as a worker reaches it: a gateway core or the HTTP API.
pub trait Endpoint: Send + Sync {
    /// Puts a message in the endpoint's inbox, without waking it.
    ///
    /// # Errors
    /// Gives the message back when the inbox is full.
    fn push(&self, message: ToEndpoint) -> Result<(), Box<ToEndpoint>>;

    /// Wakes the endpoint after the last push of a pass. True if that took a system call.
    fn wake(&self) -> bool;
}

/// All endpoints, by their number.
#[derive(Clone)]
pub struct Endpoints(Arc<[Arc<dyn Endpoint>]>);

impl Endpoints {
    /// Endpoint `i` of the list has the id `i`.
    pub fn new(endpoints: Vec<Arc<dyn Endpoint>>) -> Self {
        Self(endpoints.into())
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The endpoint of that number, if there is one.
    pub fn get(&self, endpoint: EndpointId) -> Option<&dyn Endpoint> {
        self.0.get(usize::from(endpoint.0)).map(AsRef::as_ref)
    }
}
