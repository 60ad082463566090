//! The workers' inboxes as those see them who put letters in, up to and past a worker's end.
//!
//! A drain is over when nothing is counted in `work`: each worker counts from the start until it has seen
//! the drain and has nothing open, and a forward counts until it was taken in. So no worker ends while
//! another could still hand it something, except when its time is over.
//!
//! A worker that ends leaves its inbox here and then looks into it; who puts a letter in looks afterwards
//! whether the inbox was left. One of the two sees the other, and whoever it is answers `unavailable`.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering, fence};

use ringway_protocol::ids::{ConnectionId, RequestId};
use ringway_protocol::trunk::{Refusal, ToEndpoint, ToRouter};
use ringway_trunk::{Endpoints, Inbox, Outbox};

use crate::driver::Letter;
use crate::metrics::{RouterMetrics, refusal_index};

/// The inboxes of all workers, by number.
pub(crate) struct Mailboxes {
    boxes: Vec<Mailbox>,
    metrics: RouterMetrics,
    /// Whom to answer in place of a worker that ended; known from the start on.
    endpoints: OnceLock<Endpoints>,
    /// Workers that have not drained, and forwards that were not taken in.
    work: AtomicUsize,
}

struct Mailbox {
    outbox: Outbox<Letter>,
    /// What a worker that ended left.
    left: OnceLock<Inbox<Letter>>,
}

impl Mailboxes {
    pub(crate) fn new(outboxes: Vec<Outbox<Letter>>, metrics: RouterMetrics) -> Self {
        let work = AtomicUsize::new(outboxes.len());
        let boxes = outboxes.into_iter().map(|outbox| Mailbox { outbox, left: OnceLock::new() }).collect();
        Self { boxes, metrics, endpoints: OnceLock::new(), work }
    }

    /// Whom to answer from now on.
    pub(crate) fn set_endpoints(&self, endpoints: Endpoints) {
        // A router starts once: it is taken by value.
        let _ = self.endpoints.set(endpoints);
    }

    /// How many workers there are.
    pub(crate) fn count(&self) -> usize {
        self.boxes.len()
    }

    /// Puts a letter in without waking the worker.
    ///
    /// # Errors
    /// Gives the letter back when the inbox is full or the worker has ended.
    #[expect(
        clippy::result_large_err,
        reason = "the letter goes on from there: a box would be made to be opened"
    )]
    pub(crate) fn push(&self, worker: usize, letter: Letter) -> Result<(), Letter> {
        let mailbox = &self.boxes[worker];
        if mailbox.left.get().is_some() {
            return Err(letter);
        }
        let is_forward = matches!(letter, Letter::Forwarded(_));
        if is_forward {
            // Counted before it is there, so that no drain ends in between.
            self.work.fetch_add(1, Ordering::SeqCst);
        }
        if let Err(letter) = mailbox.outbox.push(letter) {
            if is_forward {
                self.work.fetch_sub(1, Ordering::SeqCst);
            }
            return Err(letter);
        }
        self.refuse_left(worker);
        Ok(())
    }

    /// Wakes a worker after the last push of a pass.
    pub(crate) fn wake(&self, worker: usize) -> bool {
        self.boxes[worker].outbox.wake()
    }

    /// A worker ends: what is in its inbox, and what may still come, is refused.
    pub(crate) fn leave(&self, worker: usize, inbox: Inbox<Letter>) {
        let twice = self.boxes[worker].left.set(inbox).is_err();
        assert!(!twice, "a worker ends once");
        self.refuse_left(worker);
    }

    /// A worker has something open again.
    pub(crate) fn begin_work(&self) {
        self.work.fetch_add(1, Ordering::SeqCst);
    }

    /// A worker has nothing open any more, or took in so many forwards.
    pub(crate) fn end_work(&self, count: usize) {
        let before = self.work.fetch_sub(count, Ordering::SeqCst);
        assert!(before >= count, "what ends was counted");
    }

    /// Whether no worker has anything open and nothing is between two of them. Only a drain gets there.
    pub(crate) fn is_drained(&self) -> bool {
        self.work.load(Ordering::SeqCst) == 0
    }

    /// Answers what is in the inbox of a worker that ended; nothing while it runs.
    fn refuse_left(&self, worker: usize) {
        // Between a push and this look, and between leaving and that one: one of them sees the other.
        fence(Ordering::SeqCst);
        let Some(inbox) = self.boxes[worker].left.get() else { return };
        while let Some(letter) = inbox.pop() {
            match letter {
                Letter::Endpoint(ToRouter::Request { connection, request, .. }) => {
                    self.refuse(worker, connection, request);
                }
                Letter::Endpoint(ToRouter::Attach { .. } | ToRouter::Detach { .. }) => {}
                Letter::Forwarded(forward) => {
                    self.refuse(worker, forward.caller.connection, forward.caller.request);
                    self.end_work(1);
                }
            }
        }
    }

    fn refuse(&self, worker: usize, connection: ConnectionId, request: RequestId) {
        self.metrics.0[worker].refusals[refusal_index(Refusal::Unavailable)].increment();
        let Some(endpoint) = self.endpoints.get().and_then(|all| all.get(connection.endpoint())) else {
            return;
        };
        let outcome = Err(Refusal::Unavailable);
        if endpoint.push(ToEndpoint::Reply { connection, request, outcome }).is_err() {
            tracing::warn!(worker, "an endpoint has no room for a refusal of a worker that ended");
        }
        endpoint.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    use ringway_protocol::ids::{ConversationId, EndpointId};
    use ringway_protocol::trunk::Operation;
    use ringway_protocol::user::UserId;
    use ringway_trunk::{Endpoint, inbox};

    use super::*;
    use crate::shard::{Caller, Forward, Task};

    struct Ear(Outbox<ToEndpoint>);

    impl Endpoint for Ear {
        fn push(&self, message: ToEndpoint) -> Result<(), Box<ToEndpoint>> {
            self.0.push(message).map_err(Box::new)
        }
        fn wake(&self) -> bool {
            self.0.wake()
        }
    }

    fn mailboxes() -> (Inbox<Letter>, Inbox<ToEndpoint>, Mailboxes) {
        let (letters, outbox) = inbox(1 << 14).unwrap();
        let (heard, ear) = inbox(1 << 14).unwrap();
        let mailboxes = Mailboxes::new(vec![outbox], RouterMetrics::new(1));
        mailboxes.set_endpoints(Endpoints::new(vec![Arc::new(Ear(ear)) as Arc<dyn Endpoint>]));
        (letters, heard, mailboxes)
    }

    fn letter(number: u64) -> Letter {
        let (connection, request) = (ConnectionId::new(EndpointId(0), 1, 1), RequestId(number));
        let user = UserId::new("", "alice").unwrap();
        let operation = Operation::SyncEnd { conversation: ConversationId(1) };
        if number.is_multiple_of(2) {
            return Letter::Endpoint(ToRouter::Request { connection, request, user, operation });
        }
        Letter::Forwarded(Box::new(Forward {
            caller: Caller { connection, request, user, accepted_microseconds: 0 },
            conversation: ConversationId(1),
            task: Task::Operation(operation),
        }))
    }

    fn refused(heard: &Inbox<ToEndpoint>) -> Vec<u64> {
        let mut refused = Vec::new();
        while let Some(message) = heard.pop() {
            let ToEndpoint::Reply { request, outcome: Err(Refusal::Unavailable), .. } = message else {
                panic!("not a refusal: {message:?}")
            };
            refused.push(request.0);
        }
        refused
    }

    #[test]
    fn what_a_worker_left_is_refused_once_and_counts_no_more() {
        let (letters, heard, mailboxes) = mailboxes();
        for number in 0..4 {
            mailboxes.push(0, letter(number)).unwrap();
        }
        mailboxes.end_work(1);
        assert!(!mailboxes.is_drained(), "two forwards were not taken in");
        mailboxes.leave(0, letters);
        assert_eq!(refused(&heard), [0, 1, 2, 3]);
        assert!(mailboxes.is_drained());
        assert!(mailboxes.push(0, letter(5)).is_err(), "given back to who would hand it over");
        assert!(mailboxes.is_drained());
    }

    /// A letter that comes while the worker ends is given back or refused, never both and never neither.
    #[test]
    fn no_letter_is_lost_between_a_push_and_the_end() {
        for _ in 0..200 {
            let (letters, heard, mailboxes) = mailboxes();
            let ended = AtomicBool::new(false);
            let mut answered: BTreeSet<u64> = BTreeSet::new();
            let pushed = std::thread::scope(|scope| {
                let pushing = scope.spawn(|| {
                    let mut given_back = Vec::new();
                    for number in 0..2_000 {
                        if mailboxes.push(0, letter(number)).is_err() {
                            given_back.push(number);
                        }
                        if number == 20 {
                            ended.store(true, Ordering::Release);
                        }
                    }
                    given_back
                });
                while !ended.load(Ordering::Acquire) {
                    std::hint::spin_loop();
                }
                mailboxes.leave(0, letters);
                pushing.join().unwrap()
            });
            for number in refused(&heard).into_iter().chain(pushed) {
                assert!(answered.insert(number), "{number} is answered twice");
            }
            assert_eq!(answered.len(), 2_000);
            mailboxes.end_work(1);
            assert!(mailboxes.is_drained());
        }
    }
}
