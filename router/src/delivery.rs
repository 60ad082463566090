//! From a worker to the endpoints: in order, grouped by pass, and bounded where an endpoint falls behind.
//!
//! When an endpoint's inbox is full, what goes there waits in a backlog. Past the backlog's bound the
//! fan-outs in it are dropped, and the endpoint is told first of all that something was lost, so that its
//! connections catch up from the store. Replies and closes are never dropped: an endpoint has as many
//! replies to come as it has requests open, and that is its own bound.

use std::collections::VecDeque;

use ringway_protocol::ids::EndpointId;
use ringway_protocol::trunk::ToEndpoint;
use ringway_trunk::Endpoints;

/// One worker's ways to all endpoints.
pub(crate) struct Delivery {
    endpoints: Endpoints,
    ways: Vec<Way>,
    fan_outs_max: usize,
    dropped: u64,
    moved: u64,
    wakes: u64,
}

#[derive(Default)]
struct Way {
    backlog: VecDeque<ToEndpoint>,
    /// Fan-outs in the backlog.
    fan_outs: usize,
    /// Something was pushed since the last wake-up.
    pushed: bool,
}

impl Delivery {
    pub(crate) fn new(endpoints: Endpoints, fan_outs_max: usize) -> Self {
        let ways = (0..endpoints.count()).map(|_| Way::default()).collect();
        Self { endpoints, ways, fan_outs_max, dropped: 0, moved: 0, wakes: 0 }
    }

    /// Sends a message on its way. An endpoint that does not exist gets nothing.
    pub(crate) fn send(&mut self, endpoint: EndpointId, message: ToEndpoint) {
        let Some(target) = self.endpoints.get(endpoint) else { return };
        let way = &mut self.ways[usize::from(endpoint.0)];
        let message = if way.backlog.is_empty() {
            match target.push(message) {
                Ok(()) => {
                    way.pushed = true;
                    return;
                }
                Err(message) => *message,
            }
        } else {
            message
        };
        way.fan_outs += usize::from(matches!(message, ToEndpoint::FanOut { .. }));
        way.backlog.push_back(message);
        if way.fan_outs > self.fan_outs_max {
            self.dropped += way.fan_outs as u64;
            way.drop_fan_outs();
        }
    }

    /// Sends a message to every endpoint.
    pub(crate) fn send_to_all(&mut self, message: &ToEndpoint) {
        for endpoint in 0..self.ways.len() {
            self.send(EndpointId(endpoint as u16), message.clone());
        }
    }

    /// At the end of a pass: whatever has room goes, and each endpoint is woken once. False while
    /// something waits for room.
    pub(crate) fn end_pass(&mut self) -> bool {
        let mut all_gone = true;
        for (number, way) in self.ways.iter_mut().enumerate() {
            let Some(target) = self.endpoints.get(EndpointId(number as u16)) else { continue };
            while let Some(message) = way.backlog.pop_front() {
                let is_fan_out = matches!(message, ToEndpoint::FanOut { .. });
                if let Err(message) = target.push(message) {
                    way.backlog.push_front(*message);
                    break;
                }
                way.fan_outs -= usize::from(is_fan_out);
                way.pushed = true;
                self.moved += 1;
            }
            if std::mem::take(&mut way.pushed) {
                self.wakes += u64::from(target.wake());
            }
            all_gone &= way.backlog.is_empty();
        }
        all_gone
    }

    /// Messages that went out of a backlog so far.
    pub(crate) fn moved(&self) -> u64 {
        self.moved
    }

    /// Fan-outs that were dropped so far.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Endpoints that were woken so far, with a system call each.
    pub(crate) fn wakes(&self) -> u64 {
        self.wakes
    }
}

impl Way {
    /// Drops the fan-outs, and the watermarks that would claim they were sent: `Lost` goes first.
    fn drop_fan_outs(&mut self) {
        self.backlog.retain(|message| {
            !matches!(message, ToEndpoint::FanOut { .. } | ToEndpoint::Watermark { .. } | ToEndpoint::Lost)
        });
        self.backlog.push_front(ToEndpoint::Lost);
        self.fan_outs = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use ringway_protocol::ids::{ConnectionId, ConversationId, Position, RequestId, Seq};
    use ringway_protocol::trunk::{BodyReference, FanOutBody, Outcome};
    use ringway_trunk::{Endpoint, Inbox, Outbox, inbox};

    use super::*;

    struct Narrow(Outbox<ToEndpoint>);

    impl Endpoint for Narrow {
        fn push(&self, message: ToEndpoint) -> Result<(), Box<ToEndpoint>> {
            self.0.push(message).map_err(Box::new)
        }
        fn wake(&self) -> bool {
            self.0.wake()
        }
    }

    fn fan_out(seq: u64) -> ToEndpoint {
        let body = FanOutBody {
            reference: BodyReference(seq),
            conversation: ConversationId(1),
            seq: Seq(seq),
            entry: Bytes::new(),
        };
        ToEndpoint::FanOut { body: Arc::new(body), notices: Vec::new() }
    }

    fn reply(request: u64) -> ToEndpoint {
        let connection = ConnectionId::new(EndpointId(0), 0, 0);
        ToEndpoint::Reply { connection, request: RequestId(request), outcome: Ok(Outcome::Done) }
    }

    fn drain(delivery: &mut Delivery, inbox: &Inbox<ToEndpoint>) -> Vec<ToEndpoint> {
        let mut all = Vec::new();
        loop {
            let gone = delivery.end_pass();
            while let Some(message) = inbox.pop() {
                all.push(message);
            }
            if gone {
                return all;
            }
        }
    }

    #[test]
    fn a_full_endpoint_keeps_its_replies_and_is_told_first_that_fan_outs_were_lost() {
        let (inbox, outbox) = inbox(2).unwrap();
        let endpoints = Endpoints::new(vec![Arc::new(Narrow(outbox)) as Arc<dyn Endpoint>]);
        let mut delivery = Delivery::new(endpoints, 2);
        let mark = ToEndpoint::Watermark { worker: 0, position: Position(9) };
        let messages = [
            fan_out(1),
            fan_out(2),
            reply(1),
            fan_out(3),
            fan_out(4),
            mark.clone(),
            reply(2),
            fan_out(5),
            fan_out(6),
        ];
        for message in messages {
            delivery.send(EndpointId(0), message);
        }
        let all = drain(&mut delivery, &inbox);
        let expected = vec![fan_out(1), fan_out(2), ToEndpoint::Lost, reply(1), reply(2), fan_out(6)];
        assert_eq!(all, expected);
        assert_eq!(delivery.dropped(), 3);
        delivery.send(EndpointId(0), mark.clone());
        assert_eq!(drain(&mut delivery, &inbox), [mark]);
    }

    #[test]
    fn within_the_bound_nothing_is_lost_and_order_is_kept() {
        let (inbox, outbox) = inbox(2).unwrap();
        let endpoints = Endpoints::new(vec![Arc::new(Narrow(outbox)) as Arc<dyn Endpoint>]);
        let mut delivery = Delivery::new(endpoints, 100);
        let messages: Vec<_> = (0..40).flat_map(|i| [fan_out(i), reply(i)]).collect();
        for message in &messages {
            delivery.send(EndpointId(0), message.clone());
        }
        assert_eq!(drain(&mut delivery, &inbox), messages);
    }
}
