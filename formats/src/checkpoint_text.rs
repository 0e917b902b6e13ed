//! The text file that Kafka uses for every checkpoint: version `0`, number of entries, one entry a line.
//!
//! Two shapes that look torn are legal to Kafka and stay legal here: an empty file, and one that ends after the
//! version; both hold no entries. Kafka writes these files beside the old one and renames, so neither arises from a
//! crash.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::{Display, Write as _};
use core::str::FromStr;

use crate::{FormatError, Result};

const VERSION: i64 = 0;

/// Reads the file and hands the fields of each line to `entry`, which answers `None` to fields it does not understand.
pub(crate) fn parse<const FIELDS: usize, T>(
    what: &'static str,
    bytes: &[u8],
    entry: impl Fn([&str; FIELDS]) -> Option<T>,
) -> Result<Vec<T>> {
    let mut lines = lines(what, bytes)?;
    let Some((line, version)) = lines.next() else {
        return Ok(Vec::new());
    };
    let version: i32 = number(version).ok_or(malformed(what, line, "the version is no integer"))?;
    if i64::from(version) != VERSION {
        return Err(FormatError::BadVersion { what, version: version.into() });
    }
    let Some((line, count)) = lines.next() else {
        return Ok(Vec::new());
    };
    let count: i32 = number(count).ok_or(malformed(what, line, "the number of entries is no integer"))?;
    let mut entries = Vec::new();
    for (line, text) in lines {
        let fields = fields(text).ok_or(malformed(what, line, "wrong number of fields"))?;
        entries.push(entry(fields).ok_or(malformed(what, line, "a field is no integer"))?);
    }
    if usize::try_from(count) != Ok(entries.len()) {
        return Err(malformed(what, line, "the number of entries differs from what follows"));
    }
    Ok(entries)
}

/// The file of these lines.
pub(crate) fn format<T: Display>(entries: impl ExactSizeIterator<Item = T>) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write!(text, "{VERSION}\n{}\n", entries.len());
    for entry in entries {
        let _ = writeln!(text, "{entry}");
    }
    text
}

/// Lines of a text file with their numbers from 1.
pub(crate) fn lines<'a>(what: &'static str, bytes: &'a [u8]) -> Result<impl Iterator<Item = (usize, &'a str)>> {
    let text = core::str::from_utf8(bytes).map_err(|error| {
        let line = 1 + bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count();
        malformed(what, line, "not UTF-8")
    })?;
    Ok((1..).zip(text.lines()))
}

pub(crate) fn malformed(what: &'static str, line: usize, reason: &'static str) -> FormatError {
    FormatError::BadText { what, line, reason }
}

/// An integer as Java reads it: digits, one optional sign, nothing around.
pub(crate) fn number<T: FromStr>(text: &str) -> Option<T> {
    text.parse().ok()
}

/// White space as Java's patterns mean it: ASCII only, the vertical tab included.
pub(crate) fn is_space(character: char) -> bool {
    matches!(character, ' ' | '\t'..='\r')
}

/// Exactly `N` fields between runs of white space. White space before the first field is itself a field to Kafka, so it
/// is refused; behind the last one it is not.
fn fields<const N: usize>(line: &str) -> Option<[&str; N]> {
    if line.starts_with(is_space) {
        return None;
    }
    let mut found = line.split(is_space).filter(|field| !field.is_empty());
    let mut fields = [""; N];
    for field in &mut fields {
        *field = found.next()?;
    }
    found.next().is_none().then_some(fields)
}
