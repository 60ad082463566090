//! A client and its socket: the bytes between a device and the kernel.
//!
//! Nothing is kept for a socket that is idle: what arrives is read into a buffer that all share and opened
//! there, and what is sent is sealed into another. Only what the kernel did not take, and a record that came
//! in part, are a connection's own, for as long as it takes.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use socket2::{Domain, Protocol, Type};

use super::records::{Broken, Records, Step};
use crate::device::{Context, Device};

/// Bytes that wait for one socket, at most: what a client has to say is small, and a server that takes
/// none of it for so long is gone.
const UNSENT_BYTES_MAX: usize = 1 << 20;

/// What a slow reader's kernel keeps for it: little, so that the server feels it at once.
const SLOW_RECEIVE_BYTES: usize = 4096;

/// How a connection gets where it goes.
pub(super) struct Route {
    /// The server.
    pub(super) address: SocketAddr,
    /// As the Host header wants it.
    pub(super) authority: String,
    /// The path of the socket.
    pub(super) path: String,
    /// With TLS, the configuration and the server's name.
    pub(super) tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
}

/// A client.
pub(super) struct Seat {
    pub(super) device: Device,
    pub(super) socket: Option<Socket>,
    /// When the connection that is being made was wanted.
    pub(super) wanted: u64,
    /// When it was begun.
    pub(super) began: u64,
    /// The earliest time at which the timers look at it.
    pub(super) timer: u64,
    /// It is being made: its arrival has not been counted.
    pub(super) is_arriving: bool,
    /// It left by our doing and has not arrived again: its wait is no latency of the server.
    pub(super) is_returning: bool,
    /// It arrived once.
    pub(super) has_arrived: bool,
    /// Its device was welcome when it was last looked at.
    pub(super) is_open: bool,
    /// It reads only what it is allowed.
    pub(super) is_slow: bool,
}

/// A socket.
pub(super) struct Socket {
    pub(super) stream: TcpStream,
    records: Records,
    /// Bytes that the kernel has not taken.
    unsent: Vec<u8>,
    /// The kernel has connected it.
    is_connected: bool,
    /// It is to be told when the kernel takes bytes.
    pub(super) waits_to_write: bool,
    /// It is among those that are not welcome yet.
    pub(super) is_in_doorway: bool,
}

/// What became of what arrived.
pub(super) enum Received {
    /// The connection goes on.
    GoesOn,
    /// The TLS handshake ended, and the connection goes on.
    HandsShaken,
    /// The connection is over.
    Over,
}

impl Seat {
    /// A client that has no socket.
    pub(super) fn new(device: Device) -> Self {
        Self {
            device,
            socket: None,
            wanted: 0,
            began: 0,
            timer: u64::MAX,
            is_arriving: false,
            is_returning: false,
            has_arrived: false,
            is_open: false,
            is_slow: false,
        }
    }

    /// The kernel says that the connection is made, or is not.
    pub(super) fn connected(&mut self, route: &Route, now: u64) -> io::Result<()> {
        let Some(socket) = &mut self.socket else { return Ok(()) };
        if socket.is_connected {
            return Ok(());
        }
        if let Some(error) = socket.stream.take_error()? {
            return Err(error);
        }
        socket.is_connected = true;
        if socket.records.is_open() {
            self.device.connected(now, &route.authority, &route.path);
        }
        Ok(())
    }

    /// Reads at most `most` bytes of what arrived, by way of `buffer`. `most` goes down by what was read.
    pub(super) fn receive(
        &mut self,
        context: &mut Context,
        route: &Route,
        now: u64,
        buffer: &mut [u8],
        most: &mut usize,
    ) -> Received {
        let mut result = Received::GoesOn;
        while *most > 0 {
            let Some(socket) = &mut self.socket else { return Received::Over };
            let room = buffer.len().min(*most);
            let count = match socket.stream.read(&mut buffer[..room]) {
                Ok(0) => return Received::Over,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return Received::Over,
            };
            *most -= count;
            match self.take(context, route, now, &mut buffer[..count]) {
                Ok(Received::GoesOn) => {}
                Ok(Received::HandsShaken) => result = Received::HandsShaken,
                Ok(Received::Over) | Err(Broken) => return Received::Over,
            }
            // Less than there was room for: that was all.
            if count < room {
                break;
            }
        }
        result
    }

    fn take(
        &mut self,
        context: &mut Context,
        route: &Route,
        now: u64,
        mut received: &mut [u8],
    ) -> Result<Received, Broken> {
        let Self { device, socket: Some(socket), .. } = self else { return Err(Broken) };
        let mut result = Received::GoesOn;
        if !socket.records.is_open() {
            match socket.records.shake(received, &mut socket.unsent)? {
                Step::Wait => return Ok(result),
                Step::Done(used) => {
                    received = &mut received[used..];
                    device.connected(now, &route.authority, &route.path);
                    result = Received::HandsShaken;
                }
            }
        }
        let goes_on = socket.records.open(received, |text| device.received(context, now, text))?;
        Ok(if goes_on { result } else { Received::Over })
    }

    /// Whether the device, or TLS, has something to say.
    pub(super) fn has_output(&self) -> bool {
        self.socket.as_ref().is_some_and(|socket| {
            socket.is_connected
                && (!socket.unsent.is_empty()
                    || socket.records.is_open() && !self.device.out.is_empty()
                    || socket.records.has_outgoing())
        })
    }

    /// Sends what the device has to say, as far as the kernel takes it; `wire` is a buffer that all share.
    pub(super) fn flush(&mut self, wire: &mut Vec<u8>) -> io::Result<()> {
        let Self { device, socket: Some(socket), .. } = self else { return Ok(()) };
        if !socket.is_connected {
            return Ok(());
        }
        wire.clear();
        wire.append(&mut socket.unsent);
        if socket.records.is_open() {
            socket.records.seal(&device.out, wire).map_err(|Broken| io::ErrorKind::BrokenPipe)?;
            // The memory goes back too: an idle client keeps none.
            device.out = Vec::new();
        }
        let mut sent = 0;
        while sent < wire.len() {
            match socket.stream.write(&wire[sent..]) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if wire.len() - sent > UNSENT_BYTES_MAX {
            return Err(io::ErrorKind::TimedOut.into());
        }
        socket.unsent = wire[sent..].to_vec();
        Ok(())
    }
}

impl Socket {
    /// Begins a connection.
    pub(super) fn open(route: &Route, source: Option<IpAddr>) -> io::Result<Self> {
        let domain = Domain::for_address(route.address);
        let socket = socket2::Socket::new(domain, Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?;
        socket.set_tcp_nodelay(true)?;
        if let Some(source) = source {
            socket.bind(&SocketAddr::new(source, 0).into())?;
        }
        match socket.connect(&route.address.into()) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(IN_PROGRESS) => {}
            Err(error) => return Err(error),
        }
        let mut unsent = Vec::new();
        let records = Records::begin(route.tls.as_ref(), &mut unsent)
            .map_err(|Broken| io::Error::other("no TLS handshake can be begun"))?;
        let stream = socket.into();
        Ok(Self { stream, records, unsent, is_connected: false, waits_to_write: true, is_in_doorway: true })
    }

    /// Whether the kernel is still to take something.
    pub(super) fn wants_to_write(&self) -> bool {
        !self.is_connected || !self.unsent.is_empty()
    }

    /// Has the kernel keep little of what arrives.
    pub(super) fn read_slowly(&self) {
        let _ = socket2::SockRef::from(&self.stream).set_recv_buffer_size(SLOW_RECEIVE_BYTES);
    }

    /// Ends it without a word, as a machine does that is gone: the peer gets a reset.
    pub(super) fn cut(self) {
        let _ = socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
    }
}

/// EINPROGRESS: what connecting a socket that does not block is answered with.
const IN_PROGRESS: i32 = rustix::io::Errno::INPROGRESS.raw_os_error();
