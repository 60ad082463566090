//! The server's certificate: the operator's, or a development one for localhost made at the first start.
//!
//! TLS 1.3 with AEAD suites; 1.2 (AEAD and ECDHE suites only: rustls has no others) where the operator asks
//! for it. No early data, so nothing can be replayed. Session tickets are sealed by keys that rotate by
//! themselves, so the server keeps no session. SIGHUP reads a new pair; a bad pair leaves the old one.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, aws_lc_rs as provider};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::data_folder::{DataFolder, write_private};
use crate::exit::{Exit, Failure};
use crate::settings::Tls;

/// Why a certificate cannot be served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CertificateError {
    /// A file cannot be read as PEM.
    #[error("{}: {reason}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The chain and the key do not belong together, or are of a kind that is not supported.
    #[error("{} and {}: {reason}", certificate.display(), key.display())]
    BadPair {
        /// The chain.
        certificate: PathBuf,
        /// The key.
        key: PathBuf,
        /// Why.
        reason: String,
    },
    /// The development certificate cannot be made.
    #[error("{}: the development certificate cannot be made: {reason}", path.display())]
    NotMade {
        /// Where it would be.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

impl From<CertificateError> for Failure {
    fn from(error: CertificateError) -> Self {
        Failure::new(Exit::Keys, error.to_string())
    }
}

/// Where the pair is.
#[derive(Clone, Debug)]
pub(crate) struct CertificateFiles {
    /// PEM of the chain.
    pub(crate) certificate: PathBuf,
    /// PEM of the key.
    pub(crate) key: PathBuf,
    /// Made here, for localhost.
    pub(crate) is_development: bool,
}

impl CertificateFiles {
    /// The operator's pair, or the development pair, which is made if it is not there.
    ///
    /// # Errors
    /// [`CertificateError::NotMade`].
    pub(crate) fn find(tls: &Tls, folder: &DataFolder) -> Result<Self, CertificateError> {
        if let (Some(certificate), Some(key)) = (&tls.certificate, &tls.key) {
            return Ok(Self { certificate: certificate.clone(), key: key.clone(), is_development: false });
        }
        let certificate = folder.tls().join("dev-cert.pem");
        let key = folder.tls().join("dev-key.pem");
        if !certificate.exists() || !key.exists() {
            make_development(&certificate, &key)
                .map_err(|reason| CertificateError::NotMade { path: certificate.clone(), reason })?;
        }
        Ok(Self { certificate, key, is_development: true })
    }

    /// Reads the pair and makes the configuration of new handshakes.
    ///
    /// # Errors
    /// [`CertificateError`] if either file is bad, or they do not belong together.
    pub(crate) fn server_config(&self, allow_tls12: bool) -> Result<ServerConfig, CertificateError> {
        let chain = CertificateDer::pem_file_iter(&self.certificate)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| unreadable(&self.certificate, &error))?;
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|error| unreadable(&self.key, &error))?;
        let versions: &[_] = if allow_tls12 {
            &[&rustls::version::TLS13, &rustls::version::TLS12]
        } else {
            &[&rustls::version::TLS13]
        };
        let bad_pair = |error: rustls::Error| CertificateError::BadPair {
            certificate: self.certificate.clone(),
            key: self.key.clone(),
            reason: error.to_string(),
        };
        let mut config = ServerConfig::builder_with_provider(Arc::new(crypto()))
            .with_protocol_versions(versions)
            .map_err(bad_pair)?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(bad_pair)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        config.ticketer = provider::Ticketer::new().map_err(bad_pair)?;
        config.send_tls13_tickets = 1;
        // Keys leave the library once the handshake is done, for the record layer that replaces it.
        config.enable_secret_extraction = true;
        Ok(config)
    }
}

/// The cryptography of every TLS connection. X25519 comes first: the hybrid with ML-KEM costs a handshake a
/// third more, so it is for clients that ask for nothing else.
pub(crate) fn crypto() -> CryptoProvider {
    CryptoProvider {
        kx_groups: vec![
            provider::kx_group::X25519,
            provider::kx_group::X25519MLKEM768,
            provider::kx_group::SECP256R1,
        ],
        ..provider::default_provider()
    }
}

fn unreadable(path: &Path, error: &dyn std::fmt::Display) -> CertificateError {
    CertificateError::Unreadable { path: path.to_owned(), reason: error.to_string() }
}

fn make_development(certificate: &Path, key: &Path) -> Result<(), String> {
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    let made = rcgen::generate_simple_self_signed(names).map_err(|error| error.to_string())?;
    // The key first: a certificate is looked for only beside a key.
    write_private(key, made.signing_key.serialize_pem().as_bytes()).map_err(|error| error.to_string())?;
    write_private(certificate, made.cert.pem().as_bytes()).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn development() -> (tempfile::TempDir, DataFolder, CertificateFiles) {
        let folder = tempfile::tempdir().unwrap();
        let data = DataFolder::create(folder.path()).unwrap();
        let files = CertificateFiles::find(&Tls::default(), &data).unwrap();
        (folder, data, files)
    }

    #[test]
    fn the_development_certificate_is_made_once_and_serves() {
        let (_folder, data, files) = development();
        assert!(files.is_development);
        let config = files.server_config(false).unwrap();
        assert_eq!(config.max_early_data_size, 0, "no early data, so no replay");
        let before = std::fs::read(&files.certificate).unwrap();
        let again = CertificateFiles::find(&Tls::default(), &data).unwrap();
        assert_eq!(std::fs::read(again.certificate).unwrap(), before);
    }

    #[test]
    fn a_pair_that_does_not_belong_together_is_refused() {
        let (_one, _, files) = development();
        let (_other, _, others) = development();
        let mixed = CertificateFiles { key: others.key, ..files.clone() };
        assert!(matches!(mixed.server_config(false), Err(CertificateError::BadPair { .. })));
        std::fs::write(&files.certificate, "no PEM").unwrap();
        assert!(files.server_config(false).is_err());
    }
}
