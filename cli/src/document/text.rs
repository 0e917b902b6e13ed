//! Bytes as the answers show them: text where they are harmless UTF-8, `{"hex": ..}` otherwise.

use serde_json::{Value, json};

/// Text for UTF-8 without characters below U+0020 and without U+007F, hex for everything else.
pub fn bytes(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(|c| c < ' ' || c == '\u{7f}') => Value::from(text),
        _ => json!({ "hex": hex::encode(bytes) }),
    }
}

/// As [`bytes`], `null` for an absent key or value.
pub fn optional(value: Option<&[u8]>) -> Value {
    value.map_or(Value::Null, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_harmless_utf8_is_text() {
        assert_eq!(bytes("ké".as_bytes()), json!("ké"));
        assert_eq!(bytes(b""), json!(""));
        assert_eq!(bytes(b"a\nb"), json!({"hex": "610a62"}));
        assert_eq!(bytes(b"\x7f"), json!({"hex": "7f"}));
        assert_eq!(bytes(b"\xff"), json!({"hex": "ff"}));
        assert_eq!(optional(None), Value::Null);
    }
}
