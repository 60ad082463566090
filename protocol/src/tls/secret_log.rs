//! Catches the traffic secrets of a handshake, which rustls shows to a `KeyLog` and to nobody else.
//!
//! rustls gives away keys and IVs (`dangerous_into_kernel_connection`), but the next generation of keys
//! comes from the secrets. The log is shared by all connections of a configuration, so it writes where
//! only the connection looks that is at work on this thread; outside of [`catching`] it drops what it is
//! shown. Nothing is written to a file or another log.

use std::cell::RefCell;
use std::sync::Arc;

use rustls::{ClientConfig, KeyLog, ServerConfig};
use zeroize::Zeroize;

use super::suite::SECRET_BYTES_MAX;

thread_local! {
    static CAUGHT: RefCell<Option<Box<CaughtSecrets>>> = const { RefCell::new(None) };
}

const CLIENT: &str = "CLIENT_TRAFFIC_SECRET_0";
const SERVER: &str = "SERVER_TRAFFIC_SECRET_0";

/// The `KeyLog` of a configuration whose handshakes end in a [`RecordLayer`](super::RecordLayer).
#[derive(Debug)]
pub struct SecretLog;

impl KeyLog for SecretLog {
    fn log(&self, label: &str, _client_random: &[u8], secret: &[u8]) {
        CAUGHT.with_borrow_mut(|caught| {
            let Some(caught) = caught else { return };
            match label {
                CLIENT => caught.client.set(secret),
                SERVER => caught.server.set(secret),
                _ => {}
            }
        });
    }

    fn will_log(&self, label: &str) -> bool {
        matches!(label, CLIENT | SERVER)
    }
}

/// The same configuration, for a [`ServerHandshake`](super::ServerHandshake).
pub fn with_server_secrets(mut config: ServerConfig) -> Arc<ServerConfig> {
    config.key_log = Arc::new(SecretLog);
    config.enable_secret_extraction = true;
    Arc::new(config)
}

/// The same configuration, for a [`ClientHandshake`](super::ClientHandshake).
pub fn with_client_secrets(mut config: ClientConfig) -> Arc<ClientConfig> {
    config.key_log = Arc::new(SecretLog);
    config.enable_secret_extraction = true;
    Arc::new(config)
}

/// One secret, or none yet. It is written where it stays, and wiped there: a value that moves leaves its bytes
/// behind.
pub(super) struct Secret {
    bytes: [u8; SECRET_BYTES_MAX],
    len: usize,
}

impl Default for Secret {
    fn default() -> Self {
        Self { bytes: [0; SECRET_BYTES_MAX], len: 0 }
    }
}

impl Secret {
    /// One that is longer than any is none.
    fn set(&mut self, secret: &[u8]) {
        self.len = 0;
        if let Some(place) = self.bytes.get_mut(..secret.len()) {
            place.copy_from_slice(secret);
            self.len = secret.len();
        }
    }

    pub(super) fn as_slice(&self) -> Option<&[u8]> {
        self.bytes.get(..self.len).filter(|secret| !secret.is_empty())
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.bytes.zeroize();
    }
}

/// What a handshake has shown so far.
#[derive(Default)]
pub(super) struct CaughtSecrets {
    pub(super) client: Secret,
    pub(super) server: Secret,
}

/// Calls rustls for one connection, and adds to `secrets` what it shows meanwhile.
pub(super) fn catching<T>(secrets: &mut Option<Box<CaughtSecrets>>, call: impl FnOnce() -> T) -> T {
    CAUGHT.set(Some(secrets.take().unwrap_or_default()));
    let answer = call();
    *secrets = CAUGHT.take();
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_connection_at_work_sees_a_secret() {
        let mut secrets = None;
        SecretLog.log(CLIENT, &[], &[1; 32]);
        catching(&mut secrets, || SecretLog.log(SERVER, &[], &[2; 48]));
        let place = std::ptr::from_ref(secrets.as_deref().unwrap());
        assert!(secrets.as_ref().unwrap().client.as_slice().is_none());
        assert_eq!(secrets.as_ref().unwrap().server.as_slice().unwrap(), [2; 48]);
        catching(&mut secrets, || SecretLog.log(CLIENT, &[], &[3; 32]));
        assert_eq!(secrets.as_ref().unwrap().client.as_slice().unwrap(), [3; 32]);
        assert_eq!(secrets.as_ref().unwrap().server.as_slice().unwrap(), [2; 48], "it stays");
        assert_eq!(std::ptr::from_ref(secrets.as_deref().unwrap()), place, "where it was");
        SecretLog.log(CLIENT, &[], &[4; 32]);
        catching(&mut secrets, || SecretLog.log(SERVER, &[], &[5; 49]));
        assert_eq!(secrets.as_ref().unwrap().client.as_slice().unwrap(), [3; 32]);
        assert!(secrets.as_ref().unwrap().server.as_slice().is_none(), "no suite has one so long");
    }
}
