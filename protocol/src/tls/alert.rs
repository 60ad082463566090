//! Alerts: how one end of TLS tells the other that, and why, it ends (RFC 8446 section 6).

use std::fmt;

/// Why a connection ends, by its number in the IANA registry.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Alert(pub u8);

impl Alert {
    /// Nothing more is sent; no error.
    pub const CLOSE_NOTIFY: Self = Self(0);
    /// A message, or a record's type, that does not belong here.
    pub const UNEXPECTED_MESSAGE: Self = Self(10);
    /// A record that its key does not open.
    pub const BAD_RECORD_MAC: Self = Self(20);
    /// A record longer than records may be.
    pub const RECORD_OVERFLOW: Self = Self(22);
    /// A field with a value that it cannot have.
    pub const ILLEGAL_PARAMETER: Self = Self(47);
    /// A message that cannot be read.
    pub const DECODE_ERROR: Self = Self(50);
    /// Our own trouble.
    pub const INTERNAL_ERROR: Self = Self(80);
    /// The user gave up; `close_notify` follows.
    pub const USER_CANCELED: Self = Self(90);

    /// The level that goes with it: 1, a warning, for the two that are no errors, else 2, fatal. TLS 1.3
    /// does not look at it.
    pub(super) fn level(self) -> u8 {
        if matches!(self, Self::CLOSE_NOTIFY | Self::USER_CANCELED) { 1 } else { 2 }
    }

    fn name(self) -> &'static str {
        match self.0 {
            0 => "close_notify",
            10 => "unexpected_message",
            20 => "bad_record_mac",
            22 => "record_overflow",
            40 => "handshake_failure",
            42 => "bad_certificate",
            46 => "certificate_unknown",
            47 => "illegal_parameter",
            48 => "unknown_ca",
            50 => "decode_error",
            51 => "decrypt_error",
            80 => "internal_error",
            90 => "user_canceled",
            _ => "another",
        }
    }
}

impl fmt::Display for Alert {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} ({})", self.name(), self.0)
    }
}

impl fmt::Debug for Alert {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}
