//! A connection as bytes: it moves to another core or to the next binary while its socket stays open, also
//! in the middle of a frame and with output in its queue.
//!
//! ```text
//!   1  version, 1            8  connection id          1  stage: 0 head, 1 WebSocket, 2 ending
//!   1  disposition           8  deadline, from now     4  output, then those bytes; 8 of them taken
//!   -- head:       the peer's address as text, what arrived
//!   -- WebSocket:  held bytes, heard, message begun, closing; 0 echo or 1 chat and its session
//!                  (`session/frozen.rs`); the frame reader (`ringway_protocol::websocket`) last
//! ```
//! Integers are little-endian. A connection with the HTTP server stays where its stream is; one in its TLS
//! handshake, or of TLS 1.2, where rustls is. The bytes of a TLS connection are as secret as its keys, so
//! they are zeroed when they are dropped, and whoever copies them zeroes the copy.

use std::net::SocketAddr;

use bytes::BufMut;
use ringway_protocol::byte_cursor::{ByteCursor, Truncated, put_bytes};
use ringway_protocol::ids::ConnectionId;
use ringway_protocol::tls;
use ringway_protocol::websocket::{self, FrameReader};
use zeroize::Zeroizing;

use super::head::Head;
use super::output::Output;
use super::websocket::{Mode, WebSocket};
use super::{Connection, Disposition, Stage};
use crate::clock::Tick;
use crate::context::Context;
use crate::session::Session;
use crate::session::frozen::{put_option, put_tick, take_flag, take_option, take_tick};
use crate::tls::RecordLayer;

const VERSION: u8 = 2;

/// Why a connection cannot be frozen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FreezeError {
    /// rustls still has the connection, in its handshake or since it speaks TLS 1.2.
    #[error(
        "a TLS connection moves when it speaks TLS 1.3 and its handshake is done: ask its client to connect anew"
    )]
    Tls,
    /// Its core's relay knows it by its place.
    #[error("a relay socket cannot be moved: close it")]
    Relay,
    /// The HTTP server holds the other end of the stream.
    #[error("a connection with the HTTP server cannot be moved: let its request end")]
    Http,
}

/// Why bytes are not a frozen connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ThawError {
    /// Written by a version that this one does not know.
    #[error("a frozen connection of version {0}; this binary reads version {VERSION}")]
    Version(u8),
    /// They end too early.
    #[error("a frozen connection is cut: {0}")]
    Truncated(#[from] Truncated),
    /// The TLS record layer in it is none.
    #[error(transparent)]
    Tls(#[from] tls::ThawError),
    /// The frame reader in it is none.
    #[error(transparent)]
    Reader(#[from] websocket::ThawError),
    /// They say what no connection can be.
    #[error("a frozen connection is damaged: {0}")]
    Damaged(&'static str),
    /// It attached to more router workers than there are here.
    #[error("a frozen session knows more router workers than the {attached} that are here")]
    Workers {
        /// Workers here.
        attached: usize,
    },
}

impl Connection {
    /// The whole state as bytes, and gives back what the connection holds of this core's: its session goes
    /// on elsewhere, so no worker is told. What is left is an empty shell to drop: two connections with one
    /// TLS state would seal two records with one nonce.
    ///
    /// # Errors
    /// [`FreezeError`] for a connection that has to stay; it is unchanged then.
    pub fn freeze(&mut self, context: &mut Context, now: Tick) -> Result<Zeroizing<Vec<u8>>, FreezeError> {
        let rest = self.freeze_above_tls(now)?;
        if self.tls.as_ref().is_some_and(|tls| !tls.is_movable()) {
            return Err(FreezeError::Tls);
        }
        let tls_bytes_max = self.tls.as_ref().map_or(0, |tls| tls.frozen_bytes_max());
        let most = 2 + tls_bytes_max + rest.len();
        // Room for all at once: a vector that grows leaves a copy behind.
        let mut out = Zeroizing::new(Vec::with_capacity(most));
        out.put_u8(VERSION);
        put_option(&mut out, self.tls.take(), |out, tls| tls.freeze(out));
        out.extend_from_slice(&rest);
        assert!(out.len() <= most, "room was made for less than {} bytes", out.len());
        self.leave(context);
        Ok(out)
    }

    /// All but the version and TLS.
    fn freeze_above_tls(&self, now: Tick) -> Result<Vec<u8>, FreezeError> {
        let mut out = Vec::new();
        out.put_u64_le(self.id.0);
        out.put_u8(match &self.stage {
            Stage::Head(_) => 0,
            Stage::WebSocket(websocket) if matches!(websocket.mode, Mode::Relay { .. }) => {
                return Err(FreezeError::Relay);
            }
            Stage::WebSocket(_) => 1,
            Stage::Ending => 2,
            Stage::Http(_) => return Err(FreezeError::Http),
        });
        out.put_u8(match self.disposition {
            Disposition::Open => 0,
            Disposition::ShutdownAfterFlush => 1,
            Disposition::CloseAfterFlush => 2,
            Disposition::Abort => 3,
        });
        put_tick(&mut out, self.deadline, now);
        let (output, taken) = self.output.freeze();
        put_bytes(&mut out, &output);
        out.put_u64_le(taken as u64);
        match &self.stage {
            Stage::Head(head) => {
                put_bytes(&mut out, head.peer.to_string().as_bytes());
                put_bytes(&mut out, &head.received);
            }
            Stage::WebSocket(websocket) => websocket.freeze(&mut out, now),
            Stage::Ending | Stage::Http(_) => {}
        }
        Ok(out)
    }

    /// Makes a connection of what [`freeze`](Self::freeze) gave, here and now.
    ///
    /// # Errors
    /// [`ThawError`]: close the socket, its client comes back (4202 says so, where a frame can be sent).
    pub fn thaw(context: &mut Context, now: Tick, frozen: &[u8]) -> Result<Self, ThawError> {
        let mut cursor = ByteCursor::new(frozen);
        let version = cursor.u8()?;
        if version != VERSION {
            return Err(ThawError::Version(version));
        }
        let tls = take_option(&mut cursor, |cursor| Ok(Box::new(RecordLayer::thaw(cursor)?)))?;
        let id = ConnectionId(cursor.u64()?);
        let stage = cursor.u8()?;
        let disposition = match cursor.u8()? {
            0 => Disposition::Open,
            1 => Disposition::ShutdownAfterFlush,
            2 => Disposition::CloseAfterFlush,
            3 => Disposition::Abort,
            _ => return Err(ThawError::Damaged("a disposition")),
        };
        let deadline = take_tick(&mut cursor, now)?;
        let output = cursor.bytes()?.to_vec();
        let taken = usize::try_from(cursor.u64()?).map_err(|_| ThawError::Damaged("output"))?;
        let output = Output::thaw(output, taken).ok_or(ThawError::Damaged("output"))?;
        let stage = match stage {
            0 => Stage::Head(Box::new(thaw_head(&mut cursor)?)),
            1 => Stage::WebSocket(Box::new(WebSocket::thaw(&mut cursor, context, now)?)),
            2 => Stage::Ending,
            _ => return Err(ThawError::Damaged("a stage")),
        };
        if !cursor.is_at_end() {
            return Err(ThawError::Damaged("bytes behind the end"));
        }
        let mut connection = Connection { id, tls, output, stage, deadline, disposition };
        if let Stage::WebSocket(websocket) = &mut connection.stage {
            websocket.arrive(context);
        }
        Ok(connection)
    }

    fn leave(&mut self, context: &mut Context) {
        if let Stage::WebSocket(websocket) = &mut self.stage {
            websocket.leave(context);
        }
        self.stage = Stage::Ending;
        self.output.clear();
    }
}

fn thaw_head(cursor: &mut ByteCursor<'_>) -> Result<Head, ThawError> {
    let peer = std::str::from_utf8(cursor.bytes()?).ok().and_then(|text| text.parse::<SocketAddr>().ok());
    let peer = peer.ok_or(ThawError::Damaged("a peer's address"))?;
    Ok(Head::thaw(peer, cursor.bytes()?.to_vec()))
}

impl WebSocket {
    fn freeze(&self, out: &mut Vec<u8>, now: Tick) {
        put_bytes(out, self.held());
        put_tick(out, self.heard, now);
        put_option(out, self.message_since(), |out, since| put_tick(out, since, now));
        out.put_u8(u8::from(self.closing));
        match &self.mode {
            Mode::Echo | Mode::Relay { .. } => out.put_u8(0),
            Mode::Chat(session) => {
                out.put_u8(1);
                session.freeze(out, now);
            }
        }
        self.reader.freeze(out);
    }

    fn thaw(cursor: &mut ByteCursor<'_>, context: &Context, now: Tick) -> Result<Self, ThawError> {
        let held = cursor.bytes()?.to_vec();
        let heard = take_tick(cursor, now)?;
        let message_since = take_option(cursor, |cursor| take_tick(cursor, now))?;
        let closing = take_flag(cursor)?;
        let mode = match cursor.u8()? {
            0 => Mode::Echo,
            1 => Mode::Chat(Session::thaw(cursor, now, context.worker_count())?),
            _ => return Err(ThawError::Damaged("a kind of socket")),
        };
        let mut rest = cursor.rest();
        let reader = FrameReader::thaw(&mut rest)?;
        let consumed = cursor.rest().len() - rest.len();
        cursor.take(consumed)?;
        Ok(Self::resume(reader, mode, held, heard, message_since, closing))
    }
}
