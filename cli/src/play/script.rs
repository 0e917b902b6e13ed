//! The fields of one line of a script. Whatever is not known is a [`Mistake`], never ignored: a misspelt field would
//! otherwise quietly test something else.

use serde_json::{Map, Value};

/// A script that cannot be followed; ends the run with exit code 2. Names the field, the caller adds the line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Mistake(pub String);

impl Mistake {
    /// A mistake with this text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

/// A JSON object of which every field is known. An absent field and `null` are the same.
#[derive(Clone, Copy)]
pub struct Fields<'a> {
    what: &'a str,
    map: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    /// `what` is the object's name in messages.
    pub fn new(value: &'a Value, what: &'a str, known: &[&str]) -> Result<Self, Mistake> {
        let map = value.as_object().ok_or_else(|| Mistake::new(format!("{what} is not an object")))?;
        match map.keys().find(|key| !known.contains(&key.as_str())) {
            Some(key) => Err(Mistake::new(format!("unknown field '{key}' in {what}"))),
            None => Ok(Self { what, map }),
        }
    }

    /// The raw value.
    pub fn get(&self, name: &str) -> Option<&'a Value> {
        self.map.get(name).filter(|value| !value.is_null())
    }

    /// An integer that may be left out.
    pub fn integer(&self, name: &str) -> Result<Option<i64>, Mistake> {
        self.typed(name, "an integer of 64 bits", Value::as_i64)
    }

    /// An integer that must be there.
    pub fn required(&self, name: &str) -> Result<i64, Mistake> {
        self.integer(name)?.ok_or_else(|| self.missing(name))
    }

    /// A smaller integer with a default.
    pub fn small<T: TryFrom<i64>>(&self, name: &str, default: T) -> Result<T, Mistake> {
        match self.integer(name)? {
            None => Ok(default),
            Some(value) => T::try_from(value).map_err(|_| self.wrong(name, "an integer of the field's size")),
        }
    }

    /// True or false with a default.
    pub fn flag(&self, name: &str, default: bool) -> Result<bool, Mistake> {
        Ok(self.typed(name, "true or false", Value::as_bool)?.unwrap_or(default))
    }

    /// A text that may be left out.
    pub fn text(&self, name: &str) -> Result<Option<&'a str>, Mistake> {
        self.typed(name, "a text", Value::as_str)
    }

    /// A text that must be there.
    pub fn required_text(&self, name: &str) -> Result<&'a str, Mistake> {
        self.text(name)?.ok_or_else(|| self.missing(name))
    }

    /// One of a few words; the first is the default.
    pub fn word<T: Copy>(&self, name: &str, words: &[(&str, T)]) -> Result<T, Mistake> {
        let Some(text) = self.text(name)? else {
            return Ok(words[0].1);
        };
        words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value).ok_or_else(|| {
            let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            self.wrong(name, &format!("one of {}", known.join(", ")))
        })
    }

    /// A list that may be left out.
    pub fn list(&self, name: &str) -> Result<Option<&'a [Value]>, Mistake> {
        self.typed(name, "a list", |value| value.as_array().map(Vec::as_slice))
    }

    /// A list that must be there.
    pub fn required_list(&self, name: &str) -> Result<&'a [Value], Mistake> {
        self.list(name)?.ok_or_else(|| self.missing(name))
    }

    /// Bytes written in hex digits.
    pub fn hex(&self, name: &str) -> Result<Option<Vec<u8>>, Mistake> {
        self.text(name)?.map(|digits| unhex(digits).map_err(|_| self.wrong(name, "hex digits in pairs"))).transpose()
    }

    fn typed<T>(&self, name: &str, kind: &str, read: impl Fn(&'a Value) -> Option<T>) -> Result<Option<T>, Mistake> {
        self.get(name).map(|value| read(value).ok_or_else(|| self.wrong(name, kind))).transpose()
    }

    fn missing(&self, name: &str) -> Mistake {
        Mistake::new(format!("field '{name}' of {} is missing", self.what))
    }

    fn wrong(&self, name: &str, kind: &str) -> Mistake {
        Mistake::new(format!("field '{name}' of {} is not {kind}", self.what))
    }
}

/// Text or `{"hex": ..}` as bytes; `None` for null and for an absent value.
pub fn bytes(value: Option<&Value>, what: &str) -> Result<Option<Vec<u8>>, Mistake> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone().into_bytes())),
        Some(value) => {
            let digits = Fields::new(value, what, &["hex"])?.required_text("hex")?;
            unhex(digits).map(Some).map_err(|_| Mistake::new(format!("{what} is not hex digits in pairs")))
        }
    }
}

fn unhex(digits: &str) -> Result<Vec<u8>, hex::FromHexError> {
    hex::decode(digits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn unknown_fields_and_wrong_types_are_named() {
        let line = json!({"op": "clock", "ms": "5"});
        let error = Fields::new(&line, "clock", &["op"]).err().unwrap();
        assert_eq!(error.to_string(), "unknown field 'ms' in clock");
        let error = Fields::new(&line, "clock", &["op", "ms"]).unwrap().required("ms").unwrap_err();
        assert_eq!(error.to_string(), "field 'ms' of clock is not an integer of 64 bits");
    }

    #[test]
    fn null_is_absent_and_small_integers_must_fit() {
        let line = json!({"a": null, "b": 40_000});
        let fields = Fields::new(&line, "x", &["a", "b"]).unwrap();
        assert_eq!(fields.small("a", -1i16), Ok(-1));
        assert!(fields.small("b", 0i16).is_err());
        assert_eq!(fields.small("b", 0i32), Ok(40_000));
    }

    #[test]
    fn bytes_are_text_or_hex() {
        assert_eq!(bytes(Some(&json!("é")), "key"), Ok(Some("é".into())));
        assert_eq!(bytes(Some(&json!({"hex": "00fF"})), "key"), Ok(Some(vec![0, 255])));
        assert_eq!(bytes(Some(&json!(null)), "key"), Ok(None));
        assert!(bytes(Some(&json!({"hex": "0"})), "key").is_err());
        assert!(bytes(Some(&json!({"hexx": "00"})), "key").is_err());
    }
}
