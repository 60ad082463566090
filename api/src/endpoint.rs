//! The API's end of the trunk: it asks router workers and takes exactly one reply a request.
//!
//! To the router it is one endpoint more, whose connections never attach: nothing is fanned out to it. A
//! worker that pushes a reply never waits: the table is held for one insert or one removal, and the task
//! that waits is woken outside of it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ringway_protocol::ids::{ConnectionId, EndpointId, RequestId};
use ringway_protocol::trunk::{Operation, Outcome, Refusal, ToEndpoint, ToRouter};
use ringway_protocol::user::UserId;
use ringway_trunk::{Endpoint, Workers};
use tokio::sync::oneshot;

use crate::limits::{REQUEST_DEADLINE, REQUESTS_MAX};
use crate::problem::Problem;

type Reply = Result<Outcome, Refusal>;

/// The API as the router reaches it.
pub struct ApiEndpoint {
    waiting: Mutex<HashMap<u64, oneshot::Sender<Reply>>>,
    next: AtomicU64,
}

impl ApiEndpoint {
    /// An endpoint with nothing outstanding.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Arc<Self> {
        Arc::new(Self { waiting: Mutex::default(), next: AtomicU64::new(1) })
    }

    /// Requests whose reply is outstanding.
    pub fn outstanding(&self) -> usize {
        self.table().len()
    }

    fn table(&self) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<Reply>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn register(self: &Arc<Self>) -> Option<(Waiting, oneshot::Receiver<Reply>)> {
        let (sender, receiver) = oneshot::channel();
        let request = self.next.fetch_add(1, Ordering::Relaxed);
        let mut table = self.table();
        if table.len() >= REQUESTS_MAX {
            return None;
        }
        table.insert(request, sender);
        drop(table);
        Some((Waiting { endpoint: Arc::clone(self), request }, receiver))
    }
}

/// Takes the request out of the table however its handler ends, also when the client went away.
struct Waiting {
    endpoint: Arc<ApiEndpoint>,
    request: u64,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.endpoint.table().remove(&self.request);
    }
}

impl Endpoint for ApiEndpoint {
    fn push(&self, message: ToEndpoint) -> Result<(), Box<ToEndpoint>> {
        // Fan-out, watermarks and closes are for connections that attached; the API has none.
        if let ToEndpoint::Reply { request, outcome, .. } = message {
            let sender = self.table().remove(&request.0);
            if let Some(sender) = sender {
                // Nobody waits any more when the client went away meanwhile.
                let _ = sender.send(outcome);
            }
        }
        Ok(())
    }

    fn wake(&self) -> bool {
        false
    }
}

/// The router as the API asks it.
#[derive(Clone)]
pub(crate) struct Trunk {
    pub(crate) endpoint: Arc<ApiEndpoint>,
    pub(crate) id: EndpointId,
    pub(crate) workers: Arc<dyn Workers>,
}

impl Trunk {
    /// Asks the worker of the operation's shard and waits for its reply.
    ///
    /// # Errors
    /// [`Problem`] of the refusal; `unavailable` if the worker's inbox is full or the deadline passed.
    pub(crate) async fn ask(&self, user: &UserId, operation: Operation) -> Result<Outcome, Problem> {
        let worker = self.workers.of(operation.shard(user));
        let (waiting, receiver) = self.endpoint.register().ok_or_else(Problem::unavailable)?;
        let request = ToRouter::Request {
            connection: ConnectionId::new(self.id, 0, 0),
            request: RequestId(waiting.request),
            user: user.clone(),
            operation,
        };
        self.workers.push(worker, request).map_err(|_| Problem::unavailable())?;
        self.workers.wake(worker);
        match tokio::time::timeout(REQUEST_DEADLINE, receiver).await {
            Ok(Ok(outcome)) => outcome.map_err(Problem::from),
            // Late, or the router ended: whether it is stored is unknown.
            _ => Err(Problem::unavailable()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringway_protocol::ids::{ConversationId, Seq};

    /// One worker that answers as told, on the caller's thread.
    struct OneWorker {
        endpoint: Arc<ApiEndpoint>,
        answer: Option<Reply>,
        full: bool,
    }

    impl Workers for OneWorker {
        fn count(&self) -> usize {
            1
        }

        fn push(&self, _: usize, message: ToRouter) -> Result<(), Box<ToRouter>> {
            if self.full {
                return Err(Box::new(message));
            }
            if let (ToRouter::Request { connection, request, .. }, Some(outcome)) = (message, &self.answer) {
                assert_eq!(connection.endpoint(), EndpointId(7));
                self.endpoint
                    .push(ToEndpoint::Reply { connection, request, outcome: outcome.clone() })
                    .unwrap();
            }
            Ok(())
        }

        fn wake(&self, _: usize) -> bool {
            false
        }
    }

    async fn ask(answer: Option<Reply>, full: bool) -> (Result<Outcome, Problem>, usize) {
        let endpoint = ApiEndpoint::new();
        let workers = Arc::new(OneWorker { endpoint: Arc::clone(&endpoint), answer, full });
        let trunk = Trunk { endpoint: Arc::clone(&endpoint), id: EndpointId(7), workers };
        let user = UserId::new("", "alice").unwrap();
        let outcome = trunk.ask(&user, Operation::Delete { conversation: ConversationId(1) }).await;
        (outcome, endpoint.outstanding())
    }

    #[tokio::test(start_paused = true)]
    async fn a_reply_a_refusal_a_full_inbox_and_a_silent_worker_leave_nothing_behind() {
        let changed = Outcome::Changed { seq: Some(Seq(3)) };
        assert_eq!(ask(Some(Ok(changed.clone())), false).await, (Ok(changed), 0));
        assert_eq!(ask(Some(Err(Refusal::NotFound)), false).await, (Err(Problem::not_found()), 0));
        assert_eq!(ask(None, true).await, (Err(Problem::unavailable()), 0));
        assert_eq!(ask(None, false).await, (Err(Problem::unavailable()), 0));
    }
}
