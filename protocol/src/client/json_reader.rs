//! Frames from JSON: one pass when `type` comes first, as every encoder of ours writes it, else two.
//!
//! Unknown fields are skipped. A field that is twice there, or not what it may be, is an error that names
//! what was expected and where. Ids are decimal strings; JavaScript would round a number past 2^53.

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::de::{Deserialize, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};

use super::body_memory::BodyMemory;
use super::client_frame::{ClientFrame, Hello, Nonce, SendFields, Sync};
use super::decode_error::{DecodeCause, DecodeError, invalid};
use crate::ids::{ConversationId, Seq};

/// Longest text of a reader's error that is passed on: it may repeat what the client sent.
const ERROR_TEXT_BYTES_MAX: usize = 240;

/// Reads a client's frame.
///
/// # Errors
/// [`DecodeError`], fit to be sent back.
pub(super) fn decode(json: &[u8], bodies: &mut BodyMemory) -> Result<ClientFrame, DecodeError> {
    let decoded = match leading_type(json) {
        Some(kind) => decode_of_type(kind, json, bodies),
        None => {
            let head = read_head(json)?;
            let Some(kind) = head.kind.as_deref() else {
                return Err(DecodeCause::BadFrame("a frame needs a type, such as \"send\"".to_owned()).into());
            };
            decode_of_type(kind, json, bodies)
        }
    };
    decoded.map_err(|cause| {
        // Which send failed is worth a second look at the bytes.
        let client_message_id = read_head(json).ok().and_then(|head| head.client_message_id);
        DecodeError::new(cause, client_message_id.as_deref())
    })
}

/// The objects of a batch: one a line, empty lines skipped.
pub fn lines(json: &str) -> impl Iterator<Item = &str> {
    json.split('\n').map(str::trim_ascii).filter(|line| !line.is_empty())
}

fn decode_of_type(kind: &str, json: &[u8], bodies: &mut BodyMemory) -> Result<ClientFrame, DecodeCause> {
    Ok(match kind {
        "hello" => {
            let hello: HelloJson = read(kind, json)?;
            let batch = hello.batch.unwrap_or_default();
            let client = hello.client.map(|client| client.0);
            ClientFrame::Hello(Hello::check(hello.token, hello.device_id, client, batch, hello.resume)?)
        }
        "refresh" => {
            let refresh: RefreshJson = read(kind, json)?;
            let token = refresh.token.ok_or_else(|| invalid("refresh needs a token"))?;
            ClientFrame::Refresh { token }
        }
        "send" => {
            let send: SendJson<'_> = read(kind, json)?;
            let fields = SendFields {
                conversation_id: send.conversation_id.map(|id| id.0),
                to: send.to,
                client_msg_id: send.client_msg_id.map(|id| id.0),
                text: send.text.map(|text| text.0),
                ciphertext: send.ciphertext.map(|data| data.0),
                alg: send.alg,
                media_ids: send.media_ids.unwrap_or_default(),
                reply_to: send.reply_to.map(|id| id.0),
            };
            ClientFrame::Send(fields.check(bodies)?)
        }
        "sync" => {
            let sync: SyncJson = read(kind, json)?;
            let last_seen = sync.last_seen.ok_or_else(|| invalid("sync needs last_seen, which may be {}"))?;
            ClientFrame::Sync(Sync { last_seen: last_seen.0, limit: sync.limit }.check()?)
        }
        "ping" => {
            let ping: PingJson = read(kind, json)?;
            ClientFrame::Ping { nonce: ping.nonce.map(Nonce::check).transpose()? }
        }
        unknown => return Err(DecodeCause::UnknownType(shortened(unknown, 64))),
    })
}

/// The type, if the object begins with it: `{"type":"…"`.
fn leading_type(json: &[u8]) -> Option<&str> {
    let rest = json.strip_prefix(b"{\"type\":\"")?;
    let len = rest.iter().take(64).position(|byte| *byte == b'"')?;
    let kind = std::str::from_utf8(&rest[..len]).ok()?;
    (!kind.contains('\\')).then_some(kind)
}

/// What can be told of any object, whatever its type.
#[derive(Default)]
struct Head {
    kind: Option<String>,
    client_message_id: Option<String>,
}

fn read_head(json: &[u8]) -> Result<Head, DecodeCause> {
    // Structures also read from arrays; a frame does not.
    if json.trim_ascii_start().first() != Some(&b'{') {
        return Err(DecodeCause::BadFrame("a frame is a JSON object".to_owned()));
    }
    serde_json::from_slice(json).map_err(|error| DecodeCause::BadFrame(shortened_error(&error)))
}

pub(super) fn read<'a, T: Deserialize<'a>>(kind: &str, json: &'a [u8]) -> Result<T, DecodeCause> {
    serde_json::from_slice(json).map_err(|error| {
        let text = shortened_error(&error);
        if error.is_data() { invalid(format!("{kind}: {text}")) } else { DecodeCause::BadFrame(text) }
    })
}

fn shortened_error(error: &serde_json::Error) -> String {
    shortened(&error.to_string(), ERROR_TEXT_BYTES_MAX)
}

fn shortened(text: &str, bytes_max: usize) -> String {
    if text.len() <= bytes_max {
        return text.to_owned();
    }
    // The end says where it is.
    let front = text.floor_char_boundary(bytes_max * 2 / 3);
    let back = text.ceil_char_boundary(text.len() - bytes_max / 4);
    format!("{} … {}", &text[..front], &text[back..])
}

/// `type` was read before; it is here so that a second one is seen as a duplicate.
type Type = Option<IgnoredAny>;

#[derive(serde::Deserialize)]
struct HelloJson {
    #[serde(rename = "type")]
    _type: Type,
    token: Option<String>,
    device_id: Option<String>,
    client: Option<ClientName>,
    batch: Option<bool>,
    resume: Option<String>,
}

#[derive(serde::Deserialize)]
struct RefreshJson {
    #[serde(rename = "type")]
    _type: Type,
    token: Option<String>,
}

#[derive(serde::Deserialize)]
struct SendJson<'a> {
    #[serde(rename = "type")]
    _type: Type,
    conversation_id: Option<DecimalId>,
    to: Option<String>,
    #[serde(borrow)]
    client_msg_id: Option<Text<'a>>,
    #[serde(borrow)]
    text: Option<Text<'a>>,
    ciphertext: Option<Base64>,
    alg: Option<String>,
    media_ids: Option<Vec<String>>,
    reply_to: Option<DecimalId>,
}

#[derive(serde::Deserialize)]
struct SyncJson {
    #[serde(rename = "type")]
    _type: Type,
    last_seen: Option<SeqMap>,
    limit: Option<u32>,
}

#[derive(serde::Deserialize)]
struct PingJson {
    #[serde(rename = "type")]
    _type: Type,
    nonce: Option<Nonce>,
}

/// A string: where it lies, unless it has escapes.
pub(super) struct Text<'a>(pub(super) Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;
        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_str<E: serde::de::Error>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(TextVisitor)
    }
}

/// A 64-bit id as a decimal string.
#[derive(Clone, Copy)]
pub(super) struct DecimalId(pub(super) u64);

impl<'de> Deserialize<'de> for DecimalId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct DecimalVisitor;
        impl Visitor<'_> for DecimalVisitor {
            type Value = DecimalId;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an id as a decimal string, such as \"123\"")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<DecimalId, E> {
                let is_decimal = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
                match text.parse() {
                    Ok(id) if is_decimal => Ok(DecimalId(id)),
                    _ => Err(E::invalid_value(serde::de::Unexpected::Str(text), &self)),
                }
            }
        }
        deserializer.deserialize_str(DecimalVisitor)
    }
}

/// Bytes as standard base64 with padding.
pub(super) struct Base64(pub(super) Bytes);

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Base64Visitor;
        impl Visitor<'_> for Base64Visitor {
            type Value = Base64;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("standard base64 with padding")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Base64, E> {
                match STANDARD.decode(text) {
                    Ok(data) => Ok(Base64(data.into())),
                    Err(error) => Err(E::custom(format_args!("expected standard base64: {error}"))),
                }
            }
        }
        deserializer.deserialize_str(Base64Visitor)
    }
}

/// An object of conversation ids to seqs.
#[derive(Default)]
pub(super) struct SeqMap(pub(super) Vec<(ConversationId, Seq)>);

impl<'de> Deserialize<'de> for SeqMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SeqMapVisitor;
        impl<'de> Visitor<'de> for SeqMapVisitor {
            type Value = SeqMap;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of conversation ids to seqs")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<SeqMap, A::Error> {
                let mut seqs = Vec::new();
                while let Some((id, seq)) = map.next_entry::<DecimalId, u64>()? {
                    seqs.push((ConversationId(id.0), Seq(seq)));
                }
                Ok(SeqMap(seqs))
            }
        }
        deserializer.deserialize_map(SeqMapVisitor)
    }
}

impl<'de> Deserialize<'de> for Nonce {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NonceVisitor;
        impl Visitor<'_> for NonceVisitor {
            type Value = Nonce;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a whole number")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Nonce, E> {
                Ok(Nonce::Text(text.to_owned()))
            }
            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Nonce, E> {
                Ok(Nonce::Number(number))
            }
        }
        deserializer.deserialize_any(NonceVisitor)
    }
}

/// `"name/version"`, or `{"name": …, "version": …}`.
struct ClientName(String);

impl<'de> Deserialize<'de> for ClientName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ClientNameVisitor;
        impl<'de> Visitor<'de> for ClientNameVisitor {
            type Value = ClientName;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"name/version\", or an object with name and version")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<ClientName, E> {
                Ok(ClientName(text.to_owned()))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ClientName, A::Error> {
                let (mut name, mut version) = (String::new(), String::new());
                while let Some(key) = map.next_key::<String>()? {
                    match key.as_str() {
                        "name" => name = map.next_value()?,
                        "version" => version = map.next_value()?,
                        _ => drop(map.next_value::<IgnoredAny>()?),
                    }
                }
                Ok(ClientName(format!("{name}/{version}")))
            }
        }
        deserializer.deserialize_any(ClientNameVisitor)
    }
}

impl<'de> Deserialize<'de> for Head {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct HeadVisitor;
        impl<'de> Visitor<'de> for HeadVisitor {
            type Value = Head;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Head, A::Error> {
                let mut head = Head::default();
                while let Some(key) = map.next_key::<String>()? {
                    let slot = match key.as_str() {
                        "type" => &mut head.kind,
                        "client_msg_id" => &mut head.client_message_id,
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                            continue;
                        }
                    };
                    // A value of another kind counts as none; the first of two counts.
                    let value = map.next_value::<&serde_json::value::RawValue>()?;
                    if slot.is_none() {
                        *slot = serde_json::from_str(value.get()).ok();
                    }
                }
                Ok(head)
            }
        }
        deserializer.deserialize_map(HeadVisitor)
    }
}

/// A word that must be one of a few.
pub(super) fn word<'de, D: Deserializer<'de>, T>(
    deserializer: D,
    of_str: impl Fn(&str) -> Option<T>,
) -> Result<Option<T>, D::Error> {
    match Option::<String>::deserialize(deserializer)? {
        None => Ok(None),
        Some(text) => match of_str(&text) {
            Some(value) => Ok(Some(value)),
            None => Err(D::Error::custom(format_args!("{text:?} is not a word known here"))),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::super::error_code::ErrorCode;
    use super::*;

    fn decode(json: &[u8]) -> Result<ClientFrame, DecodeError> {
        super::decode(json, &mut BodyMemory::default())
    }

    fn error(json: &str) -> DecodeError {
        decode(json.as_bytes()).expect_err(json)
    }

    #[test]
    fn the_type_may_stand_anywhere_and_unknown_fields_are_skipped() {
        let first = r#"{"type":"send","to":"bob","client_msg_id":"1","text":"hi","later":{"a":[1]}}"#;
        let last = r#" { "later":null, "to":"bob", "client_msg_id":"1", "text":"hi", "type" : "send" }"#;
        assert_eq!(decode(first.as_bytes()).unwrap(), decode(last.as_bytes()).unwrap());
    }

    #[test]
    fn what_is_no_frame_is_bad_and_what_is_wrong_in_one_is_invalid() {
        for bad in [
            "",
            "x",
            "[]",
            "[\"ping\"]",
            "5",
            "null",
            "{}",
            "{\"type\":5}",
            "{\"type\":\"ping\"",
            "{\"type\":\"ping\"}x",
        ] {
            assert_eq!(error(bad).code(), ErrorCode::BadFrame, "{bad}");
        }
        for invalid in [
            r#"{"type":"ping","nonce":[]}"#,
            r#"{"type":"ping","type":"ping"}"#,
            r#"{"nonce":"a","nonce":"a","type":"ping"}"#,
            r#"{"type":"sync"}"#,
            r#"{"type":"sync","last_seen":{"1":1,"1":2}}"#,
            r#"{"type":"sync","last_seen":{"+1":1}}"#,
            r#"{"type":"sync","last_seen":{"1":-1}}"#,
            r#"{"type":"refresh"}"#,
            r#"{"type":"hello","device_id":""}"#,
            r#"{"type":"send","conversation_id":1,"client_msg_id":"1","text":"a"}"#,
            r#"{"type":"send","to":"b","conversation_id":"1","client_msg_id":"1","text":"a"}"#,
            r#"{"type":"send","to":"b","client_msg_id":"1","text":"a","ciphertext":"YQ==","alg":"x"}"#,
            r#"{"type":"send","to":"b","client_msg_id":"1","ciphertext":"YQ=="}"#,
            r#"{"type":"send","to":"b","client_msg_id":"1","ciphertext":"YQ","alg":"x"}"#,
            r#"{"type":"send","to":"b","client_msg_id":"1","text":""}"#,
            r#"{"type":"send","to":"b","client_msg_id":"1"}"#,
            r#"{"type":"send","to":"b","text":"a"}"#,
        ] {
            let error = error(invalid);
            assert_eq!(error.code(), ErrorCode::Invalid, "{invalid}: {error}");
        }
    }

    #[test]
    fn an_unknown_type_is_named() {
        let unknown = error(r#"{"type":"typing","conversation_id":"1","active":true}"#);
        assert_eq!(unknown.cause, DecodeCause::UnknownType("typing".to_owned()));
        assert_eq!(unknown.code(), ErrorCode::BadFrame);
    }

    #[test]
    fn an_error_echoes_the_id_of_its_send_cut_at_a_character() {
        let long = "ü".repeat(40);
        let json = format!(r#"{{"type":"send","client_msg_id":"{long}","to":"b","text":"a"}}"#);
        assert_eq!(error(&json).client_message_id.as_deref(), Some("ü".repeat(32).as_str()));
        let json = r#"{"type":"send","client_msg_id":"c","to":7}"#;
        assert_eq!(error(json).client_message_id.as_deref(), Some("c"));
    }

    #[test]
    fn an_error_does_not_repeat_a_long_value() {
        let json = format!(r#"{{"type":"ping","nonce":{{"{0}":1}},"nonce":"{0}"}}"#, "x".repeat(10_000));
        assert!(error(&json).to_string().len() < 400);
        let json = format!(r#"{{"type":"send","media_ids":"{}"}}"#, "x".repeat(10_000));
        assert!(error(&json).to_string().len() < 400);
    }

    #[test]
    fn deep_nesting_needs_no_stack() {
        let nested = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
        let skipped = format!(r#"{{"type":"ping","later":{nested}}}"#);
        assert!(decode(skipped.as_bytes()) == Ok(ClientFrame::Ping { nonce: None }), "skipped");
        for field in ["nonce", "type"] {
            let json = format!(r#"{{"{field}":{nested},"type":"ping"}}"#);
            assert!(decode(json.as_bytes()).is_err(), "{field}");
        }
    }
}
