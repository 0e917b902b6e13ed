//! Batches from a segment's file.
//!
//! Where to begin: at the place where an earlier read ended, if one ended at this offset, so that reading on costs one
//! transfer and no lookup; else at what the index says, once the batch there has been seen and its checksum holds. A
//! wrong entry makes the segment be walked from its start instead. Whatever the way, each batch that is handed out is
//! checked. Who goes on like this finds what comes next in memory ([`super::stream`]).
//!
//! Large transfers go past the page cache, into buffers in huge pages: that is the fastest way the disk has, and a
//! reader of old data evicts nothing that others read. Small ones go through it, for its read-ahead.

use oncelog_device::{BLOCK_BYTES, DeviceFile};
use oncelog_formats::BatchHeader;

use super::Shared;
use super::read::{Part, Place};
use super::types::Read;
use crate::bytes::{Lent, SharedBytes};
use crate::error::{Error, Result};
use crate::observe::Source;
use crate::segment::take::{Halt, Want, take};
use crate::segment::walk::{Found, Walker};

/// Least that one transfer asks for.
const LEAST_BYTES: usize = 4 << 10;
/// From here on a transfer goes past the page cache.
const DIRECT_FROM_BYTES: usize = 256 << 10;

impl Place {
    /// Whether what stands behind a batch leaves room for the gap from `expected` to it.
    fn bears_out(&self, position: u64, header: BatchHeader, expected: i64) -> Result<bool> {
        match self.walker().check_place(&Found { position, header }, expected) {
            Ok(()) => Ok(true),
            Err(Error::Damaged(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn walker(&self) -> Walker<'_> {
        Walker::new(&*self.file, self.base_offset, self.size).ending_at(self.data_end)
    }
}

impl Shared {
    /// The batches from `wanted` on; `None` if the segment ends below it.
    pub(super) fn fetch(&self, place: &Place, wanted: i64, read: &Read) -> Result<Option<Part>> {
        if let Some(part) = self.fetch_ahead(place, wanted, read) {
            return Ok(Some(part));
        }
        if let Some(position) = self.cursors.position(place.generation, place.base_offset, wanted)
            && position < place.trusted_size
        {
            match self.fetch_at(place, position, wanted, wanted, read) {
                Ok(Some(part)) => {
                    let (offset, position) = part.end();
                    self.begin_ahead(place, offset, position);
                    return Ok(Some(part));
                }
                // The long way says what is wrong, and where.
                Ok(None) | Err(Error::Damaged(_)) => {}
                Err(error) => return Err(error),
            }
        }
        let Some(first) = place.walker().locate(place.hint, wanted)? else {
            self.check_contiguous(place, wanted)?;
            return Ok(None);
        };
        if first.position >= place.trusted_size {
            return Err(self.damage_of(place.base_offset));
        }
        self.fetch_at(place, first.position, first.header.base_offset, wanted, read)
    }

    /// The batches that begin at `position`, the first of which must not lie below `expected`; `None` if it lies above
    /// without room for it.
    fn fetch_at(&self, place: &Place, position: u64, expected: i64, wanted: i64, read: &Read) -> Result<Option<Part>> {
        let left = place.trusted_size - position;
        let at_most = |bytes: usize| usize::try_from(left).map_or(bytes, |left| left.min(bytes));
        let want = Want { limit: place.limit(), max_bytes: read.max_bytes, at_least_one: read.at_least_one };
        let mut length = at_most(read.max_bytes.max(LEAST_BYTES));
        loop {
            let data = self.load(&*place.file, position, length)?;
            let mut taken = take(&data, expected, want, true);
            while let Halt::Gap(header) = taken.halt
                && place.bears_out(position + taken.bytes as u64, header, taken.next_offset)?
            {
                taken.step_over_gap(&header, &data, want);
            }
            let end = position + taken.bytes as u64;
            let damaged = |position: u64, reason: String| {
                Error::damaged(place.file.path(), position, taken.next_offset.max(wanted), reason)
            };
            match &taken.halt {
                // What stands before the damage is shown; the next read comes to it.
                Halt::Broken(reason) if taken.bytes == 0 => return Err(damaged(end, reason.clone())),
                Halt::Bytes(_) if taken.bytes == 0 && data.len() < length => {
                    return Err(damaged(position + data.len() as u64, "the file ends inside the log".into()));
                }
                Halt::Bytes(size) if taken.bytes == 0 && (length as u64) < left => {
                    length = at_most(size.unwrap_or(2 * length));
                    continue;
                }
                Halt::Bytes(_) if taken.bytes == 0 && place.trusted_size < place.size => {
                    return Err(self.damage_of(place.base_offset));
                }
                Halt::Bytes(_) if taken.bytes == 0 => {
                    return Err(damaged(position, "a batch does not end in the segment".into()));
                }
                Halt::Gap(_) if taken.bytes == 0 => return Ok(None),
                _ if taken.next_offset > place.data_end => {
                    let reason = format!("offset {} in a segment that ends at {}", taken.next_offset, place.data_end);
                    return Err(damaged(position, reason));
                }
                _ => {}
            }
            self.metrics.count_read(Source::File, taken.bytes);
            return Ok(Some(place.part(data.slice(0..taken.bytes), position, &taken, read)));
        }
    }

    /// Up to `length` bytes from `position`; fewer only at the end of the file.
    fn load(&self, file: &dyn DeviceFile, position: u64, length: usize) -> Result<SharedBytes> {
        if length < DIRECT_FROM_BYTES {
            let mut lent = Lent::take(&self.buffers, length);
            let got = file.read(position, &mut lent.buffer_mut().as_mut_slice()[..length])?;
            return Ok(lent.share(0..got));
        }
        let skip = (position % BLOCK_BYTES as u64) as usize;
        let span = (skip + length).next_multiple_of(BLOCK_BYTES);
        let mut lent = Lent::take(&self.buffers, span);
        let got = file.read_blocks(position - skip as u64, &mut lent.buffer_mut().as_mut_slice()[..span])?;
        Ok(lent.share(skip.min(got)..got.min(skip + length)))
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
}
