//! Exit codes: what a supervisor may rely on.
//!
//! Codes of 2 to 7 mean that starting again unchanged will not help; 1 means that it may.

/// How the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// Done: drained and ended, or printed what was asked.
    Success = 0,
    /// A part ended that should not have; the log says which.
    Failure = 1,
    /// The command line or a setting is wrong.
    Usage = 2,
    /// An address could not be listened on.
    Bind = 3,
    /// The data folder could not be opened or written, or another process uses it.
    Store = 4,
    /// The kernel refuses io_uring where nothing else may be used, or gives fewer descriptors or less memory than asked for.
    Kernel = 5,
    /// A development key or certificate would have served beyond loopback.
    DevelopmentKey = 6,
    /// The certificate, its key or the issuer's key set could not be read.
    Keys = 7,
}

impl Exit {
    /// All of them with their meaning, for the help text.
    pub(crate) const MEANINGS: &'static [(Exit, &'static str)] = &[
        (Exit::Success, "done"),
        (Exit::Failure, "a part ended that should not have"),
        (Exit::Usage, "the command line or a setting is wrong"),
        (Exit::Bind, "an address could not be listened on"),
        (Exit::Store, "the data folder could not be opened, or another process uses it"),
        (
            Exit::Kernel,
            "the kernel refuses io_uring (with `gateway.io` \"io_uring\"), or gives fewer descriptors than asked for",
        ),
        (Exit::DevelopmentKey, "a development key would have served beyond loopback"),
        (Exit::Keys, "the certificate, its key or the key set could not be read"),
    ];
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        std::process::ExitCode::from(exit as u8)
    }
}

/// Why the process ends early: what to print, and the code.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The code.
    pub(crate) exit: Exit,
    /// What happened and what to do, for a person.
    pub(crate) message: String,
}

impl Failure {
    /// Joins the two.
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into() }
    }
}
