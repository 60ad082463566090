//! Where the load goes: the URL of a server, and how its certificate is checked.

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ringway_protocol::tls::with_client_secrets;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CipherSuite, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    SupportedProtocolVersion,
};

/// Sessions that may be resumed, of all clients together: each is used once.
const TICKETS_MAX: usize = 65_536;

/// Why a URL or a certificate file is of no use.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// The URL has not the form.
    #[error("{0:?} is no socket URL. Give one like wss://127.0.0.1:8443/ws or ws://127.0.0.1:8080/ws")]
    Url(String),
    /// The host has no address.
    #[error("no address for {0:?}: check the name")]
    Address(String),
    /// wss without a way to check the certificate.
    #[error("wss needs --ca FILE (the certificate that signs the server's), or --insecure to check nothing")]
    NoTrust,
    /// The file of certificates could not be used.
    #[error("{}: {reason}. It must hold PEM certificates", path.display())]
    Certificates {
        /// Which file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

/// How far the server's certificate is trusted.
#[derive(Clone, Debug)]
pub enum Trust {
    /// Only one signed by a certificate of this file.
    Authority(PathBuf),
    /// Any. For a server of one's own, on this machine.
    Anything,
    /// None was chosen: only plain ws.
    Nothing,
}

/// A server.
#[derive(Clone)]
pub struct Target {
    /// `host:port`, as the Host header wants it.
    pub authority: String,
    /// The path of the socket, `/ws`.
    pub path: String,
    /// Where it is.
    pub address: SocketAddr,
    /// With TLS, how to check the certificate, and the name that it must have.
    pub tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
}

impl Target {
    /// Reads `wss://host:port/path` or `ws://…`.
    ///
    /// # Errors
    /// [`TargetError`].
    pub fn new(url: &str, trust: &Trust) -> Result<Self, TargetError> {
        let wrong = || TargetError::Url(url.to_owned());
        let (scheme, rest) = url.split_once("://").ok_or_else(wrong)?;
        let (secure, port) = match scheme {
            "wss" => (true, 443),
            "ws" => (false, 80),
            _ => return Err(wrong()),
        };
        let (authority, path) = match rest.find('/') {
            Some(slash) => (&rest[..slash], &rest[slash..]),
            None => (rest, "/ws"),
        };
        let host = match authority.rsplit_once(':') {
            Some((host, digits)) if digits.parse::<u16>().is_ok() => host,
            Some(_) if !authority.ends_with(']') => return Err(wrong()),
            _ => authority,
        };
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let with_port = if host == authority { format!("{authority}:{port}") } else { authority.to_owned() };
        let address = with_port
            .to_socket_addrs()
            .ok()
            .and_then(|mut addresses| addresses.next())
            .ok_or_else(|| TargetError::Address(with_port.clone()))?;
        let tls = match secure {
            true => {
                let name = ServerName::try_from(bare.to_owned()).map_err(|_| wrong())?;
                Some((Arc::new(trust.client_config()?), name))
            }
            false => None,
        };
        Ok(Self { authority: authority.to_owned(), path: path.to_owned(), address, tls })
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls.is_some() { "wss" } else { "ws" };
        write!(f, "{scheme}://{}{}", self.authority, self.path)
    }
}

impl Trust {
    /// For handshakes that end in a record layer of `ringway_protocol::tls`: TLS 1.3 alone, and what costs this end
    /// the least (AES-128 and X25519 first), since the server may be on the same machine. With `resumption`, all
    /// clients share the server's tickets.
    ///
    /// # Errors
    /// The certificates can't be read, or nothing is trusted.
    pub fn record_config(&self, resumption: bool) -> Result<Arc<ClientConfig>, TargetError> {
        let mut provider = aws_lc_rs::default_provider();
        provider.cipher_suites.sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
        provider.kx_groups = vec![aws_lc_rs::kx_group::X25519, aws_lc_rs::kx_group::SECP256R1];
        let mut config = self.config(provider, &[&rustls::version::TLS13])?;
        if resumption {
            config.resumption = Resumption::in_memory_sessions(TICKETS_MAX);
        }
        Ok(with_client_secrets(config))
    }

    fn client_config(&self) -> Result<ClientConfig, TargetError> {
        self.config(aws_lc_rs::default_provider(), rustls::DEFAULT_VERSIONS)
    }

    fn config(
        &self,
        provider: CryptoProvider,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Result<ClientConfig, TargetError> {
        let provider = Arc::new(provider);
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions)
            .expect("the provider has suites of TLS 1.2 and 1.3");
        let mut config = match self {
            Trust::Nothing => return Err(TargetError::NoTrust),
            Trust::Anything => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
                .with_no_client_auth(),
            Trust::Authority(path) => {
                builder.with_root_certificates(authorities(path)?).with_no_client_auth()
            }
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // Each connection costs the server a full handshake, as a new client's does.
        config.resumption = Resumption::disabled();
        Ok(config)
    }
}

fn authorities(path: &Path) -> Result<RootCertStore, TargetError> {
    let wrong = |reason: String| TargetError::Certificates { path: path.to_path_buf(), reason };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| wrong(error.to_string()))? {
        let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
        roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(wrong("it holds none".into()));
    }
    Ok(roots)
}

/// Takes any certificate, and any signature by it: who takes any certificate learns nothing from a signature, and to
/// check one is half of a client's work in a handshake.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_has_a_host_a_port_and_a_path() {
        let target = Target::new("ws://127.0.0.1:8080/ws", &Trust::Nothing).unwrap();
        assert_eq!((target.authority.as_str(), target.path.as_str()), ("127.0.0.1:8080", "/ws"));
        assert!(target.tls.is_none());
        let target = Target::new("wss://[::1]", &Trust::Anything).unwrap();
        assert_eq!((target.address.port(), target.path.as_str()), (443, "/ws"));
        assert!(target.tls.is_some());
        for url in ["http://x/", "127.0.0.1:8080", "ws://127.0.0.1:port/ws"] {
            assert!(Target::new(url, &Trust::Nothing).is_err(), "{url}");
        }
        assert!(matches!(Target::new("wss://127.0.0.1:1/ws", &Trust::Nothing), Err(TargetError::NoTrust)));
    }
}
