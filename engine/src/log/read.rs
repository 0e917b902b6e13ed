//! Reads: whole batches of one segment, contiguous or an error.
//!
//! The place is found under the lock, the bytes are fetched without it. An index entry is never believed before the batch
//! it points at has been seen there; a wrong one makes the segment be walked from its start instead.

use parking_lot::MutexGuard;
use std::sync::Arc;

use oncelog_device::DeviceFile;
use oncelog_formats::batch::HEADER_BYTES;
use oncelog_formats::{BatchHeader, BatchView};

use super::Shared;
use super::aborted::aborted_in;
use super::state::{Segment, State};
use super::types::{Ack, Fetched, Isolation, Read};
use crate::error::{Error, Result};
use crate::segment::walk::{Found, Walker};

/// A place to read from, fixed under the lock.
struct Place {
    file: Arc<dyn DeviceFile>,
    base_offset: i64,
    /// Where to start looking for the batch, by the index.
    hint: u64,
    size: u64,
    /// First position whose batches may be damaged.
    trusted_size: u64,
    next_offset: i64,
    /// Offset behind its last batch.
    data_end: i64,
    /// Offset that the next segment starts at.
    next_base: Option<i64>,
    limit: i64,
    high_watermark: i64,
    last_stable_offset: i64,
    generation: u64,
}

impl Shared {
    pub(crate) fn read(&self, read: &Read) -> Result<Fetched> {
        if read.isolation != Isolation::LogEnd {
            self.settle_high_watermark()?;
        }
        loop {
            if let Some(fetched) = self.try_read(read)? {
                return Ok(fetched);
            }
        }
    }

    /// A leader may name a high watermark inside a batch; readers see whole batches, so it then stands at the batch's
    /// base, as in Kafka from the first read on.
    fn settle_high_watermark(&self) -> Result<()> {
        let asked = {
            let state = self.state.lock();
            if state.high_watermark_settled || state.check_usable().is_err() {
                return Ok(());
            }
            state.high_watermark
        };
        let base = self.batch_base_at(asked)?;
        let mut state = self.state.lock();
        if state.high_watermark == asked {
            state.set_high_watermark(base);
            state.high_watermark_settled = true;
        }
        Ok(())
    }

    /// One attempt; `None` when the log was truncated meanwhile.
    fn try_read(&self, read: &Read) -> Result<Option<Fetched>> {
        let mut wanted = read.offset;
        loop {
            let state = self.state.lock();
            state.check_usable()?;
            let limit = limit_of(&state, read)?;
            if read.offset >= limit {
                return Ok(Some(empty(&state)));
            }
            let state = self.make_readable(state, limit)?;
            let Some(place) = place(&state, wanted, limit) else { return Ok(Some(empty(&state))) };
            drop(state);
            match self.fetch(&place, wanted, read) {
                Ok(Some((data, upper_position))) => {
                    let state = self.state.lock();
                    if state.generation != place.generation {
                        return Ok(None);
                    }
                    let aborted = match read.isolation {
                        Isolation::Committed => aborted_in(&state, place.base_offset, read.offset, upper_position),
                        _ => Some(Vec::new()),
                    };
                    // Retention took the segment meanwhile, and with it the list: the read begins again and says so.
                    let Some(aborted) = aborted else { return Ok(None) };
                    let (high_watermark, last_stable_offset) = (place.high_watermark, place.last_stable_offset);
                    return Ok(Some(Fetched { data, aborted, high_watermark, last_stable_offset }));
                }
                Ok(None) => match place.next_base {
                    Some(next) if next < limit => wanted = next.max(wanted),
                    _ => return Ok(Some(empty(&self.state.lock()))),
                },
                Err(error) => {
                    // A read that lost its ground to a truncation says nothing about the disk.
                    return if self.state.lock().generation != place.generation { Ok(None) } else { Err(error) };
                }
            }
        }
    }

    /// Lets staged bytes below `limit` reach the file before it is read.
    fn make_readable<'a>(&'a self, state: MutexGuard<'a, State>, limit: i64) -> Result<MutexGuard<'a, State>> {
        if state.progress.written == state.progress.accepted || limit <= state.progress.durable_offset {
            return Ok(state);
        }
        let number = state.progress.accepted;
        drop(state);
        self.commit(number, Ack::Written)?;
        Ok(self.state.lock())
    }

    /// The batches from `wanted` on, and the position behind the range that was looked at; `None` if the segment ends
    /// below it.
    fn fetch(&self, place: &Place, wanted: i64, read: &Read) -> Result<Option<(Vec<u8>, u64)>> {
        let mut walker = Walker::new(&*place.file, place.size);
        let Some(first) = self.locate(place, &mut walker, wanted)? else {
            self.check_contiguous(place, wanted)?;
            return Ok(None);
        };
        if first.position >= place.trusted_size {
            return Err(self.damage_of(place.base_offset));
        }
        let most = if read.at_least_one { read.max_bytes.max(first.header.size_bytes()) } else { read.max_bytes };
        let limit_position = if place.limit >= place.next_offset {
            place.size
        } else {
            walker.position_of(first, place.limit, first.position + most as u64)?
        };
        let limit_position = limit_position.min(place.trusted_size);
        let bytes = (limit_position - first.position).min(most as u64) as usize;
        let mut data = vec![0; bytes];
        let got = place.file.read(first.position, &mut data)?;
        data.truncate(got);
        if got < bytes {
            return Err(Error::damaged(
                place.file.path(),
                first.position + got as u64,
                wanted,
                "the file ends inside the log",
            ));
        }
        let whole = check_batches(&data, place, first.position, wanted)?;
        data.truncate(whole);
        Ok(Some((data, first.position + bytes as u64)))
    }

    /// The first batch whose last offset is not below `wanted`.
    fn locate(&self, place: &Place, walker: &mut Walker<'_>, wanted: i64) -> Result<Option<Found>> {
        if place.hint > 0 {
            match walker.proves(place.hint, place.base_offset, wanted) {
                Ok(true) => return walker.find(place.hint, wanted),
                Ok(false) | Err(Error::Damaged(_)) => {
                    tracing::debug!(position = place.hint, "index entry not believed")
                }
                Err(error) => return Err(error),
            }
        }
        walker.find(0, wanted)
    }

    /// Nothing at or above `wanted` is stored in this segment: is that because the log has none there?
    fn check_contiguous(&self, place: &Place, wanted: i64) -> Result<()> {
        if wanted < place.data_end {
            let reason = "batches that were stored are missing";
            return Err(Error::damaged(place.file.path(), place.size, wanted, reason));
        }
        let state = self.state.lock();
        match state
            .read_only
            .as_ref()
            .filter(|d| d.offset <= wanted && place.next_base.is_some_and(|next| d.offset < next))
        {
            Some(damage) if damage.offset >= place.base_offset => Err(Error::Damaged(Box::new(damage.clone()))),
            _ => Ok(()),
        }
    }

    fn damage_of(&self, base_offset: i64) -> Error {
        let state = self.state.lock();
        let damage =
            state.segments.get(&base_offset).and_then(|s| s.damage.clone()).or_else(|| state.read_only.clone());
        damage.map_or(Error::Closed, |d| Error::Damaged(Box::new(d)))
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
    Ok(match read.isolation {
        Isolation::LogEnd => end,
        Isolation::Uncommitted => state.high_watermark,
        Isolation::Committed => state.last_stable(),
    })
}

fn empty(state: &State) -> Fetched {
    let (high_watermark, last_stable_offset) = (state.high_watermark, state.last_stable());
    Fetched { data: Vec::new(), aborted: Vec::new(), high_watermark, last_stable_offset }
}

fn place(state: &State, wanted: i64, limit: i64) -> Option<Place> {
    let segment: &Segment = state.segment_of(wanted).or_else(|| state.segments.values().next())?;
    let next_base = state.segments.range(segment.base_offset + 1..).next().map(|(base, _)| *base);
    Some(Place {
        file: segment.file.clone(),
        base_offset: segment.base_offset,
        hint: segment.hint_for(wanted),
        size: segment.size,
        trusted_size: segment.damage.as_ref().map_or(segment.size, |d| d.position),
        next_offset: segment.next_offset,
        data_end: segment.data_end,
        next_base,
        limit,
        high_watermark: state.high_watermark,
        last_stable_offset: state.last_stable(),
        generation: state.generation,
    })
}

/// Bytes of whole batches at the front of `data`; each must be what was written.
fn check_batches(data: &[u8], place: &Place, position: u64, wanted: i64) -> Result<usize> {
    let mut at = 0;
    let mut expected = place.base_offset;
    while data.len() - at >= HEADER_BYTES {
        let header = BatchHeader::parse(&data[at..]).map_err(|e| {
            Error::damaged(place.file.path(), position + at as u64, expected.max(wanted), e.to_string())
        })?;
        if header.size_bytes() > data.len() - at {
            break;
        }
        let view = BatchView::new(&data[at..]).and_then(|view| view.verify_crc().map(|()| view));
        let view = view.map_err(|e| {
            Error::damaged(place.file.path(), position + at as u64, expected.max(wanted), e.to_string())
        })?;
        if header.base_offset < expected {
            let reason = format!("offset {} behind offset {}", header.base_offset, expected - 1);
            return Err(Error::damaged(place.file.path(), position + at as u64, expected, reason));
        }
        expected = header.next_offset();
        at += view.bytes().len();
    }
    Ok(at)
}
