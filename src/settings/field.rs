//! One setting: its dotted name, its help, how a value is read and shown.
//!
//! [`settings!`] turns sections with documented fields into plain structs and a table of [`Field`]s. The
//! doc comment of a field is its help text, so that the flag, the table in `ringway serve --help` and the
//! struct cannot drift apart; that is why this is a macro.
//!
//! `layers.rs` walks the table to fill the struct, `report.rs` to print it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use ringway_gateway::IoChoice;

use super::Settings;

/// One line of the table of settings.
pub(crate) struct Field {
    /// `section.key`: in TOML a key of a table, as a flag `--section.key`.
    pub(crate) name: &'static str,
    /// The doc comment.
    pub(crate) help: &'static str,
    /// What a value looks like, in words.
    pub(crate) expected: &'static str,
    /// Reads a value into the struct; `None` if it is not of that kind.
    pub(crate) set: fn(&mut Settings, &Raw) -> Option<()>,
    /// The value as TOML; `None` if it is not set.
    pub(crate) show: fn(&Settings) -> Option<String>,
}

/// A value as it came from its source.
pub(crate) enum Raw {
    /// From the environment or a flag, where all is text.
    Text(String),
    /// A whole number in the file.
    Integer(i64),
    /// `true` or `false` in the file.
    Boolean(bool),
    /// Text in the file.
    Quoted(String),
    /// A list of texts in the file.
    List(Vec<String>),
    /// Anything else in the file: no setting is of that kind.
    Other,
}

/// A kind of value.
pub(crate) trait Value: Sized {
    /// What it looks like, to follow "expected".
    const EXPECTED: &'static str;
    /// Reads it; `None` if it is not of this kind.
    fn read(raw: &Raw) -> Option<Self>;
    /// Shows it as TOML; `None` if it is not set.
    fn show(&self) -> Option<String>;
}

/// Where a listener stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Listener {
    /// Nowhere.
    Off,
    /// At this address; port 0 lets the kernel choose.
    At(SocketAddr),
}

impl Listener {
    /// The address, if it is on.
    pub(crate) fn address(self) -> Option<SocketAddr> {
        match self {
            Listener::Off => None,
            Listener::At(address) => Some(address),
        }
    }
}

/// A number of threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Threads {
    /// As many as fit this machine.
    Auto,
    /// So many.
    Exactly(u16),
}

/// What carries the sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Io(pub(crate) IoChoice);

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The least severe line that is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogLevel(pub(crate) tracing::Level);

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

impl Value for bool {
    const EXPECTED: &'static str = "true or false";

    fn read(raw: &Raw) -> Option<Self> {
        match raw {
            Raw::Boolean(value) => Some(*value),
            Raw::Text(text) => text.parse().ok(),
            _ => None,
        }
    }

    fn show(&self) -> Option<String> {
        Some(self.to_string())
    }
}

macro_rules! whole_number {
    ($($type:ty),*) => {$(
        impl Value for $type {
            const EXPECTED: &'static str = "a whole number, 0 or more";

            fn read(raw: &Raw) -> Option<Self> {
                match raw {
                    Raw::Integer(value) => Self::try_from(*value).ok(),
                    Raw::Text(text) => text.replace('_', "").parse().ok(),
                    _ => None,
                }
            }

            fn show(&self) -> Option<String> {
                Some(self.to_string())
            }
        }
    )*};
}
whole_number!(u32, u64, usize);

impl Value for Option<String> {
    const EXPECTED: &'static str = "text";

    fn read(raw: &Raw) -> Option<Self> {
        match raw {
            Raw::Quoted(text) | Raw::Text(text) => Some(Some(text.clone()).filter(|text| !text.is_empty())),
            _ => None,
        }
    }

    fn show(&self) -> Option<String> {
        self.as_deref().map(quoted)
    }
}

impl Value for PathBuf {
    const EXPECTED: &'static str = "a path";

    fn read(raw: &Raw) -> Option<Self> {
        Option::<String>::read(raw)?.map(PathBuf::from)
    }

    fn show(&self) -> Option<String> {
        Some(quoted(&self.to_string_lossy()))
    }
}

impl Value for Option<PathBuf> {
    const EXPECTED: &'static str = "a path";

    fn read(raw: &Raw) -> Option<Self> {
        Some(Option::<String>::read(raw)?.map(PathBuf::from))
    }

    fn show(&self) -> Option<String> {
        self.as_ref().and_then(Value::show)
    }
}

impl Value for Vec<String> {
    const EXPECTED: &'static str =
        "a list of texts (in a flag or a variable: as in TOML, or with commas between)";

    fn read(raw: &Raw) -> Option<Self> {
        match raw {
            Raw::List(list) => Some(list.clone()),
            // As `ringway check` prints it.
            Raw::Text(text) if text.trim_start().starts_with('[') => {
                let mut table: BTreeMap<String, Self> = toml::from_str(&format!("list = {text}")).ok()?;
                table.remove("list")
            }
            Raw::Text(text) => Some(
                text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect(),
            ),
            _ => None,
        }
    }

    fn show(&self) -> Option<String> {
        Some(format!("[{}]", self.iter().map(|text| quoted(text)).collect::<Vec<_>>().join(", ")))
    }
}

impl Value for SocketAddr {
    const EXPECTED: &'static str = "an address and a port, such as 127.0.0.1:9464";

    fn read(raw: &Raw) -> Option<Self> {
        match raw {
            Raw::Quoted(text) | Raw::Text(text) => text.parse().ok(),
            _ => None,
        }
    }

    fn show(&self) -> Option<String> {
        Some(quoted(&self.to_string()))
    }
}

impl Value for Listener {
    const EXPECTED: &'static str = "an address and a port, such as 127.0.0.1:8443, or \"off\"";

    fn read(raw: &Raw) -> Option<Self> {
        match raw {
            Raw::Quoted(text) | Raw::Text(text) if text == "off" => Some(Listener::Off),
            _ => SocketAddr::read(raw).map(Listener::At),
        }
    }

    fn show(&self) -> Option<String> {
        Some(quoted(&self.address().map_or_else(|| "off".to_owned(), |address| address.to_string())))
    }
}

impl Value for Threads {
    const EXPECTED: &'static str = "a number from 1 to 1024, or \"auto\"";

    fn read(raw: &Raw) -> Option<Self> {
        match raw {
            Raw::Quoted(text) | Raw::Text(text) if text == "auto" => Some(Threads::Auto),
            _ => u32::read(raw)
                .filter(|count| (1..=1024).contains(count))
                .map(|count| Threads::Exactly(count as u16)),
        }
    }

    fn show(&self) -> Option<String> {
        Some(match self {
            Threads::Auto => quoted("auto"),
            Threads::Exactly(count) => count.to_string(),
        })
    }
}

impl Value for Io {
    const EXPECTED: &'static str = "\"auto\", \"io_uring\" or \"epoll\"";

    fn read(raw: &Raw) -> Option<Self> {
        let (Raw::Quoted(text) | Raw::Text(text)) = raw else { return None };
        match text.as_str() {
            "auto" => Some(Io(IoChoice::Auto)),
            "io_uring" => Some(Io(IoChoice::IoUring)),
            "epoll" => Some(Io(IoChoice::Epoll)),
            _ => None,
        }
    }

    fn show(&self) -> Option<String> {
        Some(quoted(match self.0 {
            IoChoice::Auto => "auto",
            IoChoice::IoUring => "io_uring",
            IoChoice::Epoll => "epoll",
        }))
    }
}

impl Value for LogFormat {
    const EXPECTED: &'static str = "\"text\" or \"json\"";

    fn read(raw: &Raw) -> Option<Self> {
        match raw {
            Raw::Quoted(text) | Raw::Text(text) if text == "text" => Some(LogFormat::Text),
            Raw::Quoted(text) | Raw::Text(text) if text == "json" => Some(LogFormat::Json),
            _ => None,
        }
    }

    fn show(&self) -> Option<String> {
        Some(quoted(if *self == LogFormat::Text { "text" } else { "json" }))
    }
}

impl Value for LogLevel {
    const EXPECTED: &'static str = "\"error\", \"warn\", \"info\", \"debug\" or \"trace\"";

    fn read(raw: &Raw) -> Option<Self> {
        match raw {
            Raw::Quoted(text) | Raw::Text(text) => match text.as_str() {
                "error" | "warn" | "info" | "debug" | "trace" => text.parse().ok().map(LogLevel),
                _ => None,
            },
            _ => None,
        }
    }

    fn show(&self) -> Option<String> {
        Some(quoted(&self.0.to_string().to_lowercase()))
    }
}

/// Makes the structs, their defaults and the table of [`Field`]s.
macro_rules! settings {
    ($(
        $(#[doc = $section_help:literal])*
        $section:ident: $Section:ident {
            $( $(#[doc = $help:literal])* $key:ident: $kind:ty = $default:expr; )*
        }
    )*) => {
        /// All settings of the command, typed and checked.
        #[derive(Clone, Debug, Default, PartialEq)]
        pub(crate) struct Settings {
            $( $(#[doc = $section_help])* pub(crate) $section: $Section, )*
        }

        $(
            $(#[doc = $section_help])*
            #[derive(Clone, Debug, PartialEq)]
            pub(crate) struct $Section {
                $( $(#[doc = $help])* pub(crate) $key: $kind, )*
            }

            impl Default for $Section {
                fn default() -> Self {
                    Self { $( $key: $default, )* }
                }
            }
        )*

        /// Every setting, in the order of the struct.
        pub(crate) const FIELDS: &[$crate::settings::field::Field] = &[$($(
            $crate::settings::field::Field {
                name: concat!(stringify!($section), ".", stringify!($key)),
                help: concat!($($help),*),
                expected: <$kind as $crate::settings::field::Value>::EXPECTED,
                set: |settings, raw| {
                    settings.$section.$key = $crate::settings::field::Value::read(raw)?;
                    Some(())
                },
                show: |settings| $crate::settings::field::Value::show(&settings.$section.$key),
            },
        )*)*];
    };
}
pub(crate) use settings;
