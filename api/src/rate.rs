//! How many requests a user may make: a token bucket for sends and changes, one for reads, with the rates
//! of the socket.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use ringway_protocol::user::UserId;

use crate::limits::RATED_USERS_MAX;
use crate::problem::Problem;

/// What a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// Appends to a log.
    Write,
    /// Looks.
    Read,
}

/// The buckets of all users.
pub(crate) struct Rates {
    per_second: f64,
    burst: f64,
    buckets: Mutex<HashMap<(UserId, Kind), Bucket>>,
}

#[derive(Clone, Copy)]
struct Bucket {
    left: f64,
    at: Instant,
}

impl Rates {
    /// Buckets of `burst` requests that fill up with `per_second`.
    pub(crate) fn new(per_second: u32, burst: u32) -> Self {
        Self { per_second: f64::from(per_second), burst: f64::from(burst), buckets: Mutex::default() }
    }

    /// Takes one request from the user's bucket.
    ///
    /// # Errors
    /// `rate_limited`, with the seconds until there is one again.
    pub(crate) fn take(&self, user: &UserId, kind: Kind, now: Instant) -> Result<(), Problem> {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= RATED_USERS_MAX {
            buckets.retain(|_, bucket| self.filled(bucket, now) < self.burst);
            if buckets.len() >= RATED_USERS_MAX {
                // As many users as fit are busy at once: none is let in above the bound.
                return Err(Problem::rate_limited(1));
            }
        }
        let full = Bucket { left: self.burst, at: now };
        let bucket = buckets.entry((user.clone(), kind)).or_insert(full);
        bucket.left = self.filled(bucket, now);
        bucket.at = now;
        if bucket.left < 1.0 {
            return Err(Problem::rate_limited(((1.0 - bucket.left) / self.per_second).ceil() as u64));
        }
        bucket.left -= 1.0;
        Ok(())
    }

    fn filled(&self, bucket: &Bucket, now: Instant) -> f64 {
        let since = now.saturating_duration_since(bucket.at).as_secs_f64();
        (bucket.left + since * self.per_second).min(self.burst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_burst_then_a_rate_each_user_and_kind_apart() {
        let rates = Rates::new(2, 3);
        let now = Instant::now();
        let [alice, bob] = ["alice", "bob"].map(|name| UserId::new("", name).unwrap());
        for _ in 0..3 {
            rates.take(&alice, Kind::Write, now).unwrap();
        }
        assert_eq!(rates.take(&alice, Kind::Write, now), Err(Problem::rate_limited(1)));
        assert!(rates.take(&alice, Kind::Read, now).is_ok());
        assert!(rates.take(&bob, Kind::Write, now).is_ok());
        let later = now + Duration::from_millis(500);
        assert!(rates.take(&alice, Kind::Write, later).is_ok());
        assert!(rates.take(&alice, Kind::Write, later).is_err());
    }

    #[test]
    fn users_at_rest_are_forgotten_before_the_bound() {
        let rates = Rates::new(1, 1);
        let now = Instant::now();
        for number in 0..RATED_USERS_MAX {
            rates.take(&UserId::new("", &format!("u{number}")).unwrap(), Kind::Read, now).unwrap();
        }
        let late = UserId::new("", "late").unwrap();
        assert!(rates.take(&late, Kind::Read, now).is_err());
        assert!(rates.take(&late, Kind::Read, now + Duration::from_secs(1)).is_ok());
    }
}
