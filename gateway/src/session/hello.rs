//! Who a session is and until when: `hello`, `refresh`, and the end of a token.
//!
//! `welcome` comes after every router worker has come to our `Attach`: each is asked something that it
//! must answer, behind the `Attach` in its inbox. So a client that reads its history after `welcome`
//! misses nothing between what it read and what flows.

use ringway_protocol::client::{ErrorCode, Hello, Limits, ServerFrame, Welcome};
use ringway_protocol::ids::{Position, SessionId};
use ringway_protocol::limits::{HEARTBEAT_MILLISECONDS, HELLO_MILLISECONDS};
use ringway_protocol::token::Claims;
use ringway_protocol::trunk::{Operation, ToRouter};
use ringway_protocol::user::{DeviceId, UserId};
use ringway_protocol::websocket::CloseCode;

use super::Session;
use super::pending::Asked;
use crate::clock::Tick;
use crate::connection::limits::TOKEN_WARNING_MILLISECONDS;
use crate::connection::{End, Exchange, Step};
use crate::context::Context;

/// How far a session has come.
pub(super) enum State {
    /// `welcome` is still to be said.
    Arriving(Box<Arriving>),
    /// `welcome` is queued.
    Welcome,
}

/// How far one has come that is not welcome yet.
pub(super) enum Arriving {
    /// Nothing was said, or nothing that counts.
    AwaitingHello {
        /// What a Bearer token at the upgrade said.
        bearer: Option<Box<Claims>>,
        /// Then 4108.
        deadline: Tick,
    },
    /// `hello` holds; the workers are on their way to the `Attach`.
    Attaching {
        /// Workers that have not answered.
        probes: u16,
        /// The `hello` wants heads.
        resumes: bool,
    },
}

/// Who it is.
pub(super) struct Identity {
    pub(super) user: UserId,
    pub(super) device: DeviceId,
    pub(super) session: SessionId,
    /// The end of its token.
    pub(super) expires: Tick,
    /// It was told that the end is near.
    pub(super) warned: bool,
    /// Workers that were told of it, from the first on.
    pub(super) attached: u16,
    /// The `resume` of its `hello` was a cursor of ours.
    pub(super) cursor_known: bool,
}

impl State {
    pub(super) fn awaiting_hello(bearer: Option<Box<Claims>>, now: Tick) -> Self {
        Arriving::AwaitingHello { bearer, deadline: now + HELLO_MILLISECONDS }.into()
    }

    /// When the first `hello` is due.
    pub(super) fn deadline(&self) -> Tick {
        match self {
            State::Arriving(arriving) => match **arriving {
                Arriving::AwaitingHello { deadline, .. } => deadline,
                Arriving::Attaching { .. } => Tick(u64::MAX),
            },
            State::Welcome => Tick(u64::MAX),
        }
    }

    /// Whether the workers have not all come to our `Attach`.
    pub(super) fn is_attaching(&self) -> bool {
        matches!(self, State::Arriving(arriving) if matches!(**arriving, Arriving::Attaching { .. }))
    }
}

impl From<Arriving> for State {
    fn from(arriving: Arriving) -> Self {
        State::Arriving(Box::new(arriving))
    }
}

impl Identity {
    /// When [`Session::check_token`] has something to do.
    pub(super) fn next_tick(&self, is_welcome: bool) -> Tick {
        if self.warned || !is_welcome { self.expires } else { self.warn_at() }
    }

    fn warn_at(&self) -> Tick {
        self.expires - TOKEN_WARNING_MILLISECONDS
    }
}

impl Session {
    pub(super) fn handle_hello(&mut self, exchange: &mut Exchange<'_>, hello: Hello) -> Step {
        let State::Arriving(arriving) = &mut self.state else {
            return self.handle_hello_again(exchange, hello);
        };
        match &mut **arriving {
            Arriving::AwaitingHello { bearer, .. } => {
                let bearer = bearer.take();
                self.handle_first_hello(exchange, hello, bearer)
            }
            // It is not read while it attaches; what a batch still holds is as wrong as a second hello.
            Arriving::Attaching { .. } => {
                Err(End::close(CloseCode::BAD_REQUEST, "wait for welcome after hello"))
            }
        }
    }

    fn handle_first_hello(
        &mut self,
        exchange: &mut Exchange<'_>,
        hello: Hello,
        bearer: Option<Box<Claims>>,
    ) -> Step {
        let claims = match (&hello.token, bearer) {
            (Some(token), bearer) => {
                let claims = verify(exchange.context, exchange.now, token)
                    .map_err(|error| End::Close(CloseCode::UNAUTHORIZED, error.into()))?;
                if bearer.is_some_and(|bearer| bearer.user != claims.user) {
                    let reason = "the token in hello is another user's than the one at the upgrade";
                    return Err(End::close(CloseCode::FORBIDDEN, reason));
                }
                claims
            }
            (None, Some(bearer)) => *bearer,
            (None, None) => {
                return Err(End::close(CloseCode::UNAUTHORIZED, "hello needs a token"));
            }
        };
        let device = match (claims.device, hello.device) {
            (Some(bound), Some(said)) if bound != said => {
                let reason = "the token is for another device than hello says";
                return Err(End::close(CloseCode::FORBIDDEN, reason));
            }
            (Some(bound), _) => bound,
            (None, Some(said)) => said,
            (None, None) => new_device(exchange.context),
        };
        let cursor = hello.resume.as_deref().map(|text| exchange.context.cursors.decode(&claims.user, text));
        let identity = Identity {
            user: claims.user,
            device,
            session: exchange.context.session_id(),
            expires: exchange.context.tick_of(claims.expires),
            warned: false,
            attached: 0,
            cursor_known: cursor.flatten().is_some(),
        };
        tracing::debug!(
            connection = ?exchange.id, session = %identity.session, client = ?hello.client, "hello"
        );
        self.batch = hello.batch;
        self.work().resuming = cursor.map(Option::unwrap_or_default);
        self.identity = Some(identity);
        self.attach(exchange, cursor.is_some())
    }

    /// Tells every worker, and asks each whether it has come to it.
    fn attach(&mut self, exchange: &mut Exchange<'_>, resumes: bool) -> Step {
        let overloaded = || End::close(CloseCode::OVERLOADED, "the server does not keep up: come back later");
        let workers = exchange.context.worker_count();
        self.state = Arriving::Attaching { probes: workers as u16, resumes }.into();
        for worker in 0..workers {
            let Some(identity) = &mut self.identity else { return Ok(()) };
            let (user, device) = (identity.user.clone(), identity.device.clone());
            let attach = ToRouter::Attach { connection: exchange.id, user: user.clone(), device };
            if !exchange.context.push(worker, attach) {
                return Err(overloaded());
            }
            identity.attached += 1;
            let conversation = exchange.context.probe_of(worker);
            let probe = Operation::SyncEnd { conversation };
            if !self.ask(exchange, worker, user, probe, Asked::Probe) {
                return Err(overloaded());
            }
        }
        Ok(())
    }

    /// A worker has come to our `Attach`, whatever it answers.
    pub(super) fn handle_probe_answer(&mut self, exchange: &mut Exchange<'_>) -> Step {
        let State::Arriving(arriving) = &mut self.state else { return Ok(()) };
        let Arriving::Attaching { probes, resumes } = &mut **arriving else { return Ok(()) };
        *probes -= 1;
        let (left, resumes) = (*probes, *resumes);
        if left > 0 {
            return Ok(());
        }
        self.state = State::Welcome;
        exchange.context.note_session_begin();
        self.queue_welcome(exchange);
        if resumes {
            self.ask_heads(exchange);
        }
        self.rest(exchange.now);
        self.check_token(exchange)
    }

    /// `hello` on a session that is welcome: `resume` after a gap without an id, and perhaps a new token.
    fn handle_hello_again(&mut self, exchange: &mut Exchange<'_>, hello: Hello) -> Step {
        if !self.allow_other(exchange)? {
            return Ok(());
        }
        let Some(identity) = &self.identity else { return Ok(()) };
        if hello.device.is_some_and(|device| device != identity.device) {
            let message = "this socket is another device's: open a new one";
            self.queue_error(exchange, ErrorCode::Forbidden, message);
            return Ok(());
        }
        if let Some(token) = &hello.token
            && !self.renew(exchange, token)
        {
            return Ok(());
        }
        if self.is_resuming() && hello.resume.is_some() {
            self.queue_error(exchange, ErrorCode::RateLimited, "wait for the heads of the last hello");
            return Ok(());
        }
        self.batch |= hello.batch;
        let Some(resume) = hello.resume else {
            self.queue_welcome(exchange);
            return Ok(());
        };
        let Some(identity) = &mut self.identity else { return Ok(()) };
        let cursor = exchange.context.cursors.decode(&identity.user, &resume);
        identity.cursor_known = cursor.is_some();
        self.work().resuming = Some(cursor.unwrap_or_default());
        // What is left out from here on is noted anew; what was told before is in the heads.
        if let Some(gaps) = self.gaps_mut() {
            gaps.resumed();
        }
        self.drop_gaps_if_over();
        self.queue_welcome(exchange);
        self.ask_heads(exchange);
        Ok(())
    }

    pub(super) fn handle_refresh(&mut self, exchange: &mut Exchange<'_>, token: &str) -> Step {
        if self.allow_other(exchange)? && self.renew(exchange, token) {
            self.tell_gaps(exchange);
            self.queue_welcome(exchange);
            self.check_token(exchange)?;
        }
        Ok(())
    }

    /// Takes a new token for the same user and device. False if it is refused, and the client was told.
    fn renew(&mut self, exchange: &mut Exchange<'_>, token: &str) -> bool {
        let Some(identity) = &mut self.identity else { return false };
        let (code, message) = match verify(exchange.context, exchange.now, token) {
            Err(error) => (ErrorCode::Unauthorized, error),
            Ok(claims) if claims.user != identity.user => {
                (ErrorCode::Forbidden, "the new token is another user's: open a new socket".to_owned())
            }
            Ok(claims) if claims.device.as_ref().is_some_and(|device| *device != identity.device) => {
                (ErrorCode::Forbidden, "the new token is another device's: open a new socket".to_owned())
            }
            Ok(claims) => {
                identity.expires = exchange.context.tick_of(claims.expires);
                identity.warned = false;
                return true;
            }
        };
        self.queue_error(exchange, code, &message);
        false
    }

    pub(super) fn check_hello_deadline(&self, now: Tick) -> Step {
        if now >= self.state.deadline() {
            return Err(End::close(CloseCode::NO_HELLO, "no hello within 8 s"));
        }
        Ok(())
    }

    /// Warns before the end of the token, and ends the session with it.
    pub(super) fn check_token(&mut self, exchange: &mut Exchange<'_>) -> Step {
        let is_welcome = self.is_welcome();
        let Some(identity) = &mut self.identity else { return Ok(()) };
        if exchange.now >= identity.expires {
            return Err(End::close(
                CloseCode::TOKEN_EXPIRED,
                "the token expired: come back with a fresh one",
            ));
        }
        if is_welcome && !identity.warned && exchange.now >= identity.warn_at() {
            identity.warned = true;
            let message = "the token ends within a minute: send refresh with a fresh one";
            self.queue_error(exchange, ErrorCode::TokenExpiring, message);
        }
        Ok(())
    }

    fn queue_welcome(&self, exchange: &mut Exchange<'_>) {
        let Some(identity) = &self.identity else { return };
        let settings = &exchange.context.settings;
        let welcome = Welcome {
            user_id: identity.user.sub().to_owned(),
            device_id: identity.device.as_str().to_owned(),
            session_id: format!("{:016x}", identity.session.0),
            resume: self.cursor(exchange.context),
            server_ts: exchange.context.timestamp(exchange.now),
            heartbeat_ms: HEARTBEAT_MILLISECONDS,
            limits: Limits {
                max_frame_bytes: settings.message_bytes_max as u64,
                max_inflight: settings.inflight_max,
                max_queue_bytes: settings.queue_bytes_max as u64,
                send_per_s: settings.sends_per_second,
                send_burst: settings.send_burst,
                dedup_window_s: settings.dedup_window_seconds,
            },
        };
        self.queue(exchange, &ServerFrame::Welcome(Box::new(welcome)));
    }

    /// Whether heads are still owed.
    pub(super) fn is_resuming(&self) -> bool {
        self.resuming().is_some()
    }

    /// The position to ask heads from: none if the cursor was no cursor of ours.
    pub(super) fn resume_since(&self) -> Option<Position> {
        self.resuming().filter(|_| self.identity.as_ref().is_some_and(|identity| identity.cursor_known))
    }
}

/// Checks a token. The error's text says what is wrong with it and nothing of what it holds.
fn verify(context: &Context, now: Tick, token: &str) -> Result<Claims, String> {
    context.keys.load().verify(token, context.timestamp(now)).map_err(|error| error.to_string())
}

/// A device id for a client that keeps none: unique, and told in `welcome`.
fn new_device(context: &mut Context) -> DeviceId {
    let (high, low) = (context.random_u64(), context.random_u64());
    DeviceId::new(&format!("{high:016x}{low:016x}")).expect("32 bytes are within 1 to 64")
}
