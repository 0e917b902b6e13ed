//! `.kafka_cleanshutdown`: the mark that every log of a data directory was closed properly.
//!
//! Its presence is the message; the content only carries the broker's epoch. So a content that cannot be read (Kafka
//! before 3.7 wrote none) is an error of this module and no reason to doubt the mark. The reader knows one flat object
//! of integers: a JSON library would be the only dependency of this kind, for one line.

use alloc::string::String;

use crate::checkpoint_text::malformed;
use crate::{FormatError, Result};

/// Name of the file in the data directory.
pub const FILE_NAME: &str = ".kafka_cleanshutdown";

/// Content of the mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CleanShutdown {
    /// Version of the content; Kafka writes 0 and reads any.
    pub version: i32,
    /// Epoch of the broker that stopped; -1 where there was none.
    pub broker_epoch: i64,
}

/// Reads the content. Order of the fields and white space are free, further integer fields are skipped.
///
/// # Errors
/// `BadText` unless it is one flat JSON object of integers that holds both fields.
pub fn parse(bytes: &[u8]) -> Result<CleanShutdown> {
    let bad = |reason| malformed(FILE_NAME, 1, reason);
    let text = core::str::from_utf8(bytes).map_err(|_| bad("not UTF-8"))?.trim();
    let inner = text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).ok_or(bad("no object"))?;
    let (mut version, mut broker_epoch) = (None, None);
    for field in inner.split(',') {
        let (name, value) = field.split_once(':').ok_or(bad("a field without a value"))?;
        let value: i64 = value.trim().parse().map_err(|_| bad("a value is no integer"))?;
        match name.trim() {
            "\"version\"" => version = Some(value),
            "\"brokerEpoch\"" => broker_epoch = Some(value),
            _ => {}
        }
    }
    let version = version.ok_or(bad("no version"))?;
    let version = i32::try_from(version).map_err(|_| FormatError::BadVersion { what: FILE_NAME, version })?;
    Ok(CleanShutdown { version, broker_epoch: broker_epoch.ok_or(bad("no brokerEpoch"))? })
}

/// The content for this epoch.
#[must_use]
pub fn format(broker_epoch: i64) -> String {
    alloc::format!("{{\"version\":0,\"brokerEpoch\":{broker_epoch}}}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    #[test]
    fn kafkas_own_text_both_ways() {
        assert_eq!(format(42), r#"{"version":0,"brokerEpoch":42}"#);
        let expected = Ok(CleanShutdown { version: 0, broker_epoch: 42 });
        assert_eq!(parse(br#"{"version":0,"brokerEpoch":42}"#), expected);
        assert_eq!(parse(b" { \"brokerEpoch\" : 42 ,\n\"later\":7, \"version\" : 0 }\n"), expected);
    }

    #[test]
    fn other_content_is_refused() {
        for text in
            ["", "{}", "42", r#"{"version":0}"#, r#"{"brokerEpoch":1}"#, r#"{"version":0,"brokerEpoch":"1"}"#, "{"]
        {
            assert!(parse(text.as_bytes()).is_err(), "{text:?}");
        }
        assert!(matches!(parse(br#"{"version":2147483648,"brokerEpoch":1}"#), Err(FormatError::BadVersion { .. })));
    }

    proptest! {
        #[test]
        fn any_epoch_comes_back_and_no_bytes_panic(broker_epoch: i64, bytes: Vec<u8>) {
            prop_assert_eq!(parse(format(broker_epoch).as_bytes()).unwrap().broker_epoch, broker_epoch);
            let _ = parse(&bytes);
        }
    }
}
