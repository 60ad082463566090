//! The admin port: whether the server lives, whether it accepts sends, and its metrics.
//!
//! A listener of its own, so that it answers when every socket is taken; it tells no ids and asks for no
//! login: it belongs on a private address.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use axum::Router;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{StatusCode, header};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use ringway_metrics::Text;
use tokio::sync::Semaphore;

use crate::limits::{ADMIN_CONNECTIONS_MAX, HEAD_DEADLINE};

/// Writes the metrics of one part.
pub type Renderer = Arc<dyn Fn(&mut Text) + Send + Sync>;

/// What the admin port tells.
#[derive(Clone)]
pub struct Admin {
    /// Whether sends are accepted now.
    pub is_ready: Arc<dyn Fn() -> bool + Send + Sync>,
    /// Every part's metrics, in the order of the page.
    pub metrics: Vec<Renderer>,
}

impl Admin {
    /// Serves a listener that is bound already, on `runtime`, until the process ends.
    ///
    /// # Errors
    /// If the listener cannot be made non-blocking or has no address.
    pub fn start(
        self,
        listener: TcpListener,
        runtime: &tokio::runtime::Handle,
    ) -> std::io::Result<SocketAddr> {
        let address = listener.local_addr()?;
        listener.set_nonblocking(true)?;
        let _inside = runtime.enter();
        let listener = tokio::net::TcpListener::from_std(listener)?;
        runtime.spawn(accept(listener, self.router()));
        Ok(address)
    }

    fn router(self) -> Router {
        let Admin { is_ready, metrics } = self;
        Router::new()
            .route("/livez", get(|| async { "alive\n" }))
            .route("/readyz", get(move || async move { readiness(is_ready()) }))
            .route("/metrics", get(move || async move { page(&metrics) }))
            .fallback(|| async {
                (StatusCode::NOT_FOUND, "the admin port has /livez, /readyz and /metrics\n")
            })
    }
}

fn readiness(ready: bool) -> Response {
    if ready {
        (StatusCode::OK, "ready\n").into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "sends are not accepted now\n").into_response()
    }
}

fn page(metrics: &[Renderer]) -> Response {
    let mut text = Text::default();
    for render in metrics {
        render(&mut text);
    }
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text.finish()).into_response()
}

async fn accept(listener: tokio::net::TcpListener, router: Router) {
    let places = Arc::new(Semaphore::new(ADMIN_CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors, mostly: others give some back meanwhile.
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            continue;
        };
        let service = TowerToHyperService::new(router.clone());
        tokio::spawn(async move {
            // A scraper that breaks off is its own affair.
            let _ = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_DEADLINE)
                .serve_connection(TokioIo::new(stream), service)
                .await;
            drop(place);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;
    use std::sync::atomic::{AtomicBool, Ordering};
    use tower::ServiceExt as _;

    #[tokio::test]
    async fn readiness_follows_the_store_and_metrics_join_all_parts() {
        let ready = Arc::new(AtomicBool::new(true));
        let seen = Arc::clone(&ready);
        let part = |name: &'static str| -> Renderer {
            Arc::new(move |text: &mut Text| text.counter(name, "Help.", [(String::new(), 1)]))
        };
        let router = Admin {
            is_ready: Arc::new(move || seen.load(Ordering::Relaxed)),
            metrics: vec![part("one_total"), part("other_total")],
        }
        .router();
        let ask = |path: &str| {
            let request = Request::builder().uri(path).body(axum::body::Body::empty()).unwrap();
            router.clone().oneshot(request)
        };
        assert_eq!(ask("/livez").await.unwrap().status(), StatusCode::OK);
        assert_eq!(ask("/readyz").await.unwrap().status(), StatusCode::OK);
        ready.store(false, Ordering::Relaxed);
        assert_eq!(ask("/readyz").await.unwrap().status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(ask("/livez").await.unwrap().status(), StatusCode::OK);
        let page = ask("/metrics").await.unwrap();
        let page = axum::body::to_bytes(page.into_body(), 1 << 20).await.unwrap();
        assert_eq!(page.iter().filter(|byte| **byte == b'\n').count(), 6);
    }
}
