//! The names that people and devices bring: cheap to clone, ordered, and checked once, where they enter.
//!
//! A name is 8 bytes that point to one shared text: a session, its requests and every worker's directory hold
//! the same one. A standard `Arc<str>` would keep the length beside each of its pointers.

use std::fmt;

use arcstr::ArcStr;

use crate::ids::{ShardId, placement_hash};
use crate::limits::NAME_BYTES_MAX;

/// A user: the token's `sub`, unique within its `tenant`. Nothing crosses tenants.
///
/// Kept as one string, the length of the tenant first, so that a clone is one counter and the bytes are a
/// store key: `len(tenant) as u8`, tenant, sub.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserId(ArcStr);

/// Why a name was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// It has no bytes.
    #[error("a name needs at least 1 byte")]
    Empty,
    /// It has more bytes than [`NAME_BYTES_MAX`].
    #[error("a name has at most {NAME_BYTES_MAX} bytes of UTF-8")]
    TooLong,
}

impl UserId {
    /// A user of a tenant; the tenant may be empty.
    ///
    /// # Errors
    /// [`NameError`] if `sub` is empty, or either is longer than [`NAME_BYTES_MAX`].
    pub fn new(tenant: &str, sub: &str) -> Result<Self, NameError> {
        check(sub)?;
        if tenant.len() > NAME_BYTES_MAX {
            return Err(NameError::TooLong);
        }
        let mut text = String::with_capacity(1 + tenant.len() + sub.len());
        // At most 64, so it is one byte of UTF-8 as well.
        text.push(char::from(tenant.len() as u8));
        text.push_str(tenant);
        text.push_str(sub);
        Ok(Self(text.into()))
    }

    /// Reads what [`as_bytes`](Self::as_bytes) gave. `None` if the bytes are not of that form.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let tenant_len = usize::from(*bytes.first()?);
        if tenant_len > NAME_BYTES_MAX {
            return None;
        }
        let sub = text.get(1 + tenant_len..)?;
        // The bytes are the name's already.
        check(sub).ok().map(|()| Self(text.into()))
    }

    /// The tenant, often empty.
    pub fn tenant(&self) -> &str {
        &self.0[1..1 + self.tenant_len()]
    }

    /// The user's id within the tenant: what clients see as `from` and `user_id`.
    pub fn sub(&self) -> &str {
        &self.0[1 + self.tenant_len()..]
    }

    /// Another user of the same tenant.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn neighbour(&self, sub: &str) -> Result<Self, NameError> {
        Self::new(self.tenant(), sub)
    }

    /// The store's form of it.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// The virtual shard for what belongs to this user: connections, list of conversations.
    pub fn shard(&self) -> ShardId {
        ShardId::of_hash(placement_hash(self.as_bytes()))
    }

    fn tenant_len(&self) -> usize {
        usize::from(self.0.as_bytes()[0])
    }
}

impl fmt::Debug for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.tenant().is_empty() {
            write!(f, "{:?}", self.sub())
        } else {
            write!(f, "{:?}/{:?}", self.tenant(), self.sub())
        }
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(ArcStr);

        impl $name {
            /// Checks and keeps it.
            ///
            /// # Errors
            /// [`NameError`] if it is empty or longer than [`NAME_BYTES_MAX`].
            pub fn new(text: &str) -> Result<Self, NameError> {
                check(text)?;
                Ok(Self(text.into()))
            }

            /// Its text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

name!(
    /// One device of a user; one socket each.
    DeviceId
);
name!(
    /// A client's name for a send: the idempotency key is (conversation, sender, this).
    ClientMessageId
);

// Half a million sessions hold two of them each.
const _: () = assert!(size_of::<Option<UserId>>() == 8 && size_of::<Option<DeviceId>>() == 8);

/// Bytes that lie in front of a name's text on the heap: its length, and how many hold it.
pub const NAME_HEADER_BYTES: usize = 16;

fn check(text: &str) -> Result<(), NameError> {
    match text.len() {
        0 => Err(NameError::Empty),
        1..=NAME_BYTES_MAX => Ok(()),
        _ => Err(NameError::TooLong),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_keeps_tenant_and_sub_apart() {
        let user = UserId::new("acme", "zoë").unwrap();
        assert_eq!((user.tenant(), user.sub()), ("acme", "zoë"));
        assert_eq!(UserId::from_bytes(user.as_bytes()), Some(user.clone()));
        assert_ne!(UserId::new("a", "cme").unwrap(), UserId::new("ac", "me").unwrap());
        assert_eq!(UserId::new("", ""), Err(NameError::Empty));
        assert_eq!(UserId::new("", &"x".repeat(65)), Err(NameError::TooLong));
    }
}
