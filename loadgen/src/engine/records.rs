//! The bytes of a connection as the wire has them: plain, in a TLS handshake, or behind one.
//!
//! rustls shakes hands and is let go; the record layer of `ringway_protocol::tls` goes on with some 250
//! bytes. Only TLS 1.3 is spoken: what a TLS 1.2 session costs a client is not worth half a million of them.

use std::sync::Arc;

use ringway_protocol::tls::{ClientHandshake, Established, RecordLayer};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;

/// The state of a connection's bytes.
pub(super) enum Records {
    /// No TLS.
    Plain,
    /// The handshake is under way.
    Handshake(Box<ClientHandshake>),
    /// Behind it.
    Open(Box<RecordLayer>),
}

/// The connection is of no use any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Broken;

/// What a step of the handshake came to.
pub(super) enum Step {
    /// More is to arrive.
    Wait,
    /// It is done; so many of the bytes were its own, and what follows belongs to [`Records::Open`].
    Done(usize),
}

impl Records {
    /// The state at the start of a connection; `wire` gets what is to be sent first.
    pub(super) fn begin(
        tls: Option<&(Arc<ClientConfig>, ServerName<'static>)>,
        wire: &mut Vec<u8>,
    ) -> Result<Self, Broken> {
        let Some((config, name)) = tls else { return Ok(Self::Plain) };
        let mut handshake = ClientHandshake::connect(Arc::clone(config), name.clone()).map_err(|_| Broken)?;
        wire.append(&mut handshake.take_outgoing());
        Ok(Self::Handshake(Box::new(handshake)))
    }

    /// Whether a device may speak.
    pub(super) fn is_open(&self) -> bool {
        !matches!(self, Self::Handshake(_))
    }

    /// Takes what arrived while the handshake is under way; `wire` gets its answer.
    pub(super) fn shake(&mut self, received: &[u8], wire: &mut Vec<u8>) -> Result<Step, Broken> {
        let Self::Handshake(handshake) = self else { return Ok(Step::Done(0)) };
        let used = handshake.handle_received(received);
        wire.append(&mut handshake.take_outgoing());
        let used = used.map_err(|_| Broken)?;
        if !handshake.is_done() {
            return Ok(Step::Wait);
        }
        let Self::Handshake(handshake) = std::mem::replace(self, Self::Plain) else { return Err(Broken) };
        match handshake.finish() {
            Ok(Established::Compact(layer)) => {
                *self = Self::Open(Box::new(layer));
                Ok(Step::Done(used))
            }
            Ok(Established::Tls12(_)) | Err(_) => Err(Broken),
        }
    }

    /// Opens what arrived and gives its plain text to `take`, which says whether to go on.
    pub(super) fn open(
        &mut self,
        received: &mut [u8],
        mut take: impl FnMut(&mut [u8]) -> bool,
    ) -> Result<bool, Broken> {
        let layer = match self {
            Self::Plain => return Ok(take(received)),
            Self::Handshake(_) => return Err(Broken),
            Self::Open(layer) => layer,
        };
        let mut opened = layer.open(received);
        let goes_on = (opened.gathered.is_empty() || take(&mut opened.gathered))
            && (opened.in_place.is_empty() || take(&mut received[opened.in_place.clone()]));
        match opened.outcome {
            Ok(()) => Ok(goes_on && !layer.peer_has_closed()),
            Err(_) => Err(Broken),
        }
    }

    /// Appends to `wire` what says `text`, and what TLS itself has to say.
    pub(super) fn seal(&mut self, text: &[u8], wire: &mut Vec<u8>) -> Result<(), Broken> {
        match self {
            Self::Plain => wire.extend_from_slice(text),
            Self::Handshake(_) => {}
            Self::Open(layer) => {
                if layer.has_outgoing() {
                    layer.take_outgoing(wire, usize::MAX).map_err(|_| Broken)?;
                }
                if !text.is_empty() {
                    layer.seal(text, wire).map_err(|_| Broken)?;
                }
            }
        }
        Ok(())
    }

    /// Whether TLS itself has something to say.
    pub(super) fn has_outgoing(&self) -> bool {
        matches!(self, Self::Open(layer) if layer.has_outgoing())
    }
}
