//! Lines of an input, gathered into groups, with a running count and checksum.

use super::stored::Progress;
use crate::common::{CliError, CliResult};
use std::io::{BufRead, BufReader, Read};

const BUFFER_BYTES: usize = 1 << 20;
/// More than a line's record needs beside the line.
const RECORD_OVERHEAD_BYTES: usize = 32;

/// An input of lines. A last line without a newline counts as a line.
pub struct Input<R> {
    reader: BufReader<R>,
    progress: Progress,
    bytes_read: u64,
    line_limit: usize,
    line: Vec<u8>,
    /// `line` was read and not yet taken.
    pending: bool,
}

impl<R: Read> Input<R> {
    /// Reads `source`; lines over `line_limit` bytes are refused.
    pub fn new(source: R, line_limit: usize) -> Self {
        let reader = BufReader::with_capacity(BUFFER_BYTES, source);
        Self { reader, progress: Progress::default(), bytes_read: 0, line_limit, line: Vec::new(), pending: false }
    }

    /// Lines taken so far and their checksum.
    pub fn progress(&self) -> Progress {
        self.progress
    }

    /// Bytes read so far.
    pub fn bytes_read(&self) -> u64 {
        self.bytes_read
    }

    /// Takes one line without keeping it; `false` at the end of the input.
    pub fn skip_line(&mut self) -> CliResult<bool> {
        let found = self.peek_line()?;
        if found {
            self.take_line();
        }
        Ok(found)
    }

    /// Fills `group` with the next lines, at least one, at most `lines` lines and about `bytes` bytes. It ends early
    /// where the input would have to be waited for, so that lines which trickle in are not held back. Empty at the end
    /// of the input only.
    pub fn next_group(&mut self, group: &mut Group, lines: usize, bytes: usize) -> CliResult<()> {
        group.clear();
        while group.len() < lines {
            let would_wait = !self.pending && !self.reader.buffer().contains(&b'\n');
            if (would_wait && !group.is_empty()) || !self.peek_line()? {
                break;
            }
            if !group.is_empty() && group.cost_bytes() + self.line.len() + RECORD_OVERHEAD_BYTES > bytes {
                break;
            }
            group.push(&self.line);
            self.take_line();
        }
        Ok(())
    }

    fn peek_line(&mut self) -> CliResult<bool> {
        if self.pending {
            return Ok(true);
        }
        self.line.clear();
        let limit = self.line_limit as u64 + 1;
        let read = self.reader.by_ref().take(limit).read_until(b'\n', &mut self.line);
        let read = read.map_err(|e| CliError::io("standard input", e))?;
        self.bytes_read += read as u64;
        if self.line.last() == Some(&b'\n') {
            self.line.pop();
        } else if read as u64 == limit {
            return Err(CliError::Refused(format!(
                "standard input: line {} is longer than {} bytes; --config max_message_bytes=N raises the limit",
                self.progress.lines + 1,
                self.line_limit
            )));
        }
        self.pending = read > 0;
        Ok(self.pending)
    }

    fn take_line(&mut self) {
        self.progress.add(&self.line);
        self.pending = false;
    }
}

/// Some lines in one allocation.
#[derive(Default)]
pub struct Group {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Group {
    /// How many lines.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The lines in order.
    pub fn lines(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, end)| &self.bytes[start..*end])
    }

    fn cost_bytes(&self) -> usize {
        self.bytes.len() + self.len() * RECORD_OVERHEAD_BYTES
    }

    fn push(&mut self, line: &[u8]) {
        self.bytes.extend_from_slice(line);
        self.ends.push(self.bytes.len());
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups(text: &[u8], lines: usize, bytes: usize) -> Vec<Vec<Vec<u8>>> {
        let mut input = Input::new(text, 100);
        let mut all = Vec::new();
        let mut group = Group::default();
        loop {
            input.next_group(&mut group, lines, bytes).unwrap();
            if group.is_empty() {
                return all;
            }
            all.push(group.lines().map(<[u8]>::to_vec).collect());
        }
    }

    #[test]
    fn lines_are_grouped_by_count_and_by_bytes_and_none_is_lost() {
        let text = b"a\n\nccc\nd\r\nlast";
        let all: Vec<&[u8]> = vec![b"a", b"", b"ccc", b"d\r", b"last"];
        for (lines, bytes, first) in [(2, 1000, 2), (100, 70, 2), (100, 1, 1)] {
            let grouped = groups(text, lines, bytes);
            assert_eq!(grouped[0].len(), first, "lines={lines} bytes={bytes}");
            assert_eq!(grouped.concat(), all);
        }
    }

    #[test]
    fn a_last_line_counts_the_same_with_and_without_a_newline() {
        let progress = |text: &'static [u8]| {
            let mut input = Input::new(text, 100);
            while input.skip_line().unwrap() {}
            input.progress()
        };
        assert_eq!(progress(b"a\nb"), progress(b"a\nb\n"));
        assert_ne!(progress(b"a\nb"), progress(b"a\nc"));
        assert_ne!(progress(b"a\nb"), progress(b"ab\n"));
        assert_ne!(progress(b"a\nb"), progress(b"a\nb\n\n"));
    }

    #[test]
    fn a_line_over_the_limit_is_named() {
        let text = [b"ok\n".to_vec(), vec![b'x'; 101]].concat();
        let mut input = Input::new(&text[..], 100);
        assert!(input.skip_line().unwrap());
        assert!(input.skip_line().unwrap_err().to_string().contains("line 2"));
    }
}
