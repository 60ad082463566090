//! The three cipher suites of TLS 1.3 that are in use, and the key schedule's one function.
//!
//! A suite names the AEAD that seals records and the hash that derives keys from secrets. Keys come from a
//! traffic secret by HKDF-Expand-Label (RFC 8446 section 7.1), always with an empty context.

use aws_lc_rs::aead::{self, AES_128_GCM, AES_256_GCM, CHACHA20_POLY1305};
use aws_lc_rs::hkdf::{self, HKDF_SHA256, HKDF_SHA384};

/// Longest traffic secret, in bytes: a SHA-384 hash.
pub const SECRET_BYTES_MAX: usize = 48;

/// Longest key of an AEAD, in bytes.
pub(super) const KEY_BYTES_MAX: usize = 32;

/// A cipher suite, by its number in the IANA registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Suite {
    /// `TLS_AES_128_GCM_SHA256`: what a browser asks for first on a machine with AES instructions.
    Aes128GcmSha256 = 0x1301,
    /// `TLS_AES_256_GCM_SHA384`: what rustls asks for first.
    Aes256GcmSha384 = 0x1302,
    /// `TLS_CHACHA20_POLY1305_SHA256`: what a phone without AES instructions asks for.
    Chacha20Poly1305Sha256 = 0x1303,
}

impl Suite {
    /// The suite of this number.
    pub fn from_number(number: u16) -> Option<Self> {
        [Self::Aes128GcmSha256, Self::Aes256GcmSha384, Self::Chacha20Poly1305Sha256]
            .into_iter()
            .find(|suite| suite.number() == number)
    }

    /// Its number in the IANA registry.
    pub fn number(self) -> u16 {
        self as u16
    }

    /// Bytes of a traffic secret: one hash.
    pub fn secret_len(self) -> usize {
        match self {
            Self::Aes128GcmSha256 | Self::Chacha20Poly1305Sha256 => 32,
            Self::Aes256GcmSha384 => 48,
        }
    }

    pub(super) fn key_len(self) -> usize {
        self.aead().key_len()
    }

    pub(super) fn aead(self) -> &'static aead::Algorithm {
        match self {
            Self::Aes128GcmSha256 => &AES_128_GCM,
            Self::Aes256GcmSha384 => &AES_256_GCM,
            Self::Chacha20Poly1305Sha256 => &CHACHA20_POLY1305,
        }
    }

    fn hkdf(self) -> hkdf::Algorithm {
        match self {
            Self::Aes128GcmSha256 | Self::Chacha20Poly1305Sha256 => HKDF_SHA256,
            Self::Aes256GcmSha384 => HKDF_SHA384,
        }
    }

    /// `HKDF-Expand-Label(secret, label, "", out.len())`. `secret` has [`secret_len`](Self::secret_len)
    /// bytes, `out` at most as many.
    pub(super) fn expand_label(self, secret: &[u8], label: &str, out: &mut [u8]) {
        let len = u16::try_from(out.len()).expect("at most one hash").to_be_bytes();
        let label_len = u8::try_from(PREFIX.len() + label.len()).expect("our labels are short");
        let info = [&len[..], &[label_len], PREFIX.as_bytes(), label.as_bytes(), &[0]];
        hkdf::Prk::new_less_safe(self.hkdf(), secret)
            .expand(&info, OutputLen(out.len()))
            .and_then(|output| output.fill(out))
            .expect("one hash is within HKDF's bound");
    }
}

const PREFIX: &str = "tls13 ";

struct OutputLen(usize);

impl hkdf::KeyType for OutputLen {
    fn len(&self) -> usize {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_names_one_suite() {
        for number in 0x1300..0x1310 {
            assert_eq!(
                Suite::from_number(number).map(Suite::number),
                (0x1301..=0x1303).contains(&number).then_some(number)
            );
        }
    }
}
