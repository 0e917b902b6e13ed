//! Producers that are still in a checkpoint file: read when one of them is asked for.
//!
//! The read happens without the log's lock, so that a producer who returns after a long time makes nobody else wait.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use oncelog_device::planted::{Bug, planted};
use oncelog_device::{Device, DeviceFile, OpenMode};
use oncelog_formats::crc32c::crc32c;
use oncelog_formats::log_checkpoint::PageRef;
use oncelog_snapshot::FrozenBlock;
use oncelog_snapshot::pages::decode_page;
use parking_lot::MutexGuard;

use crate::error::{Error, Result};
use crate::log::Shared;
use crate::log::recover::supply;
use crate::log::spill::note_unreadable;
use crate::log::state::State;

/// How many bytes one read of a whole file asks for.
const CHUNK_BYTES: u64 = 1 << 20;

/// An open checkpoint file and where its pages are.
pub(crate) struct PageFile {
    file: Arc<dyn DeviceFile>,
    pages: Vec<PageRef>,
    /// The offset that the file covers, for reports.
    offset: i64,
}

impl PageFile {
    pub fn open(device: &dyn Device, path: &Path, offset: i64, pages: Vec<PageRef>) -> Result<Self> {
        Ok(Self { file: device.open(path, OpenMode::Read)?, pages, offset })
    }

    pub fn first_hashes(&self) -> Vec<u64> {
        self.pages.iter().map(|page| page.first_hash).collect()
    }

    pub fn count(&self) -> usize {
        self.pages.len()
    }

    /// The blocks of one page.
    pub fn read(&self, page: usize) -> Result<Vec<FrozenBlock>> {
        let Some(place) = self.pages.get(page) else { return Ok(Vec::new()) };
        let mut bytes = vec![0; place.length as usize];
        let got = self.file.read(place.position, &mut bytes)?;
        self.decode(place, &bytes[..got])
    }

    /// The blocks of all pages from `first` on, page by page, read in large pieces, until `take` breaks.
    pub fn read_from(
        &self,
        first: usize,
        mut take: impl FnMut(usize, Vec<FrozenBlock>) -> ControlFlow<()>,
    ) -> Result<()> {
        let mut bytes = Vec::new();
        let mut begin = first;
        while let Some(start) = self.pages.get(begin).map(|page| page.position) {
            let ends = |page: &PageRef| page.position.saturating_add(page.length.into()).saturating_sub(start);
            let fits = self.pages[begin + 1..].iter().take_while(|page| ends(page) <= CHUNK_BYTES).count();
            let some = begin..begin + 1 + fits;
            bytes.resize(ends(&self.pages[some.end - 1]) as usize, 0);
            let got = self.file.read(start, &mut bytes)?;
            for page in some.clone() {
                let place = &self.pages[page];
                let at = (place.position.saturating_sub(start)) as usize;
                let whole = bytes[..got].get(at..at + place.length as usize).unwrap_or_default();
                if take(page, self.decode(place, whole)?).is_break() {
                    return Ok(());
                }
            }
            begin = some.end;
        }
        Ok(())
    }

    fn decode(&self, place: &PageRef, bytes: &[u8]) -> Result<Vec<FrozenBlock>> {
        let whole = bytes.len() == place.length as usize && crc32c(bytes) == place.crc;
        let reason = "a page of producers is not as written";
        let damaged = || Error::damaged(self.file.path(), place.position, self.offset, reason);
        decode_page(bytes).filter(|_| whole).ok_or_else(damaged)
    }
}

impl Shared {
    /// The state with this producer in memory.
    pub(in crate::log) fn state_with(&self, producer_id: i64) -> Result<MutexGuard<'_, State>> {
        loop {
            let state = self.state.lock();
            if !state.producers.is_away(producer_id) {
                return Ok(state);
            }
            self.supply(state, producer_id)?;
        }
    }

    /// Reads what is known of a producer that is not in memory, with the lock released.
    pub(in crate::log) fn supply(&self, state: MutexGuard<'_, State>, producer_id: i64) -> Result<()> {
        if let Some(page) = state.producers.missing_page(producer_id) {
            return self.supply_pages(state, page, 1);
        }
        match state.producers.missing_block(producer_id) {
            Some(spilled) => self.bring_back(state, &spilled),
            None => Ok(()),
        }
    }

    /// The state with no producer in a checkpoint alone.
    pub(in crate::log) fn state_with_pages(&self) -> Result<MutexGuard<'_, State>> {
        loop {
            let state = self.state.lock();
            match state.producers.any_missing_page() {
                None => return Ok(state),
                Some(page) => self.supply_pages(state, page, usize::MAX)?,
            }
        }
    }

    /// The state with every producer in memory, whatever that takes.
    pub(in crate::log) fn state_with_all(&self) -> Result<MutexGuard<'_, State>> {
        let nobody_spills = self.spilling.lock();
        self.all_here(&nobody_spills)
    }

    /// The same for who keeps them there.
    pub(in crate::log) fn all_here(&self, _nobody_spills: &MutexGuard<'_, ()>) -> Result<MutexGuard<'_, State>> {
        loop {
            let state = self.state_with_pages()?;
            if state.producers.spilled() == 0 || planted(Bug::TruncationForgetsSpilled) {
                return Ok(state);
            }
            drop(state);
            self.bring_all_back()?;
        }
    }

    /// Reads up to `count` pages from `first` on with the lock released. If one cannot be read the log becomes
    /// read-only: what stands in it must not be taken for unknown. The next opening does without that file.
    pub(in crate::log) fn supply_pages(&self, state: MutexGuard<'_, State>, first: usize, count: usize) -> Result<()> {
        let (file, generation) = (state.checkpoint.pages.clone(), state.generation);
        drop(state);
        let Some(file) = file else { return Ok(()) };
        let take = |page: usize, blocks| {
            let mut state = self.state.lock();
            if state.generation != generation {
                return ControlFlow::Break(());
            }
            let limit_ms = self.clock.now_ms().saturating_sub(state.config.producer_id_expiration_ms);
            let State { producers, checkpoint, .. } = &mut *state;
            supply(producers, &mut checkpoint.put_off, page, blocks, limit_ms);
            if page - first + 1 < count { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        let read = match count {
            1 => file.read(first).map(|blocks| {
                let _only = take(first, blocks);
            }),
            _ => file.read_from(first, take),
        };
        let mut state = self.state.lock();
        if let Err(error) = &read {
            note_unreadable(&mut state, error);
        }
        if state.producers.any_missing_page().is_none() {
            state.checkpoint.pages = None;
        }
        read
    }

    /// Reads some of the pages that nobody asked for yet.
    pub(in crate::log) fn warm_up(&self, pages: usize) -> Result<()> {
        let state = self.state.lock();
        match state.producers.any_missing_page() {
            Some(page) => self.supply_pages(state, page, pages),
            None => Ok(()),
        }
    }
}
