//! `config` of `open` and `configure`: Kafka's topic settings, and the few of our own that no [`Config`] has.

use super::answer::{Refusal, Stop};
use super::script::Mistake;
use oncelog::Config;
use oncelog_device::DeviceKind;
use serde_json::Value;

/// Settings of the open log; `configure` changes some, `open` starts anew.
#[derive(Clone, Default)]
pub struct Settings {
    /// What the engine takes.
    pub config: Config,
    /// Version of the transaction protocol; 2 makes markers strict and clients bump epochs.
    pub transaction_version: i16,
    /// Whether the high watermark moves with the log end; here the script moves it.
    pub follows_end: bool,
    /// Device asked for.
    pub device: Option<DeviceKind>,
}

impl Settings {
    /// Applies a `config` object over what is set.
    pub fn apply(&mut self, config: Option<&Value>) -> Result<(), Stop> {
        let Some(config) = config else { return Ok(()) };
        let settings = config.as_object().ok_or_else(|| Mistake::new("'config' is not an object"))?;
        for (name, value) in settings {
            self.set(name, value)?;
        }
        Ok(())
    }

    fn set(&mut self, name: &str, value: &Value) -> Result<(), Stop> {
        let wrong = |kind: &str| Mistake::new(format!("setting '{name}' is not {kind}"));
        match name {
            "device" => {
                let kind = value.as_str().and_then(device_kind);
                self.device = Some(kind.ok_or_else(|| wrong("auto, uring, blocking or memory"))?);
            }
            "high_watermark_follows_end" => {
                self.follows_end = value.as_bool().ok_or_else(|| wrong("true or false"))?;
            }
            "transaction_version" => {
                let version = value.as_i64().and_then(|version| i16::try_from(version).ok());
                self.transaction_version = version.ok_or_else(|| wrong("a version"))?;
            }
            _ if Config::NAMES.contains(&name) => {
                let text = match value {
                    Value::String(text) => text.clone(),
                    Value::Number(_) | Value::Bool(_) => value.to_string(),
                    _ => return Err(wrong("a text, a number, true or false").into()),
                };
                self.config.set(name, &text).map_err(|error| Refusal::invalid_request(error.to_string()))?;
            }
            _ => return Err(Mistake::new(format!("unknown setting '{name}'")).into()),
        }
        Ok(())
    }
}

/// The device of that name.
pub fn device_kind(name: &str) -> Option<DeviceKind> {
    match name {
        "auto" => Some(DeviceKind::Auto),
        "uring" => Some(DeviceKind::Uring),
        "blocking" => Some(DeviceKind::Blocking),
        "memory" => Some(DeviceKind::Memory),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn unknown_settings_are_mistakes_and_impossible_values_refusals() {
        let mut settings = Settings::default();
        settings.apply(Some(&json!({"segment_bytes": 500, "device": "memory", "transaction_version": 2}))).unwrap();
        assert_eq!((settings.config.segment_bytes, settings.transaction_version), (500, 2));
        assert_eq!(settings.device, Some(DeviceKind::Memory));
        assert!(matches!(settings.apply(Some(&json!({"segment_byte": 5}))), Err(Stop::Mistake(_))));
        assert!(matches!(settings.apply(Some(&json!({"segment_bytes": -5}))), Err(Stop::Refused(_))));
        assert!(matches!(settings.apply(Some(&json!({"device": "tape"}))), Err(Stop::Mistake(_))));
    }
}
