//! Reads that go on where an earlier one ended, out of windows that were read ahead (see [`crate::ahead`]).
//!
//! An answer out of a window ends with it, so it may be shorter than it might: its bytes are handed out where they
//! landed.

use std::sync::Arc;

use oncelog_device::DeviceFile;

use super::Shared;
use super::read::{Part, Place};
use super::types::Read;
use crate::ahead::{Spot, Stream};
use crate::observe::Source;
use crate::segment::take::{Halt, Want, take};

impl Shared {
    /// The batches from `wanted` on, if a stream stands there and has them sound.
    pub(super) fn fetch_ahead(&self, place: &Place, wanted: i64, read: &Read) -> Option<Part> {
        let mut stream = self.ahead.take(self.number, place.generation, wanted)?;
        self.fill_ahead(&mut stream, place);
        let want = Want { limit: place.limit(), max_bytes: read.max_bytes, at_least_one: read.at_least_one };
        if stream.spot().base_offset != place.base_offset {
            stream.join_next(place.base_offset)?;
        }
        let (position, taken) = loop {
            let position = stream.spot().position;
            let taken = take(stream.bytes(), wanted, want, true);
            match taken.halt {
                _ if taken.bytes > 0 => break (position, taken),
                Halt::Bytes(_) => stream.join_next(place.base_offset)?,
                _ => return None,
            }
        };
        if position + taken.bytes as u64 > place.trusted_size || taken.next_offset > place.data_end {
            return None;
        }
        let data = stream.bytes().slice(0..taken.bytes);
        self.metrics.count_read(Source::File, taken.bytes);
        let part = place.part(data, position, &taken, read);
        stream.advance(taken.bytes, taken.next_offset);
        self.fill_ahead(&mut stream, place);
        self.ahead.put(stream, self.clock.monotonic_ns());
        Some(part)
    }

    /// A reader has read on once: the next time what he wants may be there.
    pub(super) fn begin_ahead(&self, place: &Place, offset: i64, position: u64) {
        if !self.is_worth_a_window(place, position) {
            return;
        }
        let (number, spot) = (self.number, Spot { base_offset: place.base_offset, position });
        let now_ns = self.clock.monotonic_ns();
        if let Some(mut stream) = self.ahead.begin(number, place.generation, offset, spot, now_ns) {
            self.fill_ahead(&mut stream, place);
            self.ahead.put(stream, now_ns);
        }
    }

    fn fill_ahead(&self, stream: &mut Stream, place: &Place) {
        if stream.is_full() {
            return;
        }
        if stream.next().base_offset == place.base_offset && self.is_worth_a_window(place, stream.next().position) {
            self.ahead.fill(stream, &place.file, place.trusted_size);
            let ends = stream.next().position >= place.trusted_size && place.trusted_size == place.size;
            if let Some(next) = place.next_base.filter(|_| ends && !stream.is_full()) {
                stream.go_on_in(next);
            }
        }
        if Some(stream.next().base_offset) == place.next_base
            && let Some((file, trusted_size)) = self.segment_file(stream.next().base_offset)
        {
            self.ahead.fill(stream, &file, trusted_size);
        }
    }

    /// At the end of the log it pays to wait for more; what was just written is in memory mostly.
    fn is_worth_a_window(&self, place: &Place, position: u64) -> bool {
        place.next_base.is_some() || position + self.ahead.worth_bytes() <= place.trusted_size
    }

    fn segment_file(&self, base_offset: i64) -> Option<(Arc<dyn DeviceFile>, u64)> {
        let state = self.state.lock();
        let segment = state.segments.get(&base_offset)?;
        Some((segment.file.clone(), segment.trusted_size()))
    }
}
