//! Reads: whole batches of one segment, contiguous or an error.
//!
//! The place is found under the lock, the bytes are fetched without it: from the tail in memory if they were just
//! written, else from the file ([`super::fetch`]). Nothing a reader does holds an append up.

use parking_lot::MutexGuard;
use std::sync::Arc;

use oncelog_device::DeviceFile;
use oncelog_device::planted::{Bug, planted};
use oncelog_formats::OffsetEntry;

use super::Shared;
use super::aborted::aborted_in;
use super::state::{Segment, State};
use super::types::{Ack, Fetched, Isolation, Read};
use crate::bytes::{Lent, SharedBytes};
use crate::error::{Error, Result};
use crate::follow::Limits;
use crate::observe::Source;
use crate::segment::take::{Halt, Taken, Want, take};
use crate::tail::Piece;

/// A place to read from, fixed under the lock.
pub(super) struct Place {
    pub file: Arc<dyn DeviceFile>,
    pub base_offset: i64,
    /// Where to start looking for the batch, by the index.
    pub hint: OffsetEntry,
    /// What has come to the file. Behind it a write may be on its way, and nothing is to be made of what stands there.
    pub size: u64,
    /// First position whose batches may be damaged.
    pub trusted_size: u64,
    pub next_offset: i64,
    /// Offset behind the last batch of `size`.
    pub data_end: i64,
    /// Offset that the next segment starts at.
    pub next_base: Option<i64>,
    pub generation: u64,
    limit: i64,
    /// Of the same moment as `limit`: what a reader is told fits what it is shown.
    limits: Limits,
}

/// Batches found in one segment.
pub(super) struct Part {
    data: SharedBytes,
    /// Where the range that was looked at ends in the segment: Kafka's bound for the aborted transactions.
    upper_position: u64,
    next_offset: i64,
    /// Where `next_offset` begins.
    end_position: u64,
}

impl Part {
    /// The offset that comes next, and where it begins in the segment.
    pub fn end(&self) -> (i64, u64) {
        (self.next_offset, self.end_position)
    }
}

impl Place {
    /// Batches that reach this offset are not to be shown. None can where the whole segment is: what claims to is
    /// damaged.
    pub fn limit(&self) -> i64 {
        if self.limit >= self.next_offset { i64::MAX } else { self.limit }
    }

    /// `data` was taken from `position` on.
    pub fn part(&self, data: SharedBytes, position: u64, taken: &Taken, read: &Read) -> Part {
        let end_position = position + taken.bytes as u64;
        let upper_position = match taken.halt {
            Halt::Limit => end_position,
            _ => self.trusted_size.min(position + read.max_bytes.max(taken.first_bytes) as u64),
        };
        Part { data, upper_position, next_offset: taken.next_offset, end_position }
    }

    /// Whether the segment is still what it was: a truncation changes it, retention gives its file to another.
    fn still_stands(&self, state: &State) -> bool {
        let segment = state.segments.get(&self.base_offset);
        state.generation == self.generation && segment.is_some_and(|segment| Arc::ptr_eq(&segment.file, &self.file))
    }
}

impl Shared {
    pub(crate) fn read(&self, read: &Read) -> Result<Fetched> {
        if read.isolation != Isolation::LogEnd {
            self.settle_high_watermark(read.offset)?;
        }
        loop {
            if let Some(fetched) = self.try_read(read)? {
                return Ok(fetched);
            }
        }
    }

    /// A leader may name a high watermark inside a batch; readers see whole batches, so it then stands at the batch's
    /// base, as in Kafka from the first read on that is not below the log start. Between batches it stands at the next,
    /// or at the end.
    fn settle_high_watermark(&self, read_offset: i64) -> Result<()> {
        let asked = {
            let state = self.state.lock();
            if state.high_watermark_settled || read_offset < state.log_start || state.check_usable().is_err() {
                return Ok(());
            }
            let first_base = state.segments.first_key_value().map_or(0, |(base, _)| *base);
            if state.high_watermark < first_base {
                return Ok(());
            }
            state.high_watermark
        };
        let found = self.batch_base_at(asked)?;
        let mut state = self.state.lock();
        if state.high_watermark == asked {
            let base = found.unwrap_or(state.log_end());
            state.high_watermark = base;
            state.high_watermark_settled = true;
            state.txns.advance_high_watermark(base);
            state.refresh_first_unstable();
            state.check_order();
        }
        Ok(())
    }

    /// One attempt; `None` when the ground was taken away meanwhile, by a truncation or by retention.
    fn try_read(&self, read: &Read) -> Result<Option<Fetched>> {
        let mut wanted = read.offset;
        loop {
            let state = self.state.lock();
            state.check_usable()?;
            let limits = state.limits();
            let limit = limit_of(&state, read)?;
            if read.offset >= limit {
                return Ok(Some(empty(limits, read)));
            }
            let state = self.make_readable(state, wanted, limit)?;
            let Some(place) = place(&state, wanted, limit, limits) else { return Ok(Some(empty(limits, read))) };
            drop(state);
            let found = match self.read_tail(&place, wanted, read) {
                Some(part) => Ok(Some(part)),
                None => self.fetch(&place, wanted, read),
            };
            let state = self.state.lock();
            if !place.still_stands(&state) {
                // What was read, an error too, says nothing about the log any more.
                return Ok(None);
            }
            match found? {
                Some(part) => return Ok(self.fetched(&state, &place, part, read)),
                None => match place.next_base {
                    Some(next) if next < limit => wanted = next.max(wanted),
                    _ => return Ok(Some(empty(limits, read))),
                },
            }
        }
    }

    fn fetched(&self, state: &State, place: &Place, part: Part, read: &Read) -> Option<Fetched> {
        let aborted = match read.isolation {
            Isolation::Committed if !planted(Bug::AbortedListLeftOut) => {
                aborted_in(state, place.base_offset, read.offset, part.upper_position)?
            }
            _ => Vec::new(),
        };
        let mut next_offset = read.offset;
        if !part.data.is_empty() {
            next_offset = part.next_offset;
            self.cursors.advance(place.generation, place.base_offset, read.offset, next_offset, part.end_position);
        }
        let (high_watermark, last_stable_offset) = (place.limits.high_watermark, place.limits.last_stable);
        Some(Fetched { data: part.data, next_offset, aborted, high_watermark, last_stable_offset })
    }

    /// Lets staged bytes below `limit` reach the file before it is read, or those that a search comes to behind a hole.
    fn make_readable<'a>(
        &'a self,
        state: MutexGuard<'a, State>,
        wanted: i64,
        limit: i64,
    ) -> Result<MutexGuard<'a, State>> {
        let into_hole = wanted < limit && limit == state.hole.end && !state.hole.is_empty();
        let below = limit <= state.progress.durable_offset && !into_hole;
        if state.progress.written == state.progress.accepted || below {
            return Ok(state);
        }
        let number = state.progress.accepted;
        drop(state);
        self.commit(number, Ack::Written)?;
        Ok(self.state.lock())
    }

    /// The batches from `wanted` on, if they are still in memory. Shared with the tail if they lie in one buffer there,
    /// brought together in one copy if they do not.
    fn read_tail(&self, place: &Place, wanted: i64, read: &Read) -> Option<Part> {
        let pieces = self.tail.since(place.base_offset, wanted, read.max_bytes)?;
        let first = &pieces[0];
        let from = first.locate(wanted);
        let position = first.position + from as u64;
        // What came since the place was found may be there too, and is not for this reader.
        let want = Want { limit: place.limit, max_bytes: read.max_bytes, at_least_one: read.at_least_one };
        let rest = first.bytes.slice(from..first.bytes.len());
        let mut taken = take(&rest, wanted, want, false);
        let data = match taken.halt {
            Halt::Bytes(_) if pieces.len() > 1 => self.gather(&rest, &pieces[1..], &mut taken, want),
            _ => rest.slice(0..taken.bytes),
        };
        self.metrics.count_read(Source::Tail, data.len());
        Some(place.part(data, position, &taken, read))
    }

    /// `taken` from the front of `first`, and what else is wanted from the pieces behind it.
    fn gather(&self, first: &[u8], behind: &[Arc<Piece>], taken: &mut Taken, want: Want) -> SharedBytes {
        let most = first.len() + behind.iter().map(|piece| piece.bytes.len()).sum::<usize>();
        let mut all = Lent::take(&self.buffers, most.min(want.max_bytes));
        all.buffer_mut().as_mut_slice()[..taken.bytes].copy_from_slice(&first[..taken.bytes]);
        for piece in behind {
            let left = Want { max_bytes: want.max_bytes - taken.bytes, at_least_one: false, ..want };
            let more = take(&piece.bytes, taken.next_offset, left, false);
            let to = taken.bytes + more.bytes;
            all.buffer_mut().as_mut_slice()[taken.bytes..to].copy_from_slice(&piece.bytes[..more.bytes]);
            (taken.bytes, taken.next_offset, taken.halt) = (to, more.next_offset, more.halt);
            if !matches!(taken.halt, Halt::Bytes(_)) {
                break;
            }
        }
        all.share(0..taken.bytes)
    }

    /// All batches of one segment as stored, in memory.
    pub(crate) fn read_segment(&self, base_offset: i64) -> Result<Vec<u8>> {
        self.commit_all(Ack::Written)?;
        let (file, size) = {
            let state = self.state.lock();
            let segment = state
                .segments
                .get(&base_offset)
                .ok_or_else(|| Error::InvalidRequest(format!("no segment {base_offset}")))?;
            (segment.file.clone(), segment.size)
        };
        let mut data = vec![0; size as usize];
        let got = file.read(0, &mut data)?;
        data.truncate(got);
        Ok(data)
    }
}

fn limit_of(state: &State, read: &Read) -> Result<i64> {
    let end = state.log_end();
    // A replica may be told to start above its log start: what lies between was never here, unlike what was lost.
    let never_here = state.segment_of(read.offset).is_none() && state.read_only.is_none();
    if read.offset < state.log_start || read.offset > end || never_here {
        return Err(Error::OffsetOutOfRange { offset: read.offset, log_start_offset: state.log_start, limit: end });
    }
    Ok(state.limits().of(read.isolation))
}

fn empty(limits: Limits, read: &Read) -> Fetched {
    let (high_watermark, last_stable_offset) = (limits.high_watermark, limits.last_stable);
    let next_offset = read.offset;
    Fetched { data: SharedBytes::default(), next_offset, aborted: Vec::new(), high_watermark, last_stable_offset }
}

fn place(state: &State, wanted: i64, limit: i64, limits: Limits) -> Option<Place> {
    let segment: &Segment = state.segment_of(wanted).or_else(|| state.segments.values().next())?;
    let next_base = state.segments.range(segment.base_offset + 1..).next().map(|(base, _)| *base);
    Some(Place {
        file: segment.file.clone(),
        base_offset: segment.base_offset,
        hint: segment.hint_for(wanted),
        size: segment.written.size,
        trusted_size: segment.trusted_size(),
        next_offset: segment.next_offset,
        data_end: segment.written.data_end,
        next_base,
        limit,
        limits,
        generation: state.generation,
    })
}
