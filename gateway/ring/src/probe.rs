//! What this machine's kernel gives: printed at start, and named when it refuses.
//!
//! A container's seccomp profile or a sysctl may forbid io_uring altogether; the error then says which of
//! the two it is and what to change. Nothing here changes anything but the soft limit on open files.

use std::fmt;
use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::driver::RingError;
use crate::kernel::{KernelDriver, KernelSettings, RingFeatures};

/// What the kernel gave to a small ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelReport {
    /// Its version.
    pub release: String,
    /// What it agreed to.
    pub features: RingFeatures,
    /// RLIMIT_NOFILE: the largest table of sockets of one ring.
    pub descriptors_max: u64,
    /// RLIMIT_MEMLOCK in bytes; rings count against it before Linux 5.12.
    pub locked_bytes_max: Option<u64>,
}

impl fmt::Display for KernelReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let yes = |is: bool| if is { "yes" } else { "no" };
        write!(
            f,
            "Linux {}, io_uring: deferred task work {}, registered ring {}, restricted {}, \
             completions kept on overflow {}; \
             open files at most {}",
            self.release,
            yes(self.features.deferred),
            yes(self.features.registered_ring),
            yes(self.features.restricted),
            yes(self.features.no_drop),
            self.descriptors_max,
        )
    }
}

/// Sets up a small ring with all that a large one needs, and takes it down again.
///
/// On a thread of its own: the kernel takes a ring down later, and would interrupt a system call of the
/// thread that made it (EINTR where a timeout is set on a socket).
///
/// # Errors
/// Why no ring can be had here.
pub fn probe() -> Result<KernelReport, RingError> {
    let settings =
        KernelSettings { slots: 8, submissions: 8, completions: 32, buffers: 8, buffer_bytes: 4_096 };
    let set_up = move || KernelDriver::new(settings).map(|driver| driver.features());
    let features = std::thread::scope(|scope| scope.spawn(set_up).join().expect("a probe does not panic"))?;
    Ok(KernelReport {
        release: release(),
        features,
        descriptors_max: descriptors_max(),
        locked_bytes_max: getrlimit(Resource::Memlock).current,
    })
}

/// Raises the soft limit on open files to the hard one, and returns the limit that holds now.
pub fn raise_descriptor_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    // It fails only if the hard limit was lowered meanwhile; what then holds is read again.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    descriptors_max()
}

/// The limit on open files that holds now. None at all counts as the kernel's own default bound.
pub fn descriptors_max() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(1 << 20)
}

/// The kernel's version, as `uname -r` says it.
pub fn release() -> String {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    release.trim().to_owned()
}

/// Says why io_uring_setup(2) failed, and what to do.
pub(crate) fn refused(error: &io::Error) -> RingError {
    let disabled = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
    let why = match (error.raw_os_error(), disabled.trim()) {
        (Some(libc::EPERM), level @ ("1" | "2")) => format!(
            "the sysctl kernel.io_uring_disabled is {level}. Set it to 0 (sysctl -w kernel.io_uring_disabled=0), \
             or to 1 with this process in the group of kernel.io_uring_group"
        ),
        (Some(libc::EPERM | libc::EACCES), _) => {
            "a seccomp filter (a container's default profile, mostly) forbids it. Run with a profile that \
             allows io_uring_setup, io_uring_enter and io_uring_register \
             (docker: --security-opt seccomp=FILE, or unconfined)"
                .to_owned()
        }
        (Some(libc::ENOSYS), _) => format!(
            "the kernel ({}) is built without it, or a sandbox hides it. Ringway needs Linux 6.7 or newer",
            release()
        ),
        (Some(libc::ENOMEM), _) => {
            "there is too little memory, or RLIMIT_MEMLOCK is too low (ulimit -l)".to_owned()
        }
        (Some(libc::EMFILE | libc::ENFILE), _) => {
            "no file descriptor is left. Raise the limit on open files (ulimit -n)".to_owned()
        }
        _ => error.to_string(),
    };
    RingError::Refused { why }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_what_to_change() {
        let RingError::Refused { why } = refused(&io::Error::from_raw_os_error(libc::EPERM)) else {
            panic!("a refusal");
        };
        assert!(why.contains("seccomp") || why.contains("io_uring_disabled"), "{why}");
        assert!(refused(&io::Error::from_raw_os_error(libc::ENOSYS)).to_string().contains("6.7"));
    }
}
