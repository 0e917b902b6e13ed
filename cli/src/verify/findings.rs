//! What `verify` has to say, one place at a time.

use serde_json::{Value, json};
use std::fmt;

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Something is not as it was written: exit code 1.
    Problem,
    /// Worth knowing, in order.
    Note,
}

/// One finding at one place.
#[derive(Clone, Debug)]
pub struct Finding {
    /// How much it matters.
    pub severity: Severity,
    /// File name inside the partition directory, or `../NAME` for the checkpoints beside it.
    pub file: String,
    /// Position in the file.
    pub byte: Option<u64>,
    /// Offset in the log.
    pub offset: Option<i64>,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Problem => "problem",
            Severity::Note => "note",
        };
        write!(f, "{severity}: {}", self.file)?;
        if let Some(byte) = self.byte {
            write!(f, ", byte {byte}")?;
        }
        if let Some(offset) = self.offset {
            write!(f, ", offset {offset}")?;
        }
        write!(f, ": {}", self.what)
    }
}

/// All findings so far, in the order in which they were made.
#[derive(Debug, Default)]
pub struct Findings {
    list: Vec<Finding>,
}

impl Findings {
    /// Adds something that is wrong.
    pub fn problem(&mut self, file: &str, byte: Option<u64>, offset: Option<i64>, what: impl fmt::Display) {
        let what = what.to_string();
        self.list.push(Finding { severity: Severity::Problem, file: file.to_owned(), byte, offset, what });
    }

    /// Adds something worth knowing.
    pub fn note(&mut self, file: &str, byte: Option<u64>, offset: Option<i64>, what: impl fmt::Display) {
        let what = what.to_string();
        self.list.push(Finding { severity: Severity::Note, file: file.to_owned(), byte, offset, what });
    }

    /// Adds something wrong with an index; of a segment that is `unsettled` it is made anew, so that it is worth a
    /// note.
    pub fn index(
        &mut self,
        unsettled: bool,
        file: &str,
        byte: Option<u64>,
        offset: Option<i64>,
        what: impl fmt::Display,
    ) {
        match unsettled {
            true => self.note(file, byte, offset, format_args!("{what}; the next opening makes it anew")),
            false => self.problem(file, byte, offset, what),
        }
    }

    /// How many are wrong.
    pub fn problems(&self) -> usize {
        self.list.iter().filter(|finding| finding.severity == Severity::Problem).count()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Finding> {
        self.list.iter()
    }

    /// As a JSON list.
    pub fn json(&self) -> Value {
        let list = self.list.iter().map(|finding| {
            let problem = finding.severity == Severity::Problem;
            json!({
                "severity": if problem { "problem" } else { "note" }, "file": finding.file,
                "byte": finding.byte, "offset": finding.offset, "what": finding.what,
            })
        });
        Value::Array(list.collect())
    }
}
