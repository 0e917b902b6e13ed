//! Leader epochs as storage.md 4.9 has them.

/// Which epoch starts where.
#[derive(Debug, Clone, Default)]
pub(crate) struct Epochs {
    entries: Vec<(i32, i64)>,
}

impl Epochs {
    pub(crate) fn assign(&mut self, epoch: i32, offset: i64) {
        if self.entries.last().is_some_and(|last| last.0 == epoch && last.1 <= offset) {
            return;
        }
        self.entries.retain(|entry| entry.0 < epoch && entry.1 < offset);
        self.entries.push((epoch, offset));
    }

    pub(crate) fn truncate_from_end(&mut self, end: i64) {
        self.entries.retain(|entry| entry.1 < end);
    }

    pub(crate) fn truncate_from_start(&mut self, start: i64) {
        let passed = self.entries.iter().rposition(|entry| entry.1 <= start);
        if let Some(last) = passed {
            self.entries.drain(..last);
            self.entries[0].1 = start;
        }
    }

    pub(crate) fn end_offset_for(&self, epoch: i32, log_end: i64) -> (i32, i64) {
        let Some(&(latest, _)) = self.entries.last() else { return (-1, -1) };
        if epoch == latest {
            return (epoch, log_end);
        }
        if epoch < 0 || epoch > latest {
            return (-1, -1);
        }
        match self.entries.iter().rposition(|entry| entry.0 <= epoch) {
            Some(at) => (self.entries[at].0, self.entries[at + 1].1),
            None => (epoch, self.entries[0].1),
        }
    }

    /// Every epoch worth asking for.
    pub(crate) fn questions(&self) -> std::ops::RangeInclusive<i32> {
        0..=self.entries.last().map_or(0, |last| last.0 + 1)
    }
}
