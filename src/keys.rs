//! Where the keys of tokens come from: the development secret, the issuer's key set in a file, or at a URL.
//!
//! A key set at a URL is fetched at the start, every five minutes, and soon after a token named a key that
//! is not known (the issuer rotates its keys), but never twice within ten seconds, whatever clients send.
//! What was fetched is kept on disk: with the issuer down, the server starts and serves on the last keys.
//!
//! The client is `ureq`: blocking, on one thread of its own, with the TLS and the cryptography that are in
//! the process already. hyper's client would bring a connector and a pool for one request in five minutes.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use ringway_protocol::token::{KeySet, Policy};

use crate::data_folder::{DataFolder, secret, write_private};
use crate::exit::{Exit, Failure};
use crate::settings::Auth;

/// Time between fetches.
const REFRESH: Duration = Duration::from_secs(300);

/// Least time between fetches, whatever unknown keys clients name.
const REFRESH_MIN: Duration = Duration::from_secs(10);

/// Time for one fetch in all.
const FETCH_DEADLINE: Duration = Duration::from_secs(10);

/// Longest key set that is read, in bytes.
const KEY_SET_BYTES_MAX: u64 = 1024 * 1024;

/// The keys in use, replaced at a reload or a rotation.
#[derive(Clone)]
pub(crate) struct Keys {
    /// What verifies tokens now.
    pub(crate) current: Arc<ArcSwap<KeySet>>,
    source: Source,
    policy: Policy,
    unknown: Arc<AtomicU64>,
}

#[derive(Clone)]
enum Source {
    Development,
    File(std::path::PathBuf),
    Url { url: String, cache: std::path::PathBuf },
}

impl Keys {
    /// Reads the keys that the settings name.
    ///
    /// # Errors
    /// [`Exit::Keys`] if there are none: a bad file, or a URL that does not answer and was never fetched.
    pub(crate) fn open(auth: &Auth, folder: &DataFolder) -> Result<Self, Failure> {
        let policy = Policy {
            issuer: auth.issuer.clone(),
            audience: auth.audience.clone(),
            life_seconds_max: auth.max_token_life_s,
        };
        let source = match (&auth.jwks_file, &auth.jwks_url) {
            (Some(path), _) => Source::File(path.clone()),
            (None, Some(url)) => Source::Url { url: url.clone(), cache: folder.jwks_cache() },
            (None, None) => Source::Development,
        };
        let first = match &source {
            Source::Development => {
                let secret = secret(&folder.signing_key())?;
                KeySet::development(&secret, policy.life_seconds_max)
                    .map_err(|error| Failure::new(Exit::Keys, error.to_string()))?
            }
            Source::File(path) => read_file(path, &policy)?,
            Source::Url { url, cache } => first_from_url(url, cache, &policy)?,
        };
        report_skipped(&first);
        let unknown = first.unknown_keys();
        Ok(Self { current: Arc::new(ArcSwap::from_pointee(first)), source, policy, unknown })
    }

    /// Whether the development key is in use.
    pub(crate) fn is_development(&self) -> bool {
        matches!(self.source, Source::Development)
    }

    /// What they are, for a person.
    pub(crate) fn describe(&self) -> String {
        match &self.source {
            Source::Development => "the development key in the data folder (HS256)".to_owned(),
            Source::File(path) => format!("{} keys of {}", self.current.load().key_count(), path.display()),
            Source::Url { url, .. } => format!("{} keys of {url}", self.current.load().key_count()),
        }
    }

    /// Reads them again. The old ones stay if the new ones are bad.
    ///
    /// # Errors
    /// Why the new ones are bad.
    pub(crate) fn reload(&self) -> Result<(), Failure> {
        let fresh = match &self.source {
            Source::Development => return Ok(()),
            Source::File(path) => read_file(path, &self.policy)?,
            Source::Url { url, cache } => {
                fetch_and_keep(url, cache, &self.policy).map_err(|text| Failure::new(Exit::Keys, text))?
            }
        };
        report_skipped(&fresh);
        self.current.store(Arc::new(fresh.counting_unknown_keys_in(Arc::clone(&self.unknown))));
        Ok(())
    }

    /// Keeps a key set at a URL fresh until `stop`, on a thread of its own; the other kinds need none. The
    /// thread sees `stop` within moments; a fetch under way is not waited for.
    ///
    /// # Errors
    /// [`Exit::Failure`] if the system gives no thread.
    pub(crate) fn keep_fresh(&self, stop: Arc<AtomicBool>) -> Result<(), Failure> {
        if !matches!(self.source, Source::Url { .. }) {
            return Ok(());
        }
        let keys = self.clone();
        let thread = std::thread::Builder::new().name("keys".into());
        match thread.spawn(move || keys.run(&stop)) {
            Ok(_) => Ok(()),
            Err(error) => Err(Failure::new(Exit::Failure, format!("no thread to fetch keys: {error}"))),
        }
    }

    fn run(&self, stop: &AtomicBool) {
        let mut fetched = Instant::now();
        let mut seen = self.unknown.load(Ordering::Relaxed);
        while !stop.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(200));
            let unknown = self.unknown.load(Ordering::Relaxed);
            if fetched.elapsed() >= REFRESH || (unknown != seen && fetched.elapsed() >= REFRESH_MIN) {
                seen = unknown;
                fetched = Instant::now();
                match self.reload() {
                    Ok(()) => tracing::debug!(keys = self.current.load().key_count(), "key set fetched"),
                    Err(failure) => {
                        tracing::warn!(
                            reason = failure.message,
                            "key set not fetched; the last one serves on"
                        )
                    }
                }
            }
        }
    }
}

fn read_file(path: &Path, policy: &Policy) -> Result<KeySet, Failure> {
    let bad =
        |error: &dyn std::fmt::Display| Failure::new(Exit::Keys, format!("{}: {error}", path.display()));
    let json = std::fs::read_to_string(path).map_err(|error| bad(&error))?;
    KeySet::from_jwks(&json, policy.clone()).map_err(|error| bad(&error))
}

fn first_from_url(url: &str, cache: &Path, policy: &Policy) -> Result<KeySet, Failure> {
    match fetch_and_keep(url, cache, policy) {
        Ok(keys) => Ok(keys),
        Err(reason) => match read_file(cache, policy) {
            Ok(keys) => {
                tracing::warn!(reason, "key set not fetched; the one kept from an earlier run serves");
                Ok(keys)
            }
            Err(_) => Err(Failure::new(
                Exit::Keys,
                format!("{reason}; no key set of an earlier run is kept, so no token could be checked"),
            )),
        },
    }
}

fn fetch_and_keep(url: &str, cache: &Path, policy: &Policy) -> Result<KeySet, String> {
    let json = fetch(url).map_err(|error| format!("{url}: {error}"))?;
    let keys = KeySet::from_jwks(&json, policy.clone()).map_err(|error| format!("{url}: {error}"))?;
    if let Err(error) = write_private(cache, json.as_bytes()) {
        tracing::warn!(%error, "key set not kept on disk: a start with the issuer down would fail");
    }
    Ok(keys)
}

fn fetch(url: &str) -> Result<String, ureq::Error> {
    let tls = ureq::tls::TlsConfig::builder()
        .unversioned_rustls_crypto_provider(Arc::new(crate::certificate::crypto()))
        .build();
    let config = ureq::Agent::config_builder()
        .tls_config(tls)
        .timeout_global(Some(FETCH_DEADLINE))
        // The keys are at the URL the operator named, or they are not taken.
        .max_redirects(0)
        .max_redirects_will_error(true)
        .user_agent(concat!("ringway/", env!("CARGO_PKG_VERSION")))
        .build();
    let mut answer = ureq::Agent::new_with_config(config).get(url).call()?;
    answer.body_mut().with_config().limit(KEY_SET_BYTES_MAX).read_to_string()
}

fn report_skipped(keys: &KeySet) {
    for skipped in keys.skipped() {
        tracing::warn!(index = skipped.index, reason = skipped.reason, "a key of the key set is not used");
    }
}
