//! Which driver of the kernel is under the cores: io_uring, or epoll where io_uring is refused.
//!
//! A sysctl, a container's seccomp profile or an old kernel may refuse io_uring. The service is the same on epoll,
//! at a price that is said in the log; whoever would rather have no service than that asks for io_uring.

use std::fmt;

use ringway_ring::{KernelReport, RingError};

/// What the operator wants: `gateway.io`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IoChoice {
    /// io_uring if it is to be had, else epoll.
    #[default]
    Auto,
    /// io_uring, or no start.
    IoUring,
    /// epoll, without asking for io_uring.
    Epoll,
}

/// What carries the sockets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SocketIo {
    /// io_uring, with what it gave.
    IoUring(KernelReport),
    /// epoll.
    Epoll {
        /// The kernel's version.
        release: String,
        /// RLIMIT_NOFILE, of which each connection takes one.
        descriptors_max: u64,
        /// Why it is not io_uring; `None`: epoll was chosen.
        refusal: Option<String>,
    },
}

/// Its price, for the line that warns of it.
const COST: &str = "each receive and each send is a system call, and each connection an open file";

impl SocketIo {
    /// Tries what is chosen on this machine.
    ///
    /// # Errors
    /// Why io_uring is refused, if nothing else was to be tried.
    pub fn find(choice: IoChoice) -> Result<Self, RingError> {
        Self::decide(choice, ringway_ring::probe)
    }

    fn decide(
        choice: IoChoice,
        probe: impl FnOnce() -> Result<KernelReport, RingError>,
    ) -> Result<Self, RingError> {
        let refusal = match choice {
            IoChoice::Epoll => None,
            IoChoice::IoUring => return probe().map(SocketIo::IoUring),
            IoChoice::Auto => match probe() {
                Ok(report) => return Ok(SocketIo::IoUring(report)),
                Err(error) => Some(error.to_string()),
            },
        };
        Ok(SocketIo::Epoll {
            release: ringway_ring::release(),
            descriptors_max: ringway_ring::descriptors_max(),
            refusal,
        })
    }

    /// `io_uring` or `epoll`, as in the setting and on the metrics page.
    pub fn name(&self) -> &'static str {
        match self {
            SocketIo::IoUring(_) => "io_uring",
            SocketIo::Epoll { .. } => "epoll",
        }
    }

    /// What an operator who did not choose epoll should know.
    pub fn warning(&self) -> Option<String> {
        let SocketIo::Epoll { refusal: Some(refusal), .. } = self else { return None };
        Some(format!(
            "epoll carries the sockets: {COST}. {refusal}. gateway.io \"epoll\" takes it without this warning, \
             \"io_uring\" refuses to start"
        ))
    }
}

impl fmt::Display for SocketIo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SocketIo::IoUring(report) => report.fmt(f),
            SocketIo::Epoll { release, descriptors_max, refusal } => {
                write!(f, "Linux {release}, epoll")?;
                if let Some(refusal) = refusal {
                    write!(f, " ({refusal})")?;
                }
                write!(f, ": {COST}; open files at most {descriptors_max}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused() -> Result<KernelReport, RingError> {
        Err(RingError::Refused { why: "the sysctl kernel.io_uring_disabled is 2".to_owned() })
    }

    #[test]
    fn where_io_uring_is_refused_epoll_serves_and_a_line_says_why_and_what_it_costs() {
        let io = SocketIo::decide(IoChoice::Auto, refused).unwrap();
        assert_eq!(io.name(), "epoll");
        let warning = io.warning().unwrap();
        for part in ["io_uring_disabled is 2", "system call", "open file", "gateway.io"] {
            assert!(warning.contains(part), "{part}: {warning}");
        }
        assert!(io.to_string().contains("io_uring_disabled is 2"), "{io}");
    }

    #[test]
    fn whoever_asks_for_io_uring_gets_it_or_the_refusal() {
        assert!(matches!(SocketIo::decide(IoChoice::IoUring, refused), Err(RingError::Refused { .. })));
        assert_eq!(SocketIo::find(IoChoice::IoUring).unwrap().name(), "io_uring");
    }

    #[test]
    fn io_uring_is_the_first_choice_and_is_not_warned_of() {
        let io = SocketIo::find(IoChoice::Auto).unwrap();
        assert_eq!((io.name(), io.warning()), ("io_uring", None));
    }

    #[test]
    fn whoever_asks_for_epoll_is_not_warned_and_io_uring_is_not_tried() {
        let io = SocketIo::decide(IoChoice::Epoll, || panic!("it was tried")).unwrap();
        assert_eq!((io.name(), io.warning()), ("epoll", None));
    }
}
