//! The limit on open files: raised as far as it goes, and a clear error where that is too little.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors besides the sockets: files, rings, timers, HTTP connections.
const SPARE: u64 = 64;

/// The sockets asked for do not fit.
#[derive(Debug, thiserror::Error)]
#[error(
    "{sockets} sockets need {needed} open files and the limit is {limit}. Raise it (`ulimit -n {needed}`, or \
     LimitNOFILE= of the unit), or ask for fewer"
)]
pub struct TooFewDescriptors {
    /// Sockets asked for.
    pub sockets: u64,
    /// Descriptors that they need.
    pub needed: u64,
    /// The hard limit of this process.
    pub limit: u64,
}

/// Makes room for so many sockets, by raising the soft limit to the hard one.
///
/// # Errors
/// The hard limit is too low.
pub fn make_room(sockets: u64) -> Result<(), TooFewDescriptors> {
    let needed = sockets + SPARE;
    let now = getrlimit(Resource::Nofile);
    let enough = |limit: Option<u64>| limit.is_none_or(|limit| limit >= needed);
    if enough(now.current) {
        return Ok(());
    }
    let raised = Rlimit { current: now.maximum, maximum: now.maximum };
    if enough(now.maximum) && setrlimit(Resource::Nofile, raised).is_ok() {
        return Ok(());
    }
    Err(TooFewDescriptors { sockets, needed, limit: now.maximum.unwrap_or(u64::MAX) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_is_too_low_is_named() {
        assert!(make_room(1).is_ok());
        if let Some(limit) = getrlimit(Resource::Nofile).maximum {
            let error = make_room(limit).unwrap_err().to_string();
            assert!(error.contains(&format!("the limit is {limit}")), "{error}");
        }
    }
}
