//! A running hash of everything asked of a device and everything it answered: two runs that differ anywhere differ
//! here.

use crate::device::Result;
use crate::fault::chance::mix;
use std::path::Path;

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Trace {
    hash: u64,
}

impl Trace {
    pub(crate) fn hash(self) -> u64 {
        self.hash
    }

    /// Notes one operation, what it was given, and what it answered as a number.
    pub(crate) fn note(&mut self, op: &str, path: &Path, arguments: &[u64], payload: &[u8], answer: &Result<u64>) {
        self.bytes(op.as_bytes());
        self.bytes(path.as_os_str().as_encoded_bytes());
        arguments.iter().for_each(|&argument| self.word(argument));
        self.bytes(payload);
        match answer {
            Ok(answer) => self.word(*answer),
            Err(error) => self.word(!(error.kind() as u64)),
        }
    }

    fn word(&mut self, word: u64) {
        self.hash = mix(self.hash ^ word);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.word(bytes.len() as u64);
        let (words, rest) = bytes.as_chunks::<8>();
        words.iter().for_each(|word| self.word(u64::from_le_bytes(*word)));
        rest.iter().for_each(|&byte| self.word(u64::from(byte)));
    }
}

/// Bytes as a number to note.
pub(crate) fn digest(bytes: &[u8]) -> u64 {
    let mut trace = Trace::default();
    trace.bytes(bytes);
    trace.hash
}
