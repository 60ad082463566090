//! `send`: from the client to the worker that owns the conversation, and its `ack` back.

use std::time::Duration;

use ringway_protocol::client::{Ack, Destination, ErrorCode, ErrorFrame, Send, ServerFrame};
use ringway_protocol::trunk::{Operation, Outcome, Refusal, Target};
use ringway_protocol::user::ClientMessageId;

use super::Session;
use super::pending::{Asked, Request};
use crate::connection::limits::INBOX_FULL_RETRY_MILLISECONDS;
use crate::connection::{Exchange, Step};

impl Session {
    pub(super) fn handle_send(&mut self, exchange: &mut Exchange<'_>, send: Send) -> Step {
        let Some(identity) = &self.identity else { return Ok(()) };
        let user = identity.user.clone();
        let Send { destination, client_message_id, message } = send;
        let settings = &exchange.context.settings;
        if self.inflight() >= settings.inflight_max {
            self.window_full = true;
            let message =
                "more sends without their ack than max_inflight: nothing is read until half is acked";
            self.queue_send_error(exchange, &client_message_id, ErrorCode::WindowFull, message, None);
            return Ok(());
        }
        let (rate, burst) = (settings.sends_per_second, settings.send_burst);
        if let Err(retry_after_ms) = self.work().sends.take(exchange.now, rate, burst) {
            let id = client_message_id.as_str().to_owned();
            return self.queue_rate_limited(exchange, Some(id), retry_after_ms);
        }
        let target = match destination {
            Destination::Conversation(conversation) => Target::Conversation(conversation),
            Destination::User(sub) => match user.neighbour(&sub) {
                Ok(other) => Target::User(other),
                Err(error) => {
                    let message = error.to_string();
                    self.queue_send_error(exchange, &client_message_id, ErrorCode::Invalid, &message, None);
                    return Ok(());
                }
            },
        };
        let worker = exchange.context.worker_of(target.shard(&user));
        let operation = Operation::Send { target, client_message_id: client_message_id.clone(), message };
        if self.ask(exchange, worker, user, operation, Asked::Send(client_message_id.clone())) {
            self.work().inflight += 1;
        } else {
            let message = "the server has more to do than it can: send it again after retry_after_ms";
            let retry = Some(INBOX_FULL_RETRY_MILLISECONDS);
            self.queue_send_error(exchange, &client_message_id, ErrorCode::Unavailable, message, retry);
        }
        Ok(())
    }

    pub(super) fn handle_send_answer(
        &mut self,
        exchange: &mut Exchange<'_>,
        request: Request,
        outcome: Result<Outcome, Refusal>,
    ) {
        let Asked::Send(client_message_id) = request.asked else { return };
        self.free_window(exchange);
        match outcome {
            Ok(Outcome::Sent { conversation, message, seq, server_ts, duplicate }) => {
                self.tell_gap_before(exchange, conversation);
                let ack = Ack { client_message_id, conversation, message, seq, server_ts, duplicate };
                self.queue(exchange, &ServerFrame::Ack(ack));
                let waited = exchange.now.since(request.since);
                exchange.context.metrics.ack.record(Duration::from_millis(waited));
            }
            Ok(other) => {
                tracing::error!(?other, "a send was answered with something else");
                self.queue_unavailable(exchange, &client_message_id);
            }
            Err(Refusal::Unavailable) => self.queue_unavailable(exchange, &client_message_id),
            Err(refusal) => {
                let message = refusal.to_string();
                self.queue_send_error(exchange, &client_message_id, refusal.into(), &message, None);
            }
        }
    }

    /// Ten seconds without an answer: whether it was stored is unknown.
    pub(super) fn give_up_send(&mut self, exchange: &mut Exchange<'_>, client_message_id: &ClientMessageId) {
        self.free_window(exchange);
        self.queue_unavailable(exchange, client_message_id);
    }

    fn free_window(&mut self, exchange: &Exchange<'_>) {
        let work = self.work();
        work.inflight -= 1;
        if work.inflight <= exchange.context.settings.inflight_max / 2 {
            self.window_full = false;
        }
    }

    fn queue_unavailable(&self, exchange: &mut Exchange<'_>, client_message_id: &ClientMessageId) {
        let message = Refusal::Unavailable.to_string();
        let retry = Some(INBOX_FULL_RETRY_MILLISECONDS);
        self.queue_send_error(exchange, client_message_id, ErrorCode::Unavailable, &message, retry);
    }

    fn queue_send_error(
        &self,
        exchange: &mut Exchange<'_>,
        client_message_id: &ClientMessageId,
        code: ErrorCode,
        message: &str,
        retry_after_ms: Option<u64>,
    ) {
        let error = ErrorFrame {
            client_message_id: Some(client_message_id.as_str().to_owned()),
            retry_after_ms,
            ..ErrorFrame::new(code, message)
        };
        self.queue(exchange, &ServerFrame::Error(error));
    }
}
