//! Who the virtual users are: names and tokens, from a file or minted with a server's development key.
//!
//! A minted token is made each time it is shown: a name costs some bytes, a token some hundred, and half a
//! million of them are more than everything else that an idle client holds.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use ringway_protocol::ids::Timestamp;
use ringway_protocol::token::mint_development;
use ringway_protocol::user::UserId;

/// Life of a minted token: longer than a load run, within the server's default of 24 hours.
const TOKEN_LIFE_SECONDS: u64 = 12 * 3600;

/// Why there are no logins.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// A file could not be read.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A line is not a login.
    #[error("{} line {line}: not `USER TOKEN`. `ringway token --prefix u --count N` prints such lines", path.display())]
    Line {
        /// Which file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
    },
    /// There are too few lines.
    #[error("{} has {found} logins and --users is {wanted}: lower it, or print more tokens", path.display())]
    TooFew {
        /// Which file.
        path: PathBuf,
        /// Lines that it has.
        found: usize,
        /// Users wanted.
        wanted: usize,
    },
    /// A name does not fit.
    #[error("{0:?} is no user of a load: 1 to 24 bytes without `|`")]
    Name(String),
    /// Neither a file nor a key was given.
    #[error("give --tokens FILE (from `ringway token --prefix u --count N`) or --secret-file FILE")]
    NoSource,
}

/// A virtual user's name and token.
#[derive(Clone, Debug)]
pub struct Login {
    /// The `sub` of the token.
    pub user: Arc<str>,
    /// The token.
    pub token: Token,
}

/// A token, or what makes it.
#[derive(Clone)]
pub enum Token {
    /// Somebody made it.
    Given(Arc<str>),
    /// It is made when it is shown, with this development key.
    Minted(Arc<[u8]>),
}

impl Login {
    /// The token's text.
    pub fn token(&self) -> Cow<'_, str> {
        match &self.token {
            Token::Given(text) => Cow::Borrowed(text),
            Token::Minted(secret) => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                let now = Timestamp(since.as_millis() as u64);
                // A login's name was checked; a name that is none gets a token that nobody takes.
                let user = UserId::new("", &self.user);
                user.map(|user| mint_development(secret, &user, None, now, TOKEN_LIFE_SECONDS))
                    .unwrap_or_default()
                    .into()
            }
        }
    }
}

impl From<&str> for Token {
    fn from(text: &str) -> Self {
        Self::Given(text.into())
    }
}

/// Neither a token nor a key is for logs.
impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Token")
    }
}

/// Where the logins come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// Lines `USER TOKEN`.
    Tokens(PathBuf),
    /// The development key of the server; users are `prefix0`, `prefix1` …
    Secret {
        /// The file of the key.
        path: PathBuf,
        /// What the names begin with.
        prefix: String,
    },
}

impl Source {
    /// The first `count` logins.
    ///
    /// # Errors
    /// [`LoginError`].
    pub fn logins(&self, count: usize) -> Result<Vec<Login>, LoginError> {
        match self {
            Source::Tokens(path) => {
                let text = std::fs::read_to_string(path).map_err(|source| file_error(path, source))?;
                from_lines(path, &text, count)
            }
            Source::Secret { path, prefix } => {
                let secret = std::fs::read(path).map_err(|source| file_error(path, source))?;
                minted(&secret, prefix, 0..count)
            }
        }
    }
}

/// The logins of users `prefix` with these numbers, whose tokens the development key makes.
///
/// # Errors
/// [`LoginError::Name`].
pub fn minted(secret: &[u8], prefix: &str, numbers: Range<usize>) -> Result<Vec<Login>, LoginError> {
    let secret: Arc<[u8]> = secret.into();
    let login = |number| {
        let user = checked(&format!("{prefix}{number}"))?;
        Ok(Login { user, token: Token::Minted(Arc::clone(&secret)) })
    };
    numbers.map(login).collect()
}

fn file_error(path: &Path, source: std::io::Error) -> LoginError {
    LoginError::File { path: path.to_path_buf(), source }
}

fn from_lines(path: &Path, text: &str, count: usize) -> Result<Vec<Login>, LoginError> {
    let mut logins = Vec::with_capacity(count);
    for (index, line) in text.lines().filter(|line| !line.trim().is_empty()).enumerate().take(count) {
        let mut words = line.split_whitespace();
        let (Some(user), Some(token), None) = (words.next(), words.next(), words.next()) else {
            return Err(LoginError::Line { path: path.to_path_buf(), line: index + 1 });
        };
        logins.push(Login { user: checked(user)?, token: token.into() });
    }
    if logins.len() < count {
        return Err(LoginError::TooFew { path: path.to_path_buf(), found: logins.len(), wanted: count });
    }
    Ok(logins)
}

/// A name that leaves room for the rest of a client message id, and whose payloads can be read back.
fn checked(name: &str) -> Result<Arc<str>, LoginError> {
    match name.len() {
        1..=24 if !name.contains('|') => Ok(name.into()),
        _ => Err(LoginError::Name(name.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_logins_or_an_error_that_says_which() {
        let path = Path::new("tokens");
        let logins = from_lines(path, "u0 aaa\nu1 bbb\n\nu2 ccc\n", 2).unwrap();
        assert_eq!((&*logins[1].user, &*logins[1].token()), ("u1", "bbb"));
        assert!(matches!(from_lines(path, "u0 aaa\nu1", 2), Err(LoginError::Line { line: 2, .. })));
        assert!(matches!(from_lines(path, "u0 aaa", 2), Err(LoginError::TooFew { found: 1, .. })));
        assert!(matches!(from_lines(path, "u|0 aaa", 1), Err(LoginError::Name(_))));
        assert!(!format!("{logins:?}").contains("bbb"));
    }

    #[test]
    fn a_minted_token_names_its_user() {
        let logins = minted(&[7; 32], "u", 3..5).unwrap();
        assert_eq!((&*logins[0].user, &*logins[1].user), ("u3", "u4"));
        assert_eq!(logins[0].token().split('.').count(), 3, "header, claims and signature");
        assert_ne!(logins[0].token(), logins[1].token());
    }
}
