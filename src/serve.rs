//! `ringway serve`: gateway, router, store and API in one process.
//!
//! ```text
//!   store ─▶ router ◀─ trunk ─▶ gateway cores   (endpoints 0 … n-1)
//!     └────────┴───────────────▶ API             (endpoint n)
//! ```
//! Made in that order, from what is needed to who needs it, and ended in the other: sockets first, so that
//! what they have sent is answered, the store last. Every start that fails gives back what it took and says
//! why with an exit code (`exit.rs`).

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use ringway_api::{Admin, Api, ApiEndpoint, ApiParts, Renderer};
use ringway_gateway::http_stream::HttpServer;
use ringway_gateway::{Gateway, GatewayError, RunningGateway, Started};
use ringway_protocol::ids::EndpointId;
use ringway_protocol::token::mint_development;
use ringway_protocol::user::UserId;
use ringway_router::{Router, RouterError, RunningRouter};
use ringway_store_writer::EmbeddedStore;
use ringway_store_writer::store::Store;
use ringway_trunk::Endpoints;

use crate::certificate::CertificateFiles;
use crate::data_folder::{DataFolder, secret};
use crate::exit::{Exit, Failure};
use crate::keys::Keys;
use crate::process_metrics::ProcessMetrics;
use crate::run_file::{Published, RunFile};
use crate::settings::Settings;
use crate::signals::{self, Event};
use crate::token_verb::now;
use crate::welcome::Welcome;
use crate::{log, plan};

/// Threads under the HTTP API and the admin port.
const HTTP_THREADS: usize = 2;

/// Users whose logins are printed.
const DEVELOPMENT_USERS: [&str; 2] = ["alice", "bob"];

/// Seconds that their printed tokens live.
const DEVELOPMENT_TOKEN_SECONDS: u64 = 12 * 3600;

/// How often is looked whether a part ended by itself.
const WATCH_INTERVAL: Duration = Duration::from_millis(250);

/// Time for HTTP answers that are under way when everything else is drained.
const HTTP_DRAIN: Duration = Duration::from_secs(2);

/// Serves until a signal ends it.
///
/// # Errors
/// [`Failure`] with the exit code of what could not be had, or of the part that failed.
pub(crate) fn run(settings: &Settings) -> Result<(), Failure> {
    refuse_development_beyond_loopback(settings)?;
    log::start(&settings.log);
    warn_of_planted_bugs();
    let process = ProcessMetrics::begin();
    let folder = DataFolder::create(&settings.data.folder)?;
    let certificate = certificate_files(settings, &folder)?;
    let tls = certificate.as_ref().map(|files| server_config(files, settings)).transpose()?;
    let keys = Keys::open(&settings.auth, &folder)?;
    let resume_key = secret(&folder.resume_key())?;

    let store = EmbeddedStore::open(&folder.store(), plan::store(settings))
        .map_err(|error| Failure::new(Exit::Store, error.to_string()))?;
    let store = Arc::new(store);
    let events = signals::listen(folder.run_file())?;
    let gateway = Gateway::bind(plan::gateway(settings, resume_key)).map_err(gateway_failure)?;
    let admin = bind_admin(settings)?;
    let (addresses, plan) = (gateway.addresses(), gateway.plan());
    let (kernel, memory) = (gateway.kernel().to_string(), gateway.memory_budget().to_string());

    let runtime = http_runtime()?;
    let router =
        Router::new(plan::router(settings), Arc::clone(&store) as Arc<dyn Store>).map_err(router_failure)?;
    let (workers, router_metrics) = (router.workers(), router.metrics());
    let api_endpoint = ApiEndpoint::new();
    let mut endpoints = gateway.endpoints();
    let api_id = EndpointId(u16::try_from(endpoints.len()).expect("the gateway bounds its cores"));
    endpoints.push(Arc::clone(&api_endpoint) as Arc<_>);
    let development_secret = keys.is_development().then(|| secret(&folder.signing_key())).transpose()?;
    let api = Api::new(
        ApiParts {
            settings: plan::api(settings, resume_key),
            endpoint: api_endpoint,
            endpoint_id: api_id,
            workers: Arc::clone(&workers),
            store: Arc::clone(&store) as Arc<dyn Store>,
            keys: Arc::clone(&keys.current),
            development_secret,
        },
        runtime.handle().clone(),
    );

    let worker_count = workers.count();
    let router = router.start(Endpoints::new(endpoints)).map_err(router_failure)?;
    let started = Started {
        workers,
        endpoint_base: EndpointId(0),
        http: Some(Arc::clone(&api) as Arc<dyn HttpServer>),
        keys: Arc::clone(&keys.current),
        tls,
    };
    let gateway = match gateway.start(started) {
        Ok(gateway) => gateway,
        Err(error) => {
            router.stop();
            router.join();
            return Err(gateway_failure(error));
        }
    };

    let cores = gateway.metrics().to_vec();
    let store_metrics = Arc::clone(store.metrics());
    let api_metrics = Arc::clone(&api);
    let metrics: Vec<Renderer> = vec![
        Arc::new(move |text| ringway_gateway::metrics::render(&cores, text)),
        Arc::new(move |text| router_metrics.render(text)),
        Arc::new(move |text| store_metrics.render(text)),
        Arc::new(move |text| api_metrics.render(text)),
        Arc::new(move |text| process.render(text)),
    ];
    let ready = Arc::clone(&api);
    let admin = Admin { is_ready: Arc::new(move || ready.is_ready()), metrics }
        .start(admin, runtime.handle())
        .map_err(|error| Failure::new(Exit::Bind, format!("listen.admin: {error}")))?;

    let run_file = RunFile { pid: std::process::id(), wss: addresses.wss, ws: addresses.ws, admin };
    let published = run_file
        .publish(&folder.run_file())
        .map_err(|error| Failure::new(Exit::Store, format!("{}: {error}", folder.run_file().display())))?;
    Welcome {
        wss: addresses.wss,
        ws: addresses.ws,
        admin,
        data_folder: folder.path(),
        certificate: certificate.as_ref().map(describe_certificate),
        keys: keys.describe(),
        logins: logins(development_secret.as_ref(), settings.auth.max_token_life_s),
        kernel,
        plan,
        workers: worker_count,
        memory,
    }
    .print();
    tracing::info!(wss = ?addresses.wss, ws = ?addresses.ws, %admin, "ready");

    let stop_keys = Arc::new(AtomicBool::new(false));
    let key_thread = keys.keep_fresh(Arc::clone(&stop_keys));
    let server = Server { settings, certificate, keys, gateway, router, store, api, published };
    let outcome = server.until_ended(&events);
    stop_keys.store(true, Ordering::Relaxed);
    if let Some(thread) = key_thread {
        // It ends within its next look at the flag; a fetch under way is not waited for.
        drop(thread);
    }
    runtime.shutdown_timeout(HTTP_DRAIN);
    outcome
}

/// Everything that runs.
struct Server<'a> {
    settings: &'a Settings,
    certificate: Option<CertificateFiles>,
    keys: Keys,
    gateway: RunningGateway,
    router: RunningRouter,
    store: Arc<EmbeddedStore>,
    api: Arc<Api>,
    published: Published,
}

impl Server<'_> {
    /// Serves until a signal or a part that fails, then ends the parts in order.
    fn until_ended(self, events: &Receiver<Event>) -> Result<(), Failure> {
        loop {
            match events.recv_timeout(WATCH_INTERVAL) {
                Ok(Event::Reload) => self.reload(),
                Ok(Event::End) => return self.drain(),
                Err(RecvTimeoutError::Timeout) if self.gateway.has_ended_core() => {
                    tracing::error!("a gateway core ended by itself: the server ends");
                    return self.drain();
                }
                Err(RecvTimeoutError::Timeout) => {}
                // The signals' thread never ends by itself.
                Err(RecvTimeoutError::Disconnected) => return self.drain(),
            }
        }
    }

    /// Reads certificate and keys again. What is bad is told, and the old one serves on.
    fn reload(&self) {
        if let Some(files) = &self.certificate {
            match files.server_config(self.settings.tls.allow_tls12) {
                Ok(config) => {
                    self.gateway.reload_tls(Arc::new(config));
                    tracing::info!("the certificate was read again");
                }
                Err(error) => tracing::error!(%error, "the new certificate is bad; the old one serves on"),
            }
        }
        match self.keys.reload() {
            Ok(()) => tracing::info!(keys = self.keys.describe(), "the token keys were read again"),
            Err(failure) => {
                tracing::error!(
                    reason = failure.message,
                    "the new token keys are bad; the old ones serve on"
                );
            }
        }
    }

    fn drain(self) -> Result<(), Failure> {
        let within = Duration::from_secs(self.settings.drain.within_s);
        tracing::info!(within_s = within.as_secs(), "draining; a second signal ends at once");
        self.api.start_draining();
        self.gateway.drain(within);
        let ended = self.gateway.join();
        if !self.api.wait_drained(HTTP_DRAIN) {
            tracing::warn!("HTTP connections were cut that did not end in time");
        }
        self.router.stop();
        self.router.join();
        self.store.close();
        drop(self.published);
        ended.map_err(|error| Failure::new(Exit::Failure, error.to_string()))?;
        tracing::info!("drained");
        Ok(())
    }
}

/// Refuses what would let anybody in: keys that everyone with the data folder has, or a certificate that
/// no client has a reason to trust, on an address that others reach.
///
/// # Errors
/// [`Exit::DevelopmentKey`].
pub(crate) fn refuse_development_beyond_loopback(settings: &Settings) -> Result<(), Failure> {
    let Some(exposed) = settings.development_beyond_loopback() else { return Ok(()) };
    let mut missing = Vec::new();
    if !settings.has_key_set() {
        missing.push("auth.jwks_file or auth.jwks_url (the keys of your token issuer)");
    }
    if exposed.name == "listen.wss" && settings.tls.certificate.is_none() {
        missing.push("tls.certificate and tls.key");
    }
    Err(Failure::new(
        Exit::DevelopmentKey,
        format!(
            "ringway: {} is {}, which others can reach, and a development key serves loopback only. \
             Set {}, or listen on 127.0.0.1",
            exposed.name,
            exposed.address,
            missing.join(", and ")
        ),
    ))
}

fn warn_of_planted_bugs() {
    let planted = [
        (cfg!(feature = "planted-no-fsync"), "planted-no-fsync: acknowledged messages are NOT synced"),
        (
            cfg!(feature = "planted-memory-dedup"),
            "planted-memory-dedup: duplicates are NOT found after a restart",
        ),
    ];
    for (_, what) in planted.iter().filter(|(is_planted, _)| *is_planted) {
        let banner = "#".repeat(what.len() + 4);
        eprintln!("{banner}\n# {what} #\n{banner}");
        tracing::error!(
            what,
            "THIS BUILD HAS A PLANTED BUG, to prove that the checker finds it. Serve nobody with it"
        );
    }
}

fn certificate_files(settings: &Settings, folder: &DataFolder) -> Result<Option<CertificateFiles>, Failure> {
    if settings.listen.wss.address().is_none() {
        return Ok(None);
    }
    Ok(Some(CertificateFiles::find(&settings.tls, folder)?))
}

fn server_config(
    files: &CertificateFiles,
    settings: &Settings,
) -> Result<Arc<rustls::ServerConfig>, Failure> {
    Ok(Arc::new(files.server_config(settings.tls.allow_tls12)?))
}

fn describe_certificate(files: &CertificateFiles) -> String {
    let kind = if files.is_development { " (development, for localhost)" } else { "" };
    format!("{}{kind}", files.certificate.display())
}

fn bind_admin(settings: &Settings) -> Result<TcpListener, Failure> {
    let address = settings.listen.admin;
    TcpListener::bind(address).map_err(|error| {
        Failure::new(Exit::Bind, format!("listen.admin: {address} cannot be listened on: {error}"))
    })
}

fn http_runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(HTTP_THREADS)
        .thread_name("http")
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Kernel, format!("no threads for HTTP: {error}")))
}

fn logins(secret: Option<&[u8; 32]>, life_max: u64) -> Vec<(&'static str, String)> {
    let Some(secret) = secret else { return Vec::new() };
    let life = DEVELOPMENT_TOKEN_SECONDS.min(life_max);
    let login = |name: &'static str| {
        let user = UserId::new("", name).expect("a short name");
        (name, mint_development(secret, &user, None, now(), life))
    };
    DEVELOPMENT_USERS.map(login).to_vec()
}

fn gateway_failure(error: GatewayError) -> Failure {
    let exit = match &error {
        GatewayError::Listen(_) => Exit::Bind,
        GatewayError::NoCertificate => Exit::Keys,
        GatewayError::Plan(_) | GatewayError::Ring(_) | GatewayError::Core(_) => Exit::Kernel,
        GatewayError::Panicked { .. } => Exit::Failure,
    };
    Failure::new(exit, error.to_string())
}

fn router_failure(error: RouterError) -> Failure {
    let exit = match &error {
        RouterError::Setting { .. } => Exit::Usage,
        RouterError::System(_) => Exit::Kernel,
    };
    Failure::new(exit, error.to_string())
}
