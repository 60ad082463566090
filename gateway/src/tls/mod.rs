//! TLS on the server's side: the configuration of new handshakes here, one connection's records in
//! `record_layer.rs`; what it stands on for TLS 1.3 is `ringway_protocol::tls`, for 1.2 `tls12.rs`.
//!
//! TLS 1.3; 1.2 only where the operator has a client that needs it. No 0-RTT: a replayed send would be
//! taken twice by who has no idempotency key. Tickets are stateless and their keys rotate by themselves
//! (six hours each, kept for twelve). Reading files is left to who starts the server.

mod record_layer;
mod tls12;

use std::sync::Arc;

use ringway_protocol::tls::with_server_secrets;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::version::{TLS12, TLS13};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

pub(crate) use record_layer::{Opened, RecordError, RecordLayer, SEAL_OVERHEAD_BYTES};

/// What the TLS state of an open TLS 1.3 connection takes, in bytes: one allocation.
pub const STATE_BYTES: usize = size_of::<RecordLayer>();

/// What a TLS 1.3 connection takes in its handshake beside what it gathers, in bytes: rustls's state and ours, with
/// what aws-lc has on the heap of C, and our messages until they are sent.
pub const HANDSHAKE_BYTES_MAX: usize = 8 * 1024;

/// What an operator may choose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TlsOptions {
    /// `tls.allow_1_2`: also speak TLS 1.2, with ECDHE and AEAD only.
    pub allow_1_2: bool,
    /// `tls.hybrid`: offer the hybrid post-quantum key exchange first. Costs a handshake about 15 us more.
    pub hybrid: bool,
}

/// Why certificate and key do not make a configuration.
#[derive(Debug, thiserror::Error)]
pub enum TlsConfigError {
    /// The certificate file has no certificate.
    #[error("the certificate file has no CERTIFICATE block: give the chain in PEM, the server's own first")]
    NoCertificate,
    /// The certificate file is not PEM.
    #[error("the certificate file is not PEM: {0}")]
    BadCertificate(rustls_pki_types::pem::Error),
    /// The key file has no private key, or is not PEM.
    #[error("the key file has no usable private key (PKCS#8, PKCS#1 or SEC1 in PEM): {0}")]
    BadKey(rustls_pki_types::pem::Error),
    /// Two files that do not belong together.
    #[error(
        "the private key does not belong to the certificate: give the key that the certificate was made for"
    )]
    Mismatch,
    /// rustls does not take them.
    #[error("certificate and key cannot be used: {0}")]
    Unusable(rustls::Error),
}

/// Makes the configuration of new handshakes from a certificate chain and its key, both PEM.
///
/// Called at start and again at SIGHUP: the caller keeps the old one when this fails.
///
/// # Errors
/// [`TlsConfigError`] that says which file is wrong.
pub fn server_config(
    certificate_pem: &[u8],
    key_pem: &[u8],
    options: TlsOptions,
) -> Result<Arc<ServerConfig>, TlsConfigError> {
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(certificate_pem)
        .collect::<Result<_, _>>()
        .map_err(TlsConfigError::BadCertificate)?;
    if chain.is_empty() {
        return Err(TlsConfigError::NoCertificate);
    }
    let key = PrivateKeyDer::from_pem_slice(key_pem).map_err(TlsConfigError::BadKey)?;

    let mut provider = aws_lc_rs::default_provider();
    provider.kx_groups = vec![aws_lc_rs::kx_group::X25519, aws_lc_rs::kx_group::SECP256R1];
    if options.hybrid {
        provider.kx_groups.insert(0, aws_lc_rs::kx_group::X25519MLKEM768);
    }
    let versions: &[&rustls::SupportedProtocolVersion] =
        if options.allow_1_2 { &[&TLS13, &TLS12] } else { &[&TLS13] };
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(versions)
        .map_err(TlsConfigError::Unusable)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => TlsConfigError::Mismatch,
            other => TlsConfigError::Unusable(other),
        })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.ticketer = aws_lc_rs::Ticketer::new().map_err(TlsConfigError::Unusable)?;
    // One is enough for one reconnect, and the client gets a new one then.
    config.send_tls13_tickets = 1;
    config.max_early_data_size = 0;
    Ok(with_server_secrets(config))
}

/// The same configuration, made so that its handshakes end in a compact record layer.
pub(crate) fn prepared(config: Arc<ServerConfig>) -> Arc<ServerConfig> {
    with_server_secrets(Arc::unwrap_or_clone(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (String, String) {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let ((certificate, key), (_, other)) = (pair(), pair());
        assert!(server_config(certificate.as_bytes(), key.as_bytes(), TlsOptions::default()).is_ok());
        let refused = server_config(certificate.as_bytes(), other.as_bytes(), TlsOptions::default());
        assert!(matches!(refused, Err(TlsConfigError::Mismatch)), "{refused:?}");
    }

    #[test]
    fn swapped_and_broken_files_are_told_apart() {
        let (certificate, key) = pair();
        let options = TlsOptions::default();
        let swapped = server_config(key.as_bytes(), certificate.as_bytes(), options);
        assert!(matches!(swapped, Err(TlsConfigError::NoCertificate)), "{swapped:?}");
        let no_key = server_config(certificate.as_bytes(), b"", options);
        assert!(matches!(no_key, Err(TlsConfigError::BadKey(_))), "{no_key:?}");
        let cut = server_config(&certificate.as_bytes()[..100], key.as_bytes(), options);
        assert!(matches!(cut, Err(TlsConfigError::BadCertificate(_))), "{cut:?}");
    }

    #[test]
    fn tls_1_2_is_spoken_only_on_request() {
        let (certificate, key) = pair();
        for (allow_1_2, versions) in [(false, 1), (true, 2)] {
            let options = TlsOptions { allow_1_2, hybrid: true };
            let config = server_config(certificate.as_bytes(), key.as_bytes(), options).unwrap();
            assert_eq!(config.crypto_provider().kx_groups.len(), 3);
            assert_eq!(config.alpn_protocols, [b"http/1.1".to_vec()]);
            assert_eq!(format!("{config:?}").matches("TLSv1_2").count() + 1, versions);
        }
    }
}
