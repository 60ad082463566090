//! The listening sockets: one a thread and address, all on the same port.
//!
//! With SO_REUSEPORT the kernel spreads connections over the threads by a hash of their addresses. What
//! each accepted socket should have is set here once, as accepted sockets inherit it (NODELAY, SNDBUF); a direct
//! descriptor could not be told later without a system call each.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};

/// Connections that wait for an accept. The kernel cuts it to net.core.somaxconn.
const BACKLOG: i32 = 4_096;

/// How long a taken port is waited for. The kernel lets go of the sockets of a killed process's rings in
/// the background, some time after the process is gone: who starts a server anew should not have to know.
const PORT_PATIENCE: Duration = Duration::from_secs(3);

/// How often is looked meanwhile.
const PORT_INTERVAL: Duration = Duration::from_millis(20);

/// Why a listener cannot be had, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Somebody has the port.
    #[error("{address} is taken: stop who listens there (ss -ltnp 'sport = :{}'), or set {setting} to another", address.port())]
    AddressInUse {
        /// Which.
        address: SocketAddr,
        /// The setting that names it.
        setting: &'static str,
    },
    /// A port below 1024 without the right to it.
    #[error(
        "{address} needs a privilege: give the binary cap_net_bind_service (setcap), lower \
         net.ipv4.ip_unprivileged_port_start, or set {setting} to a port from 1024 on"
    )]
    Privileged {
        /// Which.
        address: SocketAddr,
        /// The setting that names it.
        setting: &'static str,
    },
    /// The address is none of this machine.
    #[error("{address} is no address of this machine: set {setting} to one that `ip address` shows")]
    NotLocal {
        /// Which.
        address: SocketAddr,
        /// The setting that names it.
        setting: &'static str,
    },
    /// Anything else.
    #[error("listening on {address} ({setting}) failed: {source}")]
    Other {
        /// Which.
        address: SocketAddr,
        /// The setting that names it.
        setting: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

/// `count` listeners on one address; with port 0, all on the port that the first was given. What the kernel
/// takes for one reader is bounded by `send_buffer_bytes`, unless that is 0.
///
/// # Errors
/// [`ListenError`], with the setting to change.
pub(crate) fn listen(
    address: SocketAddr,
    count: usize,
    setting: &'static str,
    send_buffer_bytes: usize,
) -> Result<Vec<TcpListener>, ListenError> {
    let explain = |address: SocketAddr, source: io::Error| match source.kind() {
        io::ErrorKind::AddrInUse => ListenError::AddressInUse { address, setting },
        io::ErrorKind::PermissionDenied => ListenError::Privileged { address, setting },
        io::ErrorKind::AddrNotAvailable => ListenError::NotLocal { address, setting },
        _ => ListenError::Other { address, setting, source },
    };
    wait_until_free(address).map_err(|source| explain(address, source))?;
    let mut listeners = Vec::with_capacity(count);
    let mut bound = address;
    for _ in 0..count {
        let listener = listen_once(bound, send_buffer_bytes).map_err(|source| explain(bound, source))?;
        bound = listener.local_addr().map_err(|source| explain(bound, source))?;
        listeners.push(listener);
    }
    if let Some(listener) = listeners.first() {
        warn_of_small_buffers(listener, send_buffer_bytes);
    }
    Ok(listeners)
}

fn wait_until_free(address: SocketAddr) -> io::Result<()> {
    let deadline = Instant::now() + PORT_PATIENCE;
    loop {
        match check_free(address) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < deadline => {
                std::thread::sleep(PORT_INTERVAL);
            }
            outcome => return outcome,
        }
    }
}

/// SO_REUSEPORT would let two servers of one user share a port without a word. A bind without it finds
/// out whether somebody listens already.
fn check_free(address: SocketAddr) -> io::Result<()> {
    if address.port() == 0 {
        return Ok(());
    }
    let socket = new_socket(address)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SockAddr::from(address))
}

fn listen_once(address: SocketAddr, send_buffer_bytes: usize) -> io::Result<TcpListener> {
    let socket = new_socket(address)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_tcp_nodelay(true)?;
    if send_buffer_bytes > 0 {
        socket.set_send_buffer_size(send_buffer_bytes)?;
    }
    socket.bind(&SockAddr::from(address))?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// The kernel cuts what is asked for without a word, and shows twice what it gives (socket(7), SO_SNDBUF).
fn warn_of_small_buffers(listener: &TcpListener, wanted: usize) {
    if let Ok(shown) = SockRef::from(listener).send_buffer_size()
        && shown / 2 < wanted
    {
        tracing::warn!(
            bytes = shown / 2,
            wanted,
            "the kernel gives less than limits.socket_send_buffer_bytes: raise net.core.wmem_max, or lower it"
        );
    }
}

fn new_socket(address: SocketAddr) -> io::Result<Socket> {
    Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_threads_share_the_port_that_was_given() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let listeners = listen(any, 3, "listen.ws", 0).unwrap();
        let ports: Vec<u16> =
            listeners.iter().map(|listener| listener.local_addr().unwrap().port()).collect();
        assert_ne!(ports[0], 0);
        assert!(ports.iter().all(|port| *port == ports[0]), "{ports:?}");
    }

    #[test]
    fn a_port_that_is_let_go_meanwhile_is_waited_for() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let taken = listen(any, 1, "listen.ws", 0).unwrap();
        let address = taken[0].local_addr().unwrap();
        assert!(check_free(address).is_err());
        let waiting = std::thread::spawn(move || listen(address, 1, "listen.ws", 0));
        drop(taken);
        assert!(waiting.join().unwrap().is_ok());
    }

    #[test]
    fn a_taken_port_is_refused_with_its_setting() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let taken = listen(any, 1, "listen.ws", 0).unwrap();
        let address = taken[0].local_addr().unwrap();
        let error = listen(address, 1, "listen.wss", 0).unwrap_err();
        assert!(matches!(error, ListenError::AddressInUse { .. }), "{error}");
        assert!(error.to_string().contains("listen.wss"), "{error}");
    }

    #[test]
    fn accepted_sockets_inherit_the_bound_on_what_the_kernel_takes() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let accepted = |send_buffer_bytes| {
            let listeners = listen(any, 1, "listen.ws", send_buffer_bytes).unwrap();
            let _client = std::net::TcpStream::connect(listeners[0].local_addr().unwrap()).unwrap();
            let (socket, _) = listeners[0].accept().unwrap();
            SockRef::from(&socket).send_buffer_size().unwrap()
        };
        assert_eq!(accepted(64 * 1024), 128 * 1024, "twice, as the kernel shows it");
        assert!(accepted(0) > 128 * 1024, "its own size on loopback");
    }
}
