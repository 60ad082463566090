//! What all handlers share: the trunk, the store, the keys, the rates.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use ringway_protocol::ids::{EndpointId, Timestamp};
use ringway_protocol::token::KeySet;
use ringway_store_writer::store::{Answer, Query, Store};
use ringway_trunk::Workers;

use crate::cursor::Cursors;
use crate::endpoint::{ApiEndpoint, Trunk};
use crate::limits::REQUEST_DEADLINE;
use crate::metrics::ApiMetrics;
use crate::problem::Problem;
use crate::rate::Rates;

/// What the operator decides about the API. Each field is a setting of the same name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiSettings {
    /// `limits.max_frame_bytes`: longest body, in bytes.
    pub body_bytes_max: usize,
    /// `limits.send_per_s`: requests a second of one user in the long run.
    pub requests_per_second: u32,
    /// `limits.send_burst`: requests at once after a rest.
    pub request_burst: u32,
    /// What cursors are authenticated with.
    pub cursor_key: [u8; 32],
}

/// What the API is made of.
pub struct ApiParts {
    /// What the operator decided.
    pub settings: ApiSettings,
    /// The API's end of the trunk, which the router was given as an endpoint.
    pub endpoint: Arc<ApiEndpoint>,
    /// Its number.
    pub endpoint_id: EndpointId,
    /// The router.
    pub workers: Arc<dyn Workers>,
    /// What history and lists are read from.
    pub store: Arc<dyn Store>,
    /// The keys that sign tokens; replaced at a rotation.
    pub keys: Arc<ArcSwap<KeySet>>,
    /// The development secret, where the development key is in use: `POST /dev/token` answers.
    pub development_secret: Option<[u8; 32]>,
}

/// What handlers share.
pub(crate) struct State {
    pub(crate) body_bytes_max: usize,
    pub(crate) trunk: Trunk,
    pub(crate) keys: Arc<ArcSwap<KeySet>>,
    pub(crate) development_secret: Option<[u8; 32]>,
    pub(crate) rates: Rates,
    pub(crate) cursors: Cursors,
    pub(crate) metrics: Arc<ApiMetrics>,
    store: Arc<dyn Store>,
    draining: AtomicBool,
}

/// The state as extractors see it.
pub(crate) type Shared = Arc<State>;

impl State {
    /// Joins the parts.
    pub(crate) fn new(parts: ApiParts) -> Shared {
        Arc::new(Self {
            body_bytes_max: parts.settings.body_bytes_max,
            trunk: Trunk { endpoint: parts.endpoint, id: parts.endpoint_id, workers: parts.workers },
            keys: parts.keys,
            development_secret: parts.development_secret,
            rates: Rates::new(parts.settings.requests_per_second, parts.settings.request_burst),
            cursors: Cursors::new(&parts.settings.cursor_key),
            metrics: Arc::default(),
            store: parts.store,
            draining: AtomicBool::new(false),
        })
    }

    /// Reads from the store, waiting without a thread.
    ///
    /// # Errors
    /// `unavailable` if the store does not answer in time, or not at all.
    pub(crate) async fn read(&self, query: Query) -> Result<Answer, Problem> {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        // The receiver is gone when the client is; then nobody wants the answer.
        self.store.read(query, Box::new(move |answer| drop(sender.send(answer))));
        match tokio::time::timeout(REQUEST_DEADLINE, receiver).await {
            Ok(Ok(answer)) => Ok(answer?),
            _ => Err(Problem::unavailable()),
        }
    }

    /// Whether sends are accepted now.
    pub(crate) fn is_ready(&self) -> bool {
        !self.is_draining() && self.store.status().accepts
    }

    /// Whether the server is ending.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// From now on the server is ending.
    pub(crate) fn start_draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }
}

/// The wall clock.
pub(crate) fn now() -> Timestamp {
    let since: Duration = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use ringway_protocol::ids::{ConversationId, Epoch, Position};
    use ringway_protocol::token::LIFE_SECONDS_MAX_DEFAULT;
    use ringway_protocol::trunk::ToRouter;
    use ringway_store_writer::store::{ClaimKey, Done, Flush, Status, StoreError};

    /// A store and a router of which nothing is known.
    struct Nothing;

    impl Store for Nothing {
        fn flush(&self, _: Flush, done: Done<Result<Position, StoreError>>) {
            done(Err(StoreError::Unavailable("a test".into())));
        }

        fn read(&self, _: Query, done: Done<Result<Answer, StoreError>>) {
            done(Err(StoreError::Unavailable("a test".into())));
        }

        fn claim(&self, _: ClaimKey, _: ConversationId, done: Done<Result<ConversationId, StoreError>>) {
            done(Err(StoreError::Unavailable("a test".into())));
        }

        fn status(&self) -> Status {
            let (newest, key_time) = (Timestamp(0), Timestamp(0));
            Status { accepts: false, epoch: Epoch(1), position: Position(0), newest, key_time }
        }
    }

    impl Workers for Nothing {
        fn count(&self) -> usize {
            1
        }

        fn push(&self, _: usize, message: ToRouter) -> Result<(), Box<ToRouter>> {
            Err(Box::new(message))
        }

        fn wake(&self, _: usize) -> bool {
            false
        }
    }

    /// An API that is not ready, with a development key and no development logins.
    pub(crate) fn state() -> Shared {
        let keys = KeySet::development(&[7; 32], LIFE_SECONDS_MAX_DEFAULT).unwrap();
        State::new(ApiParts {
            settings: ApiSettings {
                body_bytes_max: 65_536,
                requests_per_second: 50,
                request_burst: 500,
                cursor_key: [1; 32],
            },
            endpoint: ApiEndpoint::new(),
            endpoint_id: EndpointId(1),
            workers: Arc::new(Nothing),
            store: Arc::new(Nothing),
            keys: Arc::new(ArcSwap::from_pointee(keys)),
            development_secret: None,
        })
    }
}
