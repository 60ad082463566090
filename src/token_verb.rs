//! `ringway token`: development tokens for people, scripts and load clients, one a line and nothing else.

use std::io::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use ringway_protocol::ids::Timestamp;
use ringway_protocol::token::mint_development;
use ringway_protocol::user::{DeviceId, UserId};

use crate::command_line::TokenRequest;
use crate::data_folder::{DataFolder, secret};
use crate::exit::{Exit, Failure};
use crate::settings::Settings;

/// Prints what was asked for.
///
/// # Errors
/// [`Exit::Keys`] if the data folder has no development key, or another one is in use; [`Exit::Usage`] for a
/// name or a life that a token cannot have.
pub(crate) fn print(request: &TokenRequest, settings: &Settings) -> Result<(), Failure> {
    let folder = DataFolder::at(&settings.data.folder);
    let path = folder.signing_key();
    if settings.has_key_set() {
        return Err(Failure::new(
            Exit::Keys,
            "tokens are checked against auth.jwks_file or auth.jwks_url here, and only their issuer can \
             make them",
        ));
    }
    if !path.exists() {
        return Err(Failure::new(
            Exit::Keys,
            format!(
                "{}: not there; run this in the folder where `ringway serve` runs, or name its data folder \
                 with --data.folder",
                path.display()
            ),
        ));
    }
    if request.life > settings.auth.max_token_life_s {
        return Err(Failure::new(
            Exit::Usage,
            format!(
                "--life {} is more than auth.max_token_life_s ({}) allows",
                request.life, settings.auth.max_token_life_s
            ),
        ));
    }
    let secret = secret(&path)?;
    let name =
        |what: &str, error: &dyn std::fmt::Display| Failure::new(Exit::Usage, format!("{what}: {error}"));
    let device =
        request.device.as_deref().map(DeviceId::new).transpose().map_err(|error| name("--device", &error))?;
    let mint = |sub: &str| -> Result<String, Failure> {
        let user = UserId::new(&request.tenant, sub).map_err(|error| name("the user", &error))?;
        Ok(mint_development(&secret, &user, device.as_ref(), now(), request.life))
    };
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    // A reader that closes the pipe early (`| head`) has what it wanted.
    let mut line = |text: String| writeln!(out, "{text}").is_ok();
    match (&request.user, &request.prefix) {
        (Some(user), _) => {
            line(mint(user)?);
        }
        (None, Some(prefix)) => {
            for number in 0..request.count.unwrap_or(0) {
                let user = format!("{prefix}{number}");
                let token = mint(&user)?;
                if !line(format!("{user} {token}")) {
                    break;
                }
            }
        }
        (None, None) => {}
    }
    Ok(())
}

/// The wall clock.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
