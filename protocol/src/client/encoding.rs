//! The two subprotocols: the same frames as JSON text or as protobuf bytes.

use crate::websocket::Opcode;

/// How a connection's frames are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// Text frames, one JSON object each. Also when a client names no subprotocol.
    #[default]
    Json,
    /// Binary frames, one protobuf message each.
    Protobuf,
}

impl Encoding {
    /// All of them, the default first.
    pub const ALL: [Encoding; 2] = [Encoding::Json, Encoding::Protobuf];

    /// Its name in `Sec-WebSocket-Protocol`.
    pub fn subprotocol(self) -> &'static str {
        match self {
            Encoding::Json => "ringway.v1.json",
            Encoding::Protobuf => "ringway.v1.proto",
        }
    }

    /// The encoding of a subprotocol, if it is one of ours.
    pub fn of_subprotocol(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|encoding| encoding.subprotocol() == name)
    }

    /// The kind of WebSocket message that carries it; another one closes with 1003.
    pub fn opcode(self) -> Opcode {
        match self {
            Encoding::Json => Opcode::Text,
            Encoding::Protobuf => Opcode::Binary,
        }
    }
}
