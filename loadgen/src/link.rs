//! Moves a device's bytes: a TCP stream of monoio, and rustls in between for wss.
//!
//! One task reads, one writes. What a device has to say is collected until its writer runs, so that many
//! frames leave in one record and one send. A read that is pending when the socket is to be cut is
//! cancelled, because its buffer belongs to the kernel until then.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::{self, Read, Write};
use std::rc::Rc;
use std::task::{Poll, Waker};

use monoio::io::{AsyncWriteRentExt, CancelableAsyncReadRent, Canceller, Splitable};
use monoio::net::TcpStream;
use monoio::net::tcp::{TcpOwnedReadHalf, TcpOwnedWriteHalf};
use rustls::ClientConnection;

use crate::clock;
use crate::device::{Context, Device};
use crate::target::Target;

/// A device and its socket, if it has one.
pub(crate) struct Seat {
    /// The device.
    pub(crate) device: RefCell<Device>,
    link: RefCell<Option<Rc<Link>>>,
}

/// A socket.
struct Link {
    tls: RefCell<Option<ClientConnection>>,
    writer: RefCell<Option<Waker>>,
    canceller: RefCell<Canceller>,
    /// The reader has ended: the writer ends when it has written all.
    ended: Cell<bool>,
    /// Neither reads nor writes any more.
    cut: Cell<bool>,
}

impl Seat {
    /// A seat for a device.
    pub(crate) fn new(device: Device) -> Self {
        Self { device: RefCell::new(device), link: RefCell::new(None) }
    }

    /// Sends what the device has to say, if anything.
    pub(crate) fn flush(&self) {
        if let Some(link) = &*self.link.borrow()
            && !self.device.borrow().out.is_empty()
        {
            link.wake_writer();
        }
    }

    /// Ends the socket without a word.
    pub(crate) fn cut(&self) {
        if let Some(link) = &*self.link.borrow() {
            link.cut();
        }
    }
}

impl Link {
    fn wake_writer(&self) {
        if let Some(waker) = self.writer.borrow_mut().take() {
            waker.wake();
        }
    }

    fn cut(&self) {
        self.cut.set(true);
        self.ended.set(true);
        self.wake_writer();
        self.canceller.replace_with(|canceller| std::mem::take(canceller).cancel());
    }
}

/// Opens a socket for the device of a seat and carries its bytes until it ends.
pub(crate) async fn carry(seat: Rc<Seat>, context: Rc<RefCell<Context>>, target: Target, read_bytes: usize) {
    let _ = open_and_carry(&seat, &context, &target, read_bytes).await;
    if let Some(link) = seat.link.borrow_mut().take() {
        link.cut();
    }
    seat.device.borrow_mut().ended(&mut context.borrow_mut(), clock::now());
}

async fn open_and_carry(
    seat: &Rc<Seat>,
    context: &Rc<RefCell<Context>>,
    target: &Target,
    read_bytes: usize,
) -> io::Result<()> {
    let tls = match &target.tls {
        Some((config, name)) => {
            let mut tls = ClientConnection::new(config.clone(), name.clone()).map_err(io::Error::other)?;
            tls.set_buffer_limit(None);
            Some(tls)
        }
        None => None,
    };
    let stream = TcpStream::connect_addr(target.address).await?;
    stream.set_nodelay(true)?;
    let (reader, writer) = stream.into_split();
    let link = Rc::new(Link {
        tls: RefCell::new(tls),
        writer: RefCell::new(None),
        canceller: RefCell::new(Canceller::new()),
        ended: Cell::new(false),
        cut: Cell::new(false),
    });
    seat.link.replace(Some(Rc::clone(&link)));
    seat.device.borrow_mut().connected(clock::now(), &target.authority, &target.path);
    let writing = monoio::spawn(write_all(Rc::clone(seat), Rc::clone(&link), writer));
    let result = read_all(seat, context, &link, reader, read_bytes).await;
    link.ended.set(true);
    link.wake_writer();
    writing.await;
    result
}

async fn read_all(
    seat: &Seat,
    context: &RefCell<Context>,
    link: &Link,
    mut reader: TcpOwnedReadHalf,
    read_bytes: usize,
) -> io::Result<()> {
    let mut buffer = vec![0; read_bytes];
    let mut plain = Vec::new();
    loop {
        if link.cut.get() {
            return Ok(());
        }
        let handle = link.canceller.borrow().handle();
        let (read, returned) = reader.cancelable_read(buffer, handle).await;
        buffer = returned;
        let count = read?;
        if count == 0 {
            return Ok(());
        }
        let received = match &mut *link.tls.borrow_mut() {
            Some(tls) => {
                decrypt(tls, &buffer[..count], &mut plain)?;
                &mut plain[..]
            }
            None => &mut buffer[..count],
        };
        let goes_on = seat.device.borrow_mut().received(&mut context.borrow_mut(), clock::now(), received);
        plain.clear();
        let tls_speaks = link.tls.borrow().as_ref().is_some_and(|tls| tls.wants_write());
        if tls_speaks || !seat.device.borrow().out.is_empty() {
            link.wake_writer();
        }
        if !goes_on {
            return Ok(());
        }
    }
}

/// Appends the plain text of `records`.
fn decrypt(tls: &mut ClientConnection, mut records: &[u8], plain: &mut Vec<u8>) -> io::Result<()> {
    while !records.is_empty() {
        tls.read_tls(&mut records)?;
        let state = tls.process_new_packets().map_err(io::Error::other)?;
        let begin = plain.len();
        plain.resize(begin + state.plaintext_bytes_to_read(), 0);
        tls.reader().read_exact(&mut plain[begin..])?;
        if state.peer_has_closed() {
            break;
        }
    }
    Ok(())
}

async fn write_all(seat: Rc<Seat>, link: Rc<Link>, mut writer: TcpOwnedWriteHalf) {
    let mut bytes = Vec::new();
    loop {
        let more = poll_fn(|context| {
            if link.cut.get() {
                return Poll::Ready(false);
            }
            take_output(&seat, &link, &mut bytes);
            if !bytes.is_empty() {
                return Poll::Ready(true);
            }
            if link.ended.get() {
                return Poll::Ready(false);
            }
            *link.writer.borrow_mut() = Some(context.waker().clone());
            Poll::Pending
        });
        if !more.await {
            return;
        }
        let (written, returned) = writer.write_all(bytes).await;
        bytes = returned;
        bytes.clear();
        if written.is_err() {
            link.cut();
            return;
        }
    }
}

/// Moves what is to be sent into `bytes`, encrypted where the socket is.
fn take_output(seat: &Seat, link: &Link, bytes: &mut Vec<u8>) {
    let mut device = seat.device.borrow_mut();
    match &mut *link.tls.borrow_mut() {
        // Without a limit, rustls takes all; before the handshake is over it keeps it.
        Some(tls) => {
            if !device.out.is_empty() && tls.writer().write_all(&device.out).is_ok() {
                device.out.clear();
            }
            while tls.wants_write() {
                if tls.write_tls(bytes).is_err() {
                    break;
                }
            }
        }
        None => std::mem::swap(&mut device.out, bytes),
    }
}
