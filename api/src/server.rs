//! HTTP/1.1 on the connections that gateway cores hand over: hyper on a small tokio runtime of its own.
//!
//! A core gives a connection whose first request is no upgrade; from there on it is an ordinary byte stream
//! (`ringway_gateway::http_stream`). Connections are bounded, a head has a deadline, and so has silence.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use ringway_gateway::http_stream::{HttpServer, HttpStream};
use ringway_metrics::Text;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::limits::{CONNECTIONS_MAX, HEAD_BYTES_MAX, HEAD_DEADLINE};
use crate::routes;
use crate::state::{ApiParts, Shared, State};

/// What a connection gets when there are too many.
const BUSY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\ncontent-length: 0\r\n\
    connection: close\r\n\r\n";

/// The HTTP API of one process.
pub struct Api {
    state: Shared,
    router: Router,
    runtime: tokio::runtime::Handle,
    places: Arc<Semaphore>,
    draining: watch::Sender<bool>,
}

impl Api {
    /// An API whose handlers run on `runtime`.
    pub fn new(parts: ApiParts, runtime: tokio::runtime::Handle) -> Arc<Self> {
        let state = State::new(parts);
        Arc::new(Self {
            router: routes::router(Arc::clone(&state)),
            state,
            runtime,
            places: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
            draining: watch::Sender::new(false),
        })
    }

    /// Whether sends are accepted now: what `/readyz` says.
    pub fn is_ready(&self) -> bool {
        self.state.is_ready()
    }

    /// Writes what was counted.
    pub fn render(&self, text: &mut Text) {
        self.state.metrics.render(text, self.state.trunk.endpoint.outstanding());
    }

    /// Begins the end: requests in work are answered, connections close behind their answer.
    pub fn start_draining(&self) {
        self.state.start_draining();
        self.draining.send_replace(true);
    }

    /// Waits until no connection is left, at most so long. Whether it came to that.
    pub fn wait_drained(&self, at_most: Duration) -> bool {
        let all = u32::try_from(CONNECTIONS_MAX).expect("it fits");
        let places = Arc::clone(&self.places);
        self.runtime
            .block_on(async move { tokio::time::timeout(at_most, places.acquire_many(all)).await.is_ok() })
    }

    fn accept(&self, stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) {
        match Arc::clone(&self.places).try_acquire_owned() {
            Ok(place) => {
                let connection = Connection {
                    state: Arc::clone(&self.state),
                    router: self.router.clone(),
                    draining: self.draining.subscribe(),
                    _place: place,
                };
                self.runtime.spawn(connection.run(stream));
            }
            Err(_) => {
                self.state.metrics.connection_refused();
                self.runtime.spawn(refuse(stream));
            }
        }
    }
}

impl HttpServer for Api {
    fn serve(&self, stream: HttpStream, _peer: SocketAddr, _secure: bool) {
        self.accept(stream);
    }
}

async fn refuse(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    // If it cannot be told, it will see the end.
    let _ = stream.write_all(BUSY).await;
    let _ = stream.shutdown().await;
}

/// One connection and its place among those that may be open.
struct Connection {
    state: Shared,
    router: Router,
    draining: watch::Receiver<bool>,
    _place: OwnedSemaphorePermit,
}

impl Connection {
    async fn run(mut self, stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) {
        self.state.metrics.connection_opened();
        let serving = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_DEADLINE)
            .max_buf_size(HEAD_BYTES_MAX)
            .half_close(true)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(self.router.clone()));
        let mut serving = std::pin::pin!(serving);
        let ended = tokio::select! {
            ended = serving.as_mut() => Some(ended),
            () = started(&mut self.draining) => None,
        };
        match ended {
            Some(ended) => log_end(ended),
            None => {
                serving.as_mut().graceful_shutdown();
                log_end(serving.await);
            }
        }
        self.state.metrics.connection_closed();
    }
}

/// Waits until the drain begins.
async fn started(draining: &mut watch::Receiver<bool>) {
    // The sender lives as long as the server; were it gone, the end has begun as well.
    let _ = draining.wait_for(|draining| *draining).await;
}

fn log_end(ended: Result<(), hyper::Error>) {
    // A client that breaks off is its own affair.
    if let Err(error) = ended {
        tracing::debug!(%error, "an HTTP connection ended early");
    }
}
