//! The answer that is owed to a caller. Whatever happens to the thread that holds it, a panic included, the
//! caller is told: an answer that is dropped says so itself.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::store::{Done, StoreError};

/// Owed exactly once.
pub(super) struct Reply<T> {
    done: Option<Done<Result<T, StoreError>>>,
    /// Part of a batch that is being written: dropped now, nobody knows what came of it.
    writing: bool,
}

impl<T> Reply<T> {
    /// Takes on the debt.
    pub(super) fn new(done: Done<Result<T, StoreError>>) -> Self {
        Self { done: Some(done), writing: false }
    }

    /// From here on, a reply that gets lost is [`StoreError::Unknown`]; before, [`StoreError::Unavailable`].
    pub(super) fn writing(&mut self) {
        self.writing = true;
    }

    /// Pays.
    pub(super) fn answer(mut self, result: Result<T, StoreError>) {
        self.pay(result);
    }

    /// Says that nothing was done, and why.
    pub(super) fn refuse(self, reason: &str) {
        self.answer(Err(StoreError::Unavailable(reason.to_owned())));
    }

    fn pay(&mut self, result: Result<T, StoreError>) {
        if let Some(done) = self.done.take()
            && catch_unwind(AssertUnwindSafe(|| done(result))).is_err()
        {
            tracing::error!("what was to take an answer of the store panicked");
        }
    }
}

impl<T> Drop for Reply<T> {
    fn drop(&mut self) {
        let error = if self.writing {
            StoreError::Unknown("the store's writer ended while it was written".to_owned())
        } else {
            StoreError::Unavailable("the store ended or failed before it came to this".to_owned())
        };
        self.pay(Err(error));
    }
}

#[cfg(test)]
mod tests {
    use crossbeam::channel;

    use super::*;

    #[test]
    fn a_reply_that_is_lost_answers_itself_once() {
        let (sender, receiver) = channel::unbounded();
        let reply = |sender: &channel::Sender<_>| {
            let sender = sender.clone();
            Reply::<u32>::new(Box::new(move |result| sender.send(result).unwrap()))
        };
        drop(reply(&sender));
        assert!(matches!(receiver.try_recv(), Ok(Err(StoreError::Unavailable(_)))));
        let mut written = reply(&sender);
        written.writing();
        drop(written);
        assert!(matches!(receiver.try_recv(), Ok(Err(StoreError::Unknown(_)))));
        reply(&sender).answer(Ok(3));
        assert_eq!(receiver.try_recv(), Ok(Ok(3)));
        assert!(receiver.is_empty());
        Reply::<u32>::new(Box::new(|_| panic!("on purpose"))).answer(Ok(1));
    }
}
