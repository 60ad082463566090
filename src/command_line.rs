//! The command line: verbs by clap's derive, and a flag for every setting, made from the table of settings.
//!
//! `ringway` without a verb is `ringway serve`. Names that look like a flag and are none get clap's own
//! suggestion; `settings/layers.rs` does the same for the file and the environment.

use std::path::PathBuf;

use clap::{Arg, ArgMatches, Args, Command, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::exit::Exit;
use crate::settings::FIELDS;
use crate::settings::layers::Sources;

/// What was asked.
#[derive(Debug)]
pub(crate) struct CommandLine {
    /// What to do.
    pub(crate) verb: Verb,
    /// Where the settings come from.
    pub(crate) sources: Sources,
}

/// The data plane of a chat service: gateway, router and writers in one command.
#[derive(Debug, Parser)]
#[command(name = "ringway", version, about)]
struct Root {
    #[command(subcommand)]
    verb: Option<Verb>,
}

/// What the command can do.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Run the whole service in this process (also without a verb).
    Serve,
    /// Print the effective configuration and where each value came from; fail if anything is wrong.
    Check,
    /// Print development tokens, signed with the key in the data folder of a running `serve`.
    Token(TokenRequest),
}

/// For whom to make tokens.
#[derive(Clone, Debug, Args)]
pub(crate) struct TokenRequest {
    /// The user to print one token for.
    #[arg(required_unless_present = "prefix", conflicts_with = "prefix")]
    pub(crate) user: Option<String>,
    /// Bind the token to this device.
    #[arg(long)]
    pub(crate) device: Option<String>,
    /// The user's tenant; empty without it.
    #[arg(long, default_value = "")]
    pub(crate) tenant: String,
    /// Seconds that a token lives.
    #[arg(long, default_value_t = 12 * 3600, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) life: u64,
    /// Print a line `USER TOKEN` for each of PREFIX0, PREFIX1, … instead.
    #[arg(long, requires = "count")]
    pub(crate) prefix: Option<String>,
    /// How many of them.
    #[arg(long, requires = "prefix", conflicts_with = "user")]
    pub(crate) count: Option<u32>,
}

/// Reads the command line of this process. Help and version print and end the process, as do usage errors
/// (with [`Exit::Usage`], which is clap's code as well).
pub(crate) fn read() -> CommandLine {
    let matches = command().get_matches();
    from_matches(&matches).unwrap_or_else(|error| error.exit())
}

/// Reads a command line given as words, for tests.
#[cfg(test)]
pub(crate) fn read_words(words: &[&str]) -> Result<CommandLine, clap::Error> {
    from_matches(&command().try_get_matches_from(words)?)
}

fn from_matches(matches: &ArgMatches) -> Result<CommandLine, clap::Error> {
    let verb = Root::from_arg_matches(matches)?.verb.unwrap_or(Verb::Serve);
    let mut sources = Sources { variables: std::env::vars_os().collect(), ..Sources::default() };
    take_flags(matches, &mut sources);
    if let Some((_, matches)) = matches.subcommand() {
        take_flags(matches, &mut sources);
    }
    Ok(CommandLine { verb, sources })
}

fn take_flags(matches: &ArgMatches, sources: &mut Sources) {
    if let Some(path) = matches.try_get_one::<PathBuf>("config").ok().flatten() {
        sources.file = Some(path.clone());
    }
    for field in FIELDS {
        // An id that this verb does not have is an error of try_get_one, and no flag was given.
        if let Some(value) = matches.try_get_one::<String>(field.name).ok().flatten() {
            sources.flags.push((field.name.to_owned(), value.clone()));
        }
    }
}

fn command() -> Command {
    let codes = Exit::MEANINGS
        .iter()
        .map(|(exit, meaning)| format!("  {}  {meaning}", *exit as u8))
        .collect::<Vec<_>>()
        .join("\n");
    let after = format!(
        "Each setting is also a key of ringway.toml (table `section`, key `key`) and a variable \
         RINGWAY__SECTION__KEY; flags win over variables, variables over the file.\n\nExit codes:\n{codes}"
    );
    let with_settings = |command: Command| setting_flags(command, |_| true).after_help(after.clone());
    with_settings(Root::command())
        .mut_subcommand("serve", with_settings)
        .mut_subcommand("check", with_settings)
        .mut_subcommand("token", |command| setting_flags(command, |name| name == "data.folder"))
}

/// Settings that are asked for so often from the command line that their flag has a second name.
const SHORT_NAMES: [(&str, &str); 1] = [("gateway.io", "io")];

fn setting_flags(command: Command, has: impl Fn(&str) -> bool) -> Command {
    let config = Arg::new("config")
        .long("config")
        .value_name("FILE")
        .value_parser(clap::value_parser!(PathBuf))
        .help("Settings file; without it ./ringway.toml is read if it is there");
    let flags = FIELDS.iter().filter(|field| has(field.name)).map(|field| {
        let short = SHORT_NAMES.iter().find(|(name, _)| *name == field.name).map(|(_, short)| *short);
        Arg::new(field.name)
            .long(field.name)
            .visible_aliases(short)
            .value_name("VALUE")
            .allow_hyphen_values(true)
            .overrides_with(field.name)
            .help(help(field))
            .help_heading("Settings")
    });
    command.arg(config).args(flags)
}

fn help(field: &crate::settings::field::Field) -> String {
    let default = (field.show)(&crate::settings::Settings::default());
    let default = default.map_or_else(String::new, |default| format!(" [default: {default}]"));
    format!("{}{default}", field.help.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_is_well_formed() {
        command().debug_assert();
    }

    #[test]
    fn no_verb_is_serve_and_flags_stand_before_or_behind_the_verb() {
        for words in [
            &["ringway", "--listen.wss", "127.0.0.1:0"][..],
            &["ringway", "serve", "--listen.wss", "127.0.0.1:0"],
            &["ringway", "--listen.wss=127.0.0.1:0", "serve"],
        ] {
            let line = read_words(words).unwrap();
            assert!(matches!(line.verb, Verb::Serve));
            assert_eq!(line.sources.flags, [("listen.wss".to_owned(), "127.0.0.1:0".to_owned())]);
        }
    }

    #[test]
    fn a_short_name_of_a_flag_is_the_setting() {
        let line = read_words(&["ringway", "serve", "--io", "epoll"]).unwrap();
        assert_eq!(line.sources.flags, [("gateway.io".to_owned(), "epoll".to_owned())]);
        assert!(SHORT_NAMES.iter().all(|(name, _)| FIELDS.iter().any(|field| field.name == *name)));
    }

    #[test]
    fn an_unknown_flag_is_refused_with_a_suggestion() {
        let error = read_words(&["ringway", "serve", "--lisen.wss", "off"]).unwrap_err();
        assert_eq!(error.exit_code(), i32::from(Exit::Usage as u8));
        assert!(error.to_string().contains("--listen.wss"), "{error}");
    }

    #[test]
    fn token_takes_a_user_or_a_prefix_with_a_count() {
        assert!(read_words(&["ringway", "token", "alice", "--device", "d"]).is_ok());
        assert!(read_words(&["ringway", "token", "--prefix", "u", "--count", "3"]).is_ok());
        for words in [
            &["ringway", "token"][..],
            &["ringway", "token", "--prefix", "u"],
            &["ringway", "token", "a", "--count", "3"],
        ] {
            assert!(read_words(words).is_err(), "{words:?}");
        }
    }

    #[test]
    fn serve_help_lists_every_setting() {
        let help = command().find_subcommand_mut("serve").unwrap().render_help().to_string();
        for field in FIELDS {
            assert!(help.contains(&format!("--{} ", field.name)), "{}", field.name);
        }
        assert!(help.contains("Exit codes:"));
    }
}
