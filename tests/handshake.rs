//! TLS handshakes that cannot succeed, on the real binary: the peer is told why.

mod support;

use std::io;
use std::net::TcpStream;
use std::sync::Arc;

use rustls::{AlertDescription, ClientConfig, ClientConnection, Error, RootCertStore};
use support::{PATIENCE, Server};

/// What ends the handshake of a client of this configuration.
fn refusal(server: &Server, config: ClientConfig) -> Option<Error> {
    let mut stream = TcpStream::connect(server.wss()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut client = ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
    let end: io::Error = client.complete_io(&mut stream).err()?;
    end.get_ref().and_then(|cause| cause.downcast_ref::<Error>()).cloned()
}

fn client(server: &Server, versions: &[&'static rustls::SupportedProtocolVersion]) -> ClientConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    let certificate = server.development_certificate();
    for certificate in rustls_pki_types::pem::PemObject::pem_slice_iter(&certificate) {
        roots.add(certificate.unwrap()).unwrap();
    }
    let config = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
    config.with_root_certificates(roots).with_no_client_auth()
}

#[test]
fn who_speaks_another_protocol_or_an_old_version_reads_an_alert() {
    let server = Server::start(&[]);
    let offering = |protocol: &str| {
        let mut config = client(&server, &[&rustls::version::TLS13]);
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        config
    };
    assert_eq!(refusal(&server, offering("http/1.1")), None);
    // This alert comes behind a ServerHello, and encrypted.
    let no_protocol = Error::AlertReceived(AlertDescription::NoApplicationProtocol);
    assert_eq!(refusal(&server, offering("h2")), Some(no_protocol));
    let old = client(&server, &[&rustls::version::TLS12]);
    let no_version = Error::AlertReceived(AlertDescription::ProtocolVersion);
    assert_eq!(refusal(&server, old), Some(no_version));
}
