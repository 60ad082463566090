//! The first request of a connection: gathered, then upgraded, handed to the HTTP server, or refused.
//!
//! What is read strictly and why is `ringway_protocol::websocket::upgrade`; here is what this server
//! decides: which paths are sockets, whose page may open one, and whether a Bearer token holds. Bytes
//! behind the head are frames only once the 101 is queued; the caller sees to that.

use std::net::SocketAddr;

use ringway_protocol::client::Encoding;
use ringway_protocol::token::Claims;
use ringway_protocol::websocket::upgrade::{HeadScanner, RequestHead, UpgradeRefusal, UpgradeRequest};

use crate::clock::Tick;
use crate::context::Context;
use crate::relay::RelayName;

/// A request's head on its way in.
pub(super) struct Head {
    pub(super) peer: SocketAddr,
    /// Everything that arrived, also what lies behind the head.
    pub(super) received: Vec<u8>,
    scanner: HeadScanner,
}

/// What becomes of a connection after its first request.
pub(super) enum Request {
    /// The HTTP server's.
    Http,
    /// A socket.
    Upgrade(Upgrade),
}

/// An upgrade that is granted.
pub(super) struct Upgrade {
    /// The 101.
    pub(super) response: Vec<u8>,
    /// What it is a socket of.
    pub(super) kind: UpgradeKind,
}

/// The sockets that there are.
pub(super) enum UpgradeKind {
    /// `/ws`, with what a Bearer token said.
    Chat(Encoding, Option<Box<Claims>>),
    /// `/echo`.
    Echo,
    /// `/relay`, under this name, and whether in the room.
    Relay(RelayName, bool),
}

impl Head {
    /// Nothing has arrived.
    pub(super) fn new(peer: SocketAddr) -> Self {
        Self { peer, received: Vec::new(), scanner: HeadScanner::default() }
    }

    /// The opposite of [`received`](Self::received) and [`peer`](Self::peer): scanned anew.
    pub(super) fn thaw(peer: SocketAddr, received: Vec<u8>) -> Self {
        Self { peer, received, scanner: HeadScanner::default() }
    }

    /// Takes bytes that arrived. With the head complete: what it asks for, and its length.
    pub(super) fn handle_received(
        &mut self,
        context: &Context,
        now: Tick,
        received: &[u8],
    ) -> Result<Option<(Request, usize)>, UpgradeRefusal> {
        self.received.extend_from_slice(received);
        let Some(end) = self.scanner.find_end(&self.received)? else { return Ok(None) };
        let head = RequestHead::parse(&self.received[..end])?;
        let request = match head.path {
            "/ws" => Request::Upgrade(upgrade_to_chat(&head, context, now)?),
            "/echo" if context.settings.echo => Request::Upgrade(upgrade_to_echo(&head, context)?),
            "/relay" if context.relay.is_some() => Request::Upgrade(upgrade_to_relay(&head, context)?),
            _ => Request::Http,
        };
        Ok(Some((request, end)))
    }
}

fn upgrade_to_chat(head: &RequestHead<'_>, context: &Context, now: Tick) -> Result<Upgrade, UpgradeRefusal> {
    if head.has_token_in_query() {
        return Err(UpgradeRefusal::TokenInUrl);
    }
    let request = UpgradeRequest::check(head)?;
    check_origin(&request, context)?;
    let (encoding, subprotocol) = request.encoding()?;
    let claims = match request.bearer {
        None => None,
        Some(token) => match context.keys.load().verify(token, context.timestamp(now)) {
            Ok(claims) => Some(Box::new(claims)),
            Err(error) => {
                tracing::debug!(%error, "a bad token at the upgrade");
                return Err(UpgradeRefusal::Unauthorized(
                    "the token in Authorization does not hold: get a fresh one",
                ));
            }
        },
    };
    let response = request.accept_response(subprotocol);
    Ok(Upgrade { response, kind: UpgradeKind::Chat(encoding, claims) })
}

fn upgrade_to_echo(head: &RequestHead<'_>, context: &Context) -> Result<Upgrade, UpgradeRefusal> {
    let request = UpgradeRequest::check(head)?;
    check_origin(&request, context)?;
    Ok(Upgrade { response: request.accept_response(None), kind: UpgradeKind::Echo })
}

fn upgrade_to_relay(head: &RequestHead<'_>, context: &Context) -> Result<Upgrade, UpgradeRefusal> {
    let request = UpgradeRequest::check(head)?;
    check_origin(&request, context)?;
    let value = |name| {
        let pairs = head.query.unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
        pairs.filter(|pair| pair.0 == name).map(|pair| pair.1).next()
    };
    let (Some(name), Some(room)) =
        (value("id").and_then(RelayName::parse), value("room").unwrap_or("0").parse::<u8>().ok())
    else {
        return Err(UpgradeRefusal::BadRequest(
            "a relay is opened by /relay?id=N&room=0, N of seven digits at most",
        ));
    };
    Ok(Upgrade { response: request.accept_response(None), kind: UpgradeKind::Relay(name, room == 1) })
}

/// A browser says whose page asks, and cookies or a network position would make every page as good as
/// ours: only exact matches pass. Who sends no `Origin` is no browser.
fn check_origin(request: &UpgradeRequest<'_>, context: &Context) -> Result<(), UpgradeRefusal> {
    match (&context.settings.origins, request.origin) {
        (Some(allowed), Some(origin)) if !allowed.iter().any(|one| one == origin) => {
            Err(UpgradeRefusal::OriginNotAllowed)
        }
        _ => Ok(()),
    }
}
