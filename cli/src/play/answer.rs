//! What an operation comes to: an answer, a refusal that is an answer too, or a script that cannot be followed.

use super::script::Mistake;
use oncelog_device::DeviceError;
use oncelog_formats::FormatError;
use serde_json::{Value, json};

/// A refused operation; the script goes on.
#[derive(Debug, Clone)]
pub struct Refusal {
    name: &'static str,
    message: String,
    retriable: bool,
}

impl Refusal {
    /// `name` is Kafka's protocol error name or one of ours in its style.
    pub fn new(name: &'static str, message: impl Into<String>) -> Self {
        Self { name, message: message.into(), retriable: false }
    }

    /// For arguments that Kafka calls illegal.
    pub fn invalid_request(message: impl Into<String>) -> Self {
        Self::new("INVALID_REQUEST", message)
    }

    /// The answer line.
    pub fn to_json(&self) -> Value {
        json!({ "error": self.name, "message": self.message, "retriable": self.retriable })
    }
}

impl From<&oncelog::Error> for Refusal {
    fn from(error: &oncelog::Error) -> Self {
        Self { name: error.kafka_name(), message: error.to_string(), retriable: error.is_retriable() }
    }
}

/// Why an operation has no `ok`.
#[derive(Debug)]
pub enum Stop {
    /// An answer with `error`.
    Refused(Refusal),
    /// Exit code 2.
    Mistake(Mistake),
}

impl From<Mistake> for Stop {
    fn from(mistake: Mistake) -> Self {
        Self::Mistake(mistake)
    }
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<oncelog::Error> for Stop {
    fn from(error: oncelog::Error) -> Self {
        Self::Refused(Refusal::from(&error))
    }
}

impl From<DeviceError> for Stop {
    fn from(error: DeviceError) -> Self {
        Self::Refused(Refusal::new("KAFKA_STORAGE_ERROR", error.to_string()))
    }
}

impl From<FormatError> for Stop {
    fn from(error: FormatError) -> Self {
        Self::Refused(Refusal::invalid_request(error.to_string()))
    }
}

/// What an operation answers under `ok`.
pub type Answer = Result<Value, Stop>;
