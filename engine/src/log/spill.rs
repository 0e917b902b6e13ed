//! Producers beyond the memory that they may have: blocks of them that nobody used lately stand in a file.
//!
//! The file belongs to the life of the log in this process. What a crash needs stands in the checkpoint and the log, as
//! for everything in memory, so nothing here is ever synced, and an opening removes what a life before left. A page
//! file of the checkpoint was not used for it: a checkpoint says what was, and most of what is cold has changed since
//! the newest whole one, so each change of a few producers would have had all of them written again.
//!
//! A place is used again only when nobody can still be reading what stood there: no frozen view and no read on its way.

use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use oncelog_device::planted::{Bug, planted};
use oncelog_device::{AlignedBuffer, BLOCK_BYTES, DeviceFile, OpenMode};
use oncelog_formats::crc32c::crc32c;
use oncelog_snapshot::codec::STEP_ENTRIES;
use oncelog_snapshot::{Frozen, FrozenBlock, SpillPlace, Spilled};
use parking_lot::MutexGuard;

use super::Shared;
use super::state::State;
use crate::error::{Error, Result};

/// Name of the file in a log's directory.
pub(in crate::log) const SPILL_FILE: &str = "producers.spill-oncelog";

/// Number of the block, words, mark, CRC-32C of these and the words.
const HEAD_BYTES: usize = 16;
/// Blocks that one step takes out of memory: of the driver, and of an append that must not wait for long.
const STEP_BLOCKS: usize = 64;
const APPEND_BLOCKS: usize = 16;
/// Steps that one round makes.
const ROUND_STEPS: usize = 64;
/// The file grows by so many bytes at a time.
const GROWTH_BYTES: u64 = 4 << 20;
/// How long after a failure nothing is spilled.
const RETRY_MS: i64 = 5_000;
/// How long nobody looks again where all who are in memory must stay there.
const REST_MS: i64 = 1_000;
/// Walks that find nothing before that is believed: the first one only marks who was used since.
const IDLE_WALKS: u32 = 2;
/// A whole block takes at most so many blocks of the device.
const LARGEST: usize = 2;

/// The file and who is where in it.
#[derive(Default)]
pub(crate) struct Spill {
    file: Option<Arc<dyn DeviceFile>>,
    length: u64,
    /// Behind the last place that was ever used.
    end: u64,
    /// Places of one and of two blocks that may be used.
    free: [Vec<u64>; LARGEST],
    /// Places that may be used when nobody reads any more.
    freed: Vec<(u64, usize)>,
    /// Reads on their way.
    reading: usize,
    /// Blocks read back.
    returned: u64,
    /// Blocks written.
    written: u64,
    /// Where the walk over the producers goes on.
    from: u64,
    /// Whether this walk has found somebody, and how many before it have found nobody.
    found: bool,
    idle_walks: u32,
    not_before_ms: i64,
}

/// Blocks of the device for so many words.
fn blocks_for(words: usize) -> usize {
    (HEAD_BYTES + words * size_of::<u64>()).div_ceil(BLOCK_BYTES)
}

impl Spill {
    /// Length of the file.
    pub fn file_bytes(&self) -> u64 {
        self.length
    }

    /// Blocks that were read back.
    pub fn returned_blocks(&self) -> u64 {
        self.returned
    }

    fn note_step(&mut self, found: bool, next: Option<u64>, now_ms: i64) {
        self.from = next.unwrap_or(0);
        self.found |= found;
        if next.is_none() {
            let found = std::mem::take(&mut self.found);
            self.idle_walks = if found { 0 } else { self.idle_walks + 1 };
            if self.idle_walks == IDLE_WALKS {
                self.idle_walks = 0;
                self.not_before_ms = now_ms.saturating_add(REST_MS);
            }
        }
    }

    /// A place of so many blocks: the file grows when it is written.
    fn allocate(&mut self, blocks: usize, nobody_reads: bool) -> SpillPlace {
        self.written += 1;
        if (nobody_reads && self.reading == 0) || planted(Bug::SpilledPlaceReused) {
            for (place, blocks) in self.freed.drain(..) {
                self.free[blocks - 1].push(place);
            }
        }
        let position = self.free[blocks - 1].pop().unwrap_or_else(|| {
            let end = self.end + (blocks * BLOCK_BYTES) as u64;
            std::mem::replace(&mut self.end, end)
        });
        place_at(position, self.written)
    }
}

/// Where a block is, and below the device's blocks the mark of this one writing: a write that was lost must not leave
/// what stood there before to be taken for it.
fn place_at(position: u64, mark: u64) -> SpillPlace {
    let marks = NonZeroU64::MIN.saturating_add(mark % (BLOCK_BYTES as u64 - 1));
    SpillPlace(marks | position)
}

fn position_of(place: SpillPlace) -> u64 {
    place.0.get() / BLOCK_BYTES as u64 * BLOCK_BYTES as u64
}

/// All of the head but the block's number and the checksum.
fn words_and_mark(words: usize, place: SpillPlace) -> [u8; 4] {
    let mark = place.0.get() % BLOCK_BYTES as u64;
    ((words as u32) << 16 | mark as u32).to_be_bytes()
}

fn encode(block: i64, lines: &[u64], place: SpillPlace) -> AlignedBuffer {
    let mut buffer = AlignedBuffer::new(blocks_for(lines.len()) * BLOCK_BYTES);
    let bytes = buffer.as_mut_slice();
    bytes[..8].copy_from_slice(&block.to_be_bytes());
    bytes[8..12].copy_from_slice(&words_and_mark(lines.len(), place));
    for (at, word) in bytes[HEAD_BYTES..].as_chunks_mut().0.iter_mut().zip(lines) {
        *at = word.to_be_bytes();
    }
    let end = HEAD_BYTES + size_of_val(lines);
    let crc = crc_of(&bytes[..end]);
    bytes[12..16].copy_from_slice(&crc.to_be_bytes());
    buffer
}

fn crc_of(bytes: &[u8]) -> u32 {
    crc32c(&bytes[..12]) ^ crc32c(&bytes[HEAD_BYTES..])
}

fn decode(bytes: &[u8], block: i64, place: SpillPlace, words: usize) -> Option<Vec<u64>> {
    let bytes = bytes.get(..HEAD_BYTES + words * size_of::<u64>())?;
    let is_it = bytes[..8] == block.to_be_bytes()
        && bytes[8..12] == words_and_mark(words, place)
        && bytes[12..16] == crc_of(bytes).to_be_bytes();
    is_it.then(|| bytes[HEAD_BYTES..].as_chunks().0.iter().map(|word| u64::from_be_bytes(*word)).collect())
}

fn read(file: &dyn DeviceFile, block: i64, place: SpillPlace, words: usize) -> Result<Vec<u64>> {
    let position = position_of(place);
    let mut bytes = vec![0; blocks_for(words) * BLOCK_BYTES];
    let got = file.read(position, &mut bytes)?;
    let reason = "producers that were out of memory are not as written";
    decode(&bytes[..got], block, place, words).ok_or_else(|| Error::damaged(file.path(), position, -1, reason))
}

impl State {
    fn spills_at(&self) -> usize {
        usize::try_from(self.config.producer_memory_bytes).unwrap_or(usize::MAX)
    }

    /// More producers are in memory than may be.
    pub(in crate::log) fn should_spill(&self) -> bool {
        self.producers.bytes_now() > self.spills_at()
    }

    /// So many more that nobody should add to them.
    pub(in crate::log) fn must_spill(&self) -> bool {
        self.producers.bytes_now() / 9 * 8 > self.spills_at()
    }
}

impl Shared {
    /// Takes what is cold out of memory until the limit is kept or nothing more can go. A full disk is no failure: the
    /// log goes on with more in memory.
    pub(in crate::log) fn spill(&self) -> Result<()> {
        self.spill_while(State::should_spill, STEP_BLOCKS)
    }

    /// An append makes room for what it adds, where the driver does not keep up: reads bring producers back faster than
    /// writes take them out, so it waits for its turn to write.
    pub(in crate::log) fn spill_for_append(&self) -> Result<()> {
        self.spill_while(State::must_spill, APPEND_BLOCKS)
    }

    fn spill_while(&self, is_needed: impl Fn(&State) -> bool, most: usize) -> Result<()> {
        for _ in 0..ROUND_STEPS {
            let _one = self.spilling.lock();
            let state = self.state.lock();
            let now_ms = self.clock.now_ms();
            let stands = state.closed || state.latch.is_some() || now_ms < state.spill.not_before_ms;
            if stands || !is_needed(&state) {
                return Ok(());
            }
            if let Err(error) = self.spill_some(state, most, now_ms) {
                tracing::warn!(%error, "no producers can be taken out of memory");
                self.state.lock().spill.not_before_ms = now_ms.saturating_add(RETRY_MS);
                return Ok(());
            }
        }
        Ok(())
    }

    /// Nothing is in the file any more: the log is closed, or its producers were made anew.
    pub(in crate::log) fn forget_spill(&self, state: &mut State) -> Result<()> {
        let spill = std::mem::take(&mut state.spill);
        state.spill.returned = spill.returned;
        if spill.file.is_some() {
            self.device.remove(&self.spill_path())?;
        }
        Ok(())
    }

    /// One step.
    fn spill_some(&self, mut state: MutexGuard<'_, State>, most: usize, now_ms: i64) -> Result<()> {
        let from = state.spill.from;
        let (cold, next) = state.producers.cold(from, most);
        state.spill.note_step(!cold.is_empty(), next, now_ms);
        let nobody_reads = !state.producers.has_views();
        let places: Vec<SpillPlace> =
            cold.iter().map(|(_, lines)| state.spill.allocate(blocks_for(lines.len()), nobody_reads)).collect();
        let (mut file, mut length, end) = (state.spill.file.clone(), state.spill.length, state.spill.end);
        drop(state);
        let mut written = 0;
        let done = self.write_cold(&cold, &places, (&mut file, &mut length, end), &mut written);
        // Who forgets the file waits for its writer: `spilling` is held.
        let mut state = self.state.lock();
        (state.spill.file, state.spill.length) = (file, length);
        for (at, ((block, lines), place)) in cold.iter().zip(&places).enumerate() {
            if at >= written || !state.producers.let_go(*block, *place) {
                state.spill.free[blocks_for(lines.len()) - 1].push(position_of(*place));
            }
        }
        done
    }

    fn write_cold(
        &self,
        cold: &[(i64, Vec<u64>)],
        places: &[SpillPlace],
        (file, length, end): (&mut Option<Arc<dyn DeviceFile>>, &mut u64, u64),
        written: &mut usize,
    ) -> Result<()> {
        if cold.is_empty() {
            return Ok(());
        }
        let open = match file {
            Some(open) => open.clone(),
            None => {
                self.device.remove(&self.spill_path())?;
                file.insert(self.device.open(&self.spill_path(), OpenMode::Create)?).clone()
            }
        };
        if end > *length {
            let longer = end.next_multiple_of(GROWTH_BYTES);
            open.set_length(longer)?;
            *length = longer;
        }
        for ((block, lines), place) in cold.iter().zip(places) {
            let buffer = encode(*block, lines, *place);
            let bytes = blocks_for(lines.len()) * BLOCK_BYTES;
            open.write(position_of(*place), &buffer, bytes, oncelog_device::Sync::None)?;
            *written += 1;
        }
        Ok(())
    }

    fn spill_path(&self) -> PathBuf {
        self.dir.join(SPILL_FILE)
    }

    /// Brings a block back, read with the lock released. If it cannot be read for damage the log becomes read-only:
    /// what stood there must not be taken for unknown. The next opening does without the file.
    pub(in crate::log) fn bring_back(&self, mut state: MutexGuard<'_, State>, spilled: &Spilled) -> Result<()> {
        let Spilled { block, place, words } = *spilled;
        let generation = state.generation;
        let Some(file) = state.spill.file.clone() else { return Err(Error::Closed) };
        state.spill.reading += 1;
        drop(state);
        let lines = read(&*file, block, place, words);
        let mut state = self.state.lock();
        if state.generation != generation {
            return Ok(());
        }
        state.spill.reading = state.spill.reading.saturating_sub(1);
        match lines {
            Ok(lines) => {
                if state.producers.take_back(block, place, lines) {
                    state.spill.freed.push((position_of(place), blocks_for(words)));
                    state.spill.returned += 1;
                }
                Ok(())
            }
            Err(error) => {
                note_unreadable(&mut state, &error);
                Err(error)
            }
        }
    }

    /// Brings every block back.
    pub(in crate::log) fn bring_all_back(&self) -> Result<()> {
        let mut from = Some(0);
        while let Some(at) = from {
            let (some, next) = {
                let mut state = self.state.lock();
                if state.producers.spilled() == 0 {
                    return Ok(());
                }
                state.producers.spilled_from(at)
            };
            some.iter().try_for_each(|spilled| self.bring_back(self.state.lock(), spilled))?;
            from = next;
        }
        Ok(())
    }

    /// Reads a view to its end, some blocks at a time, those that were spilled too, and gives it back.
    pub(in crate::log) fn read_view(&self, mut view: Frozen, mut push: impl FnMut(&[FrozenBlock])) -> Result<()> {
        let read = loop {
            let mut blocks = self.state.lock().producers.read_frozen(&mut view, STEP_ENTRIES);
            match self.fill(&mut blocks) {
                Ok(()) if !blocks.is_empty() => {
                    push(&blocks);
                    // Else whoever completes the appends' writes may wait for this core until the next tick.
                    thread::yield_now();
                }
                done => break done,
            }
        };
        self.state.lock().producers.thaw(view);
        read
    }

    /// Gets the lines of a view's blocks that were spilled. The view keeps their places from being used again.
    fn fill(&self, blocks: &mut [FrozenBlock]) -> Result<()> {
        if blocks.iter().all(|block| block.spilled.is_none()) || planted(Bug::SpilledLeftOut) {
            return Ok(());
        }
        let Some(file) = self.state.lock().spill.file.clone() else { return Err(Error::Closed) };
        for block in blocks {
            let Some(place) = block.spilled else { continue };
            let lines = read(&*file, block.block, place, block.words())
                .inspect_err(|error| note_unreadable(&mut self.state.lock(), error))?;
            block.fill(&lines);
        }
        Ok(())
    }
}

/// What is known of producers cannot be read: if it is damaged the log becomes read-only.
pub(in crate::log) fn note_unreadable(state: &mut State, error: &Error) {
    if let Error::Damaged(damage) = error {
        tracing::error!(%damage, "producers cannot be read: the log is read-only until it is opened again");
        state.read_only.get_or_insert((**damage).clone());
    }
}

#[cfg(test)]
mod tests;
