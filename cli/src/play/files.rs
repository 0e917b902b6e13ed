//! `file`: damage between close and open.
//!
//! A killed log leaves its active segment longer than its data: a tail of zero bytes, prepared for writes that never
//! came. That tail is not data. A script says "cut 37 bytes off" or "append a half batch" of the data, so the first
//! operation that reads positions or contents of such a `.log` file cuts the tail off; from then on the file is exactly
//! what the script makes of it, zero bytes included. After `close` nothing is cut: a closed log has no such tail.

use super::answer::{Answer, Refusal, Stop};
use super::places::Place;
use super::script::{Fields, Mistake};
use oncelog_formats::batch::frame_in_memory;
use serde_json::json;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The directory of the log that was open last, and which of its files may still end in a prepared tail.
pub struct Remains {
    /// The partition's directory.
    pub directory: PathBuf,
    /// On which device.
    pub place: Place,
    /// The log was killed, not closed.
    pub killed: bool,
    /// Segment files whose prepared tail is gone.
    pub trimmed: BTreeSet<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Action {
    Exists,
    Delete,
    Write,
    Copy,
    Append,
    Overwrite,
    Truncate,
}

const ACTIONS: [(&str, Action); 7] = [
    ("exists", Action::Exists),
    ("delete", Action::Delete),
    ("write", Action::Write),
    ("copy", Action::Copy),
    ("append", Action::Append),
    ("overwrite", Action::Overwrite),
    ("truncate", Action::Truncate),
];

impl Remains {
    /// Carries out one `file` operation.
    pub fn file(&mut self, fields: Fields<'_>) -> Answer {
        fields.required_text("action")?;
        let action = fields.word("action", &ACTIONS)?;
        let path = self.inside(fields.required_text("name")?)?;
        let hex = fields.hex("hex")?.unwrap_or_default();
        if matches!(action, Action::Copy | Action::Append | Action::Overwrite | Action::Truncate) {
            self.trim(&path)?;
        }
        let old = self.place.contents(&path)?;
        let existed = old.is_some();
        let mut bytes = old.unwrap_or_default();
        match action {
            Action::Exists => {}
            Action::Delete => self.place.remove(&path)?,
            Action::Write => self.put(path, &hex)?,
            Action::Copy => {
                let to = self.inside(fields.required_text("to")?)?;
                if existed {
                    self.put(to, &bytes)?;
                }
            }
            Action::Append => {
                bytes.extend_from_slice(&hex);
                self.put(path, &bytes)?;
            }
            Action::Overwrite => {
                let at = position(fields.required("at")?, bytes.len())?;
                bytes.resize(bytes.len().max(at + hex.len()), 0);
                bytes[at..at + hex.len()].copy_from_slice(&hex);
                self.put(path, &bytes)?;
            }
            Action::Truncate => {
                bytes.resize(position(fields.required("size")?, bytes.len())?, 0);
                self.put(path, &bytes)?;
            }
        }
        Ok(json!({ "existed": existed }))
    }

    /// Writes a file that from now on is what the script made of it.
    fn put(&mut self, path: PathBuf, bytes: &[u8]) -> Result<(), Stop> {
        self.place.put(&path, bytes)?;
        self.trimmed.insert(path);
        Ok(())
    }

    /// Cuts off what was prepared and never written.
    fn trim(&mut self, path: &Path) -> Result<(), Stop> {
        let is_segment = path.extension().is_some_and(|extension| extension == "log");
        if !self.killed || !is_segment || !self.trimmed.insert(path.to_path_buf()) {
            return Ok(());
        }
        if let Some(bytes) = self.place.contents(path)? {
            let end = data_end(&bytes);
            if end < bytes.len() {
                self.place.put(path, &bytes[..end])?;
            }
        }
        Ok(())
    }

    /// A plain name in the directory, or `../name` beside it.
    fn inside(&self, name: &str) -> Result<PathBuf, Mistake> {
        let (directory, plain) = match name.strip_prefix("../") {
            Some(plain) => (self.directory.parent().unwrap_or(&self.directory), plain),
            None => (self.directory.as_path(), name),
        };
        if plain.is_empty() || plain == "." || plain == ".." || plain.contains('/') {
            return Err(Mistake::new(format!("a name outside the log: '{name}'")));
        }
        Ok(directory.join(plain))
    }
}

/// Where the data of a segment ends: behind the last whole batch if only zero bytes follow, else at the file's end.
fn data_end(bytes: &[u8]) -> usize {
    let mut end = 0;
    while let Ok(Some(size)) = frame_in_memory(&bytes[end..]) {
        end += size;
    }
    if bytes[end..].iter().all(|&byte| byte == 0) { end } else { bytes.len() }
}

/// A position, negative ones counting from the end.
fn position(at: i64, length: usize) -> Result<usize, Stop> {
    let position = if at < 0 { (length as i64 + at).max(0) } else { at };
    // A position that no script means and no memory holds.
    const LIMIT: i64 = 1 << 32;
    match usize::try_from(position) {
        Ok(position) if at <= LIMIT => Ok(position),
        _ => Err(Refusal::invalid_request(format!("position {at}")).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oncelog_formats::BatchBuilder;
    use serde_json::Value;

    fn batch() -> Vec<u8> {
        let mut builder = BatchBuilder::new();
        builder.append(0, Some(b"k"), Some(b"v"), &[]);
        builder.build().unwrap()
    }

    fn remains(directory: &Path, killed: bool) -> Remains {
        Remains { directory: directory.to_path_buf(), place: Place::Host, killed, trimmed: BTreeSet::new() }
    }

    fn run(remains: &mut Remains, operation: Value) {
        let known = ["action", "name", "hex", "at", "size", "to"];
        remains.file(Fields::new(&operation, "file", &known).unwrap()).unwrap();
    }

    #[test]
    fn a_prepared_tail_is_no_data_until_the_script_writes_one() {
        let root = tempfile::tempdir().unwrap();
        let segment = root.path().join("0.log");
        let mut prepared = batch();
        let data = prepared.len();
        prepared.resize(4096, 0);
        std::fs::write(&segment, &prepared).unwrap();
        let mut killed = remains(root.path(), true);
        run(&mut killed, json!({"action": "append", "name": "0.log", "hex": "0000"}));
        assert_eq!(std::fs::read(&segment).unwrap().len(), data + 2);
        run(&mut killed, json!({"action": "truncate", "name": "0.log", "size": -1}));
        assert_eq!(std::fs::read(&segment).unwrap().len(), data + 1);
        std::fs::write(&segment, &prepared).unwrap();
        run(&mut remains(root.path(), false), json!({"action": "overwrite", "name": "0.log", "at": -1, "hex": "ff"}));
        assert_eq!(std::fs::read(&segment).unwrap()[4095], 0xff);
    }

    #[test]
    fn names_stay_inside() {
        let remains = remains(Path::new("/d/t-0"), false);
        assert_eq!(remains.inside("../x"), Ok(PathBuf::from("/d/x")));
        for name in ["", "..", "../..", "a/b", "../a/b", "/etc"] {
            assert!(remains.inside(name).is_err(), "{name}");
        }
    }

    #[test]
    fn garbage_behind_the_batches_is_data() {
        let mut bytes = batch();
        bytes.extend([0, 0, 1, 0]);
        assert_eq!(data_end(&bytes), bytes.len());
    }
}
