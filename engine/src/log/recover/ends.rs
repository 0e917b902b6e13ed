//! Where segments end and whether that is right: gaps, torn tails, damage.

use std::ops::ControlFlow;

use oncelog_device::planted::{Bug, planted};
use oncelog_formats::file_name::Kind;

use super::{Opened, Recovery};
use crate::error::{Damage, Result};
use crate::log::state::Segment;
use crate::segment::scan::{ScanEnd, Stop, Unborne};

impl Recovery<'_> {
    /// Offsets between two segments that neither holds: did the leader or compaction leave them out, or are they lost?
    pub(super) fn check_gap(&mut self, last_end: Option<i64>, opened: &Opened) -> Result<()> {
        let Some(end) = last_end.filter(|end| *end < opened.base) else { return Ok(()) };
        let previous = *self.segments.last_key_value().expect("there is an end").0;
        let sealed = self.sealed_before(opened.base)?;
        let lost = match sealed {
            Some(sealed) => sealed.base_offset != previous || sealed.next_offset != end,
            None => self.layout.orphans.iter().any(|o| (end..opened.base).contains(o)),
        };
        if lost && !planted(Bug::GapOverlooked) {
            let path = self.path(end, Kind::Log);
            let reason = format!("records {end} to {} are missing", opened.base - 1);
            self.note_damage(Damage { path, position: 0, offset: end, reason });
        }
        Ok(())
    }

    pub fn note_damage(&mut self, damage: Damage) {
        tracing::error!(%damage, "damage below what was promised: the log is read-only around it");
        self.report.damage.push(damage);
    }

    /// What lies behind the last good batch: nothing, a tail to cut, or damage.
    pub(super) fn judge(&mut self, segment: &mut Segment, opened: &Opened, end: ScanEnd) -> Result<ControlFlow<()>> {
        let path = opened.file.path();
        // What lies behind the next segment's base is no offset of this one: there the index is wrong, not the file.
        let in_gap = |known: &i64| opened.next_base.is_some_and(|next| (end.next_offset..next).contains(known));
        let missing = opened.index_end.filter(in_gap);
        // The snapshot at a roll is written behind the sync of the segment that the roll closed: where it stands, all
        // of that segment was on the disk.
        let sealed = match opened.next_base.filter(|next| end.next_offset < *next) {
            Some(next) => self.sealed_before(next)?.filter(|sealed| sealed.base_offset == opened.base),
            None => None,
        };
        let cut_short = sealed.is_some_and(|sealed| end.next_offset < sealed.next_offset);
        let closed = cut_short || (self.clean && opened.next_base.is_some());
        let promised = match closed {
            _ if planted(Bug::DamageCut) => 0,
            true => i64::MAX,
            false => self.bounds.promised,
        };
        let moved = self.moved(opened, &end)?.filter(|moved| moved.offset < promised || !moved.overlapped);
        let reason = match (&end.stop, missing) {
            _ if moved.is_some() => "a batch behind a gap that would overlap what follows".to_string(),
            (Stop::End, _) if cut_short => "the segment was closed with more than this".to_string(),
            (Stop::End, Some(known)) => format!("the index knows offset {known}, the file ends before it"),
            (Stop::End, None) if opened.next_base.is_none() && end.next_offset < self.bounds.promised => {
                format!("the log ends here, everything below offset {} was promised", self.bounds.promised)
            }
            (Stop::End, None) => return Ok(ControlFlow::Continue(())),
            (Stop::Zeroes, _) => "zeroes".to_string(),
            (Stop::Broken(reason), _) => reason.clone(),
        };
        let (position, next_offset) = moved.map_or((end.position, end.next_offset), |m| (m.position, m.offset));
        let damage = Damage { path, position, offset: next_offset, reason };
        let complete = opened.next_base == Some(next_offset);
        let was_promised = next_offset < promised.min(opened.next_base.unwrap_or(i64::MAX));
        if moved.is_some() || (!complete && was_promised) {
            (segment.size, segment.next_offset, segment.data_end) = (position, next_offset, next_offset);
            if let Some(next) = opened.next_base {
                segment.next_offset = next;
            }
            segment.damage = Some(damage.clone());
            self.note_damage(damage);
            return Ok(ControlFlow::Continue(()));
        }
        if end.stop == Stop::End {
            return Ok(ControlFlow::Continue(()));
        }
        let last = complete || opened.next_base.is_none();
        if !last {
            self.drop_segments_behind(opened.base, next_offset)?;
        }
        if end.stop == Stop::Zeroes && opened.next_base.is_none() {
            // Prepared space goes on being that: cutting it off takes as long as making it.
            self.prepared = end.zeroes_to;
            return Ok(ControlFlow::Continue(()));
        }
        opened.file.set_length(position)?;
        opened.file.sync()?;
        // Zeroes are what a prepared tail is made of, but a segment that was closed has none.
        if end.stop != Stop::Zeroes || !last {
            tracing::warn!(%damage, "torn tail cut off");
            self.report.cut.push(damage);
        }
        Ok(if last { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    }

    /// The last batch that was read, if it cannot lie where its header puts it: what follows begins before it ends, or
    /// the segment or the log was closed there.
    fn moved(&self, opened: &Opened, end: &ScanEnd) -> Result<Option<Unborne>> {
        // Where a scan began at an index entry, nobody said what lies before the entry's batch; the entry bears that
        // out.
        let is_told = |unborne: &Unborne| unborne.position == 0 || unborne.offset > opened.base;
        let unborne = end.unborne.filter(|unborne| is_told(unborne) && !planted(Bug::GapBelieved));
        let Some(unborne) = unborne else { return Ok(None) };
        if unborne.overlapped {
            return Ok(Some(unborne));
        }
        let closed_at = match opened.next_base {
            Some(next) => {
                let sealed = self.sealed_before(next)?.filter(|sealed| sealed.base_offset == opened.base);
                sealed.map_or(next, |sealed| sealed.next_offset)
            }
            // A log never ended inside a gap: a gap begins or ends where a log did.
            None => {
                let ended = self.bounds.ended.filter(|ended| self.clean || *ended != unborne.base_offset);
                ended.unwrap_or(i64::MAX)
            }
        };
        let closed_at = if closed_at > unborne.offset { closed_at } else { i64::MAX };
        Ok((end.next_offset > closed_at).then_some(unborne))
    }

    /// Segments behind one that has to be cut were never promised, and what they hold does not follow on. They go
    /// before the cut, the last one first: a crash in between must not leave a segment that seems to end where it does,
    /// and one behind a gap.
    fn drop_segments_behind(&mut self, base: i64, end: i64) -> Result<()> {
        for behind in self.layout.bases.clone().into_iter().rev().take_while(|b| *b > base) {
            self.forget_segment(behind, &format!("lies behind the cut at offset {end}"))?;
            self.device.sync_directory(self.dir)?;
        }
        Ok(())
    }
}
