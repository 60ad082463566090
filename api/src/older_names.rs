//! The older spelling of names, beside the present one, for clients that were written for it: `chatId`,
//! `content`, `senderId`, and camel case for the rest.

use serde::Serialize;
use serde_json::{Map, Value};

/// The value as JSON in which every name stands in both spellings.
pub(crate) fn both(value: &impl Serialize) -> Value {
    let mut value = serde_json::to_value(value).expect("answers are JSON");
    add(&mut value);
    value
}

fn add(value: &mut Value) {
    match value {
        Value::Array(values) => values.iter_mut().for_each(add),
        Value::Object(object) => add_to_object(object),
        _ => {}
    }
}

fn add_to_object(object: &mut Map<String, Value>) {
    object.values_mut().for_each(add);
    let older: Vec<(String, Value)> =
        object.iter().map(|(name, value)| (older_name(name), value.clone())).collect();
    let is_text = object.get("kind").is_some_and(|kind| kind == "message") && object.contains_key("text");
    for (name, value) in older {
        object.entry(name).or_insert(value);
    }
    if is_text {
        object.entry("type").or_insert(Value::from("text"));
    }
}

fn older_name(name: &str) -> String {
    match name {
        "conversation_id" => "chatId".to_owned(),
        "text" => "content".to_owned(),
        "from" => "senderId".to_owned(),
        _ => {
            let mut words = name.split('_');
            let mut camel = words.next().unwrap_or_default().to_owned();
            for word in words {
                let (first, rest) = word.split_at(word.len().min(1));
                camel.push_str(&first.to_uppercase());
                camel.push_str(rest);
            }
            camel
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_name_has_both_spellings_at_every_depth() {
        let value = json!({"next_cursor": null, "messages": [
            {"conversation_id": "7", "kind": "message", "text": "hi", "from": "alice", "client_msg_id": "c"},
        ]});
        let both = both(&value);
        assert_eq!(both["nextCursor"], Value::Null);
        let message = &both["messages"][0];
        for (one, other) in [
            ("conversation_id", "chatId"),
            ("text", "content"),
            ("from", "senderId"),
            ("client_msg_id", "clientMsgId"),
        ] {
            assert_eq!(message[one], message[other], "{one}");
        }
        assert_eq!(message["type"], "text");
    }
}
