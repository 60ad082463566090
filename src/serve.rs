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
use crate::trace::{Trace, TracedStore};
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
    let ground = Ground::prepare(settings)?;
    let events = signals::listen(ground.folder.run_file())?;
    let runtime = http_runtime()?;
    let stop_keys = Arc::new(AtomicBool::new(false));
    ground.keys.keep_fresh(Arc::clone(&stop_keys))?;

    let (server, welcome) = Server::start(settings, ground, process, runtime.handle())?;
    welcome.print();
    let outcome = server.until_ended(&events);
    stop_keys.store(true, Ordering::Relaxed);
    runtime.shutdown_timeout(HTTP_DRAIN);
    outcome
}

/// What is kept on this machine and read before anything listens.
struct Ground {
    folder: DataFolder,
    certificate: Option<CertificateFiles>,
    tls: Option<Arc<rustls::ServerConfig>>,
    keys: Keys,
    development_secret: Option<[u8; 32]>,
    resume_key: [u8; 32],
    store: Arc<EmbeddedStore>,
}

impl Ground {
    fn prepare(settings: &Settings) -> Result<Self, Failure> {
        let folder = DataFolder::create(&settings.data.folder)?;
        let certificate = certificate_files(settings, &folder)?;
        let tls =
            certificate.as_ref().map(|files| files.server_config(settings.tls.allow_tls12)).transpose()?;
        let keys = Keys::open(&settings.auth, &folder)?;
        let development_secret = keys.is_development().then(|| secret(&folder.signing_key())).transpose()?;
        let resume_key = secret(&folder.resume_key())?;
        let store = EmbeddedStore::open(&folder.store(), plan::store(settings))
            .map_err(|error| Failure::new(Exit::Store, error.to_string()))?;
        let (tls, store) = (tls.map(Arc::new), Arc::new(store));
        Ok(Self { folder, certificate, tls, keys, development_secret, resume_key, store })
    }
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

impl<'a> Server<'a> {
    /// Starts every part, from the router to the admin port.
    fn start(
        settings: &'a Settings,
        ground: Ground,
        process: ProcessMetrics,
        http: &tokio::runtime::Handle,
    ) -> Result<(Self, Welcome), Failure> {
        let gateway = Gateway::bind(plan::gateway(settings, ground.resume_key)).map_err(gateway_failure)?;
        let admin = bind_admin(settings)?;
        let mut welcome = welcome(settings, &ground, &gateway);
        let addresses = gateway.addresses();
        let mut store = Arc::clone(&ground.store) as Arc<dyn Store>;
        let trace = open_trace(settings)?;
        if let Some(trace) = &trace {
            store = Arc::new(TracedStore { store, trace: Arc::clone(trace) });
        }
        let mut router = Router::new(plan::router(settings), Arc::clone(&store)).map_err(router_failure)?;
        if let Some(trace) = trace {
            router.set_observer(trace);
        }
        let workers = router.workers();
        welcome.workers = workers.count();
        let mut endpoints = gateway.endpoints();
        let api_endpoint = ApiEndpoint::new();
        let api_id = EndpointId(u16::try_from(endpoints.len()).expect("the gateway bounds its cores"));
        endpoints.push(Arc::clone(&api_endpoint) as Arc<_>);
        let parts = ApiParts {
            settings: plan::api(settings, ground.resume_key),
            endpoint: api_endpoint,
            endpoint_id: api_id,
            workers: Arc::clone(&workers),
            store,
            keys: Arc::clone(&ground.keys.current),
            development_secret: ground.development_secret,
        };
        let api = Api::new(parts, http.clone());
        let router = router.start(Endpoints::new(endpoints)).map_err(router_failure)?;
        let started = Started {
            workers,
            endpoint_base: EndpointId(0),
            http: Some(Arc::clone(&api) as Arc<dyn HttpServer>),
            keys: Arc::clone(&ground.keys.current),
            tls: ground.tls,
        };
        let gateway = match gateway.start(started) {
            Ok(gateway) => gateway,
            Err(error) => {
                router.stop();
                router.join();
                return Err(gateway_failure(error));
            }
        };
        let ready = Arc::clone(&api);
        let metrics = renderers(&gateway, &router, &ground.store, &api, process);
        welcome.admin = Admin { is_ready: Arc::new(move || ready.is_ready()), metrics }
            .start(admin, http)
            .map_err(|error| Failure::new(Exit::Bind, format!("listen.admin: {error}")))?;
        let run =
            RunFile { pid: std::process::id(), wss: addresses.wss, ws: addresses.ws, admin: welcome.admin };
        let run_file = ground.folder.run_file();
        let published = run
            .publish(&run_file)
            .map_err(|error| Failure::new(Exit::Store, format!("{}: {error}", run_file.display())))?;
        tracing::info!(wss = ?addresses.wss, ws = ?addresses.ws, admin = %welcome.admin, "ready");
        let Ground { certificate, keys, store, .. } = ground;
        Ok((Self { settings, certificate, keys, gateway, router, store, api, published }, welcome))
    }

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

/// The trace, where one is asked for.
fn open_trace(settings: &Settings) -> Result<Option<Arc<Trace>>, Failure> {
    let Some(path) = &settings.diagnostics.trace else { return Ok(None) };
    let opened = Trace::open(path).map_err(|error| {
        Failure::new(Exit::Store, format!("diagnostics.trace: {}: {error}", path.display()))
    })?;
    Ok(Some(opened))
}

/// Refuses what would let anybody in: keys that everyone with the data folder has, or a certificate that
/// no client has a reason to trust, on an address that others reach.
///
/// # Errors
/// [`Exit::DevelopmentKey`].
fn refuse_development_beyond_loopback(settings: &Settings) -> Result<(), Failure> {
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

/// What `ringway check` looks at beyond the settings themselves: would `serve` refuse them here? Says what will
/// carry the sockets. It opens no port, makes no file and asks nobody.
///
/// # Errors
/// As [`run`] would have.
pub(crate) fn check(settings: &Settings) -> Result<(), Failure> {
    refuse_development_beyond_loopback(settings)?;
    let folder = DataFolder::at(&settings.data.folder);
    if settings.tls.certificate.is_some() {
        CertificateFiles::find(&settings.tls, &folder)?.server_config(settings.tls.allow_tls12)?;
    }
    if settings.auth.jwks_file.is_some() {
        Keys::open(&settings.auth, &folder)?;
    }
    plan::router(settings).check().map_err(router_failure)?;
    // The key that resume cursors are authenticated with has no part in this, and may not be made yet.
    let io = Gateway::check(&plan::gateway(settings, [0; 32])).map_err(gateway_failure)?;
    println!("\n# kernel: {io}");
    Ok(())
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

/// What is known before the parts run; workers and the admin port follow.
fn welcome(settings: &Settings, ground: &Ground, gateway: &Gateway) -> Welcome {
    let addresses = gateway.addresses();
    Welcome {
        wss: addresses.wss,
        ws: addresses.ws,
        admin: settings.listen.admin,
        data_folder: ground.folder.path().to_owned(),
        certificate: ground.certificate.as_ref().map(describe_certificate),
        keys: ground.keys.describe(),
        logins: logins(ground.development_secret.as_ref(), settings.auth.max_token_life_s),
        kernel: gateway.io().to_string(),
        plan: gateway.plan(),
        workers: 0,
        memory: gateway.memory_budget().to_string(),
    }
}

/// The metrics of every part, in the order of a message's way.
fn renderers(
    gateway: &RunningGateway,
    router: &RunningRouter,
    store: &EmbeddedStore,
    api: &Arc<Api>,
    process: ProcessMetrics,
) -> Vec<Renderer> {
    let (cores, io) = (gateway.metrics().to_vec(), gateway.io().clone());
    let (router, store, api) = (router.metrics(), Arc::clone(store.metrics()), Arc::clone(api));
    vec![
        Arc::new(move |text| ringway_gateway::metrics::render(&cores, &io, text)),
        Arc::new(move |text| router.render(text)),
        Arc::new(move |text| store.render(text)),
        Arc::new(move |text| api.render(text)),
        Arc::new(move |text| process.render(text)),
    ]
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
