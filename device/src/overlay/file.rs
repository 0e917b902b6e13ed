//! One file of the overlay: blocks of its own over as much of a base file as is still to be seen.

use crate::buffers::AlignedBuffer;
use crate::device::{BLOCK_BYTES, DeviceFile, Result, Sync};
use crate::error::{DeviceError, DeviceErrorKind};
use crate::lock::{Mutex, RwLock};
use crate::memory::blocks::{BLOCK, SharedBlock, copy_overlap, cut_block, shared_block};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const ZEROES: [u8; BLOCK_BYTES] = [0; BLOCK_BYTES];

#[derive(Default)]
struct State {
    length: u64,
    /// How much of the base shows through; beyond it are own blocks and zeroes.
    base_length: u64,
    /// `None` hides a block of the base under zeroes.
    blocks: BTreeMap<u64, SharedBlock>,
}

/// A file's content, whatever its name.
#[derive(Default)]
pub(super) struct OverlayNode {
    base: Option<Arc<dyn DeviceFile>>,
    state: Mutex<State>,
}

impl OverlayNode {
    /// A file that is the base's until it is changed.
    pub(super) fn over(base: Arc<dyn DeviceFile>) -> Result<Self> {
        let length = base.length()?;
        Ok(Self { base: Some(base), state: Mutex::new(State { length, base_length: length, blocks: BTreeMap::new() }) })
    }

    /// A new file of these bytes.
    pub(super) fn of(bytes: &[u8]) -> Self {
        let blocks = (0..).zip(bytes.chunks(BLOCK_BYTES).map(shared_block)).collect();
        Self { base: None, state: Mutex::new(State { length: bytes.len() as u64, base_length: 0, blocks }) }
    }

    pub(super) fn length(&self) -> u64 {
        self.state.lock().length
    }

    pub(super) fn to_vec(&self) -> Result<Vec<u8>> {
        let state = self.state.lock();
        let mut bytes = vec![0; usize::try_from(state.length).unwrap_or(usize::MAX)];
        self.read(&state, 0, &mut bytes)?;
        Ok(bytes)
    }

    fn read(&self, state: &State, position: u64, buffer: &mut [u8]) -> Result<usize> {
        let count = at_most(state.length.saturating_sub(position), buffer.len());
        let buffer = &mut buffer[..count];
        let from_base = at_most(state.base_length.saturating_sub(position), count);
        let read = match &self.base {
            Some(base) if from_base > 0 => base.read(position, &mut buffer[..from_base])?,
            _ => 0,
        };
        buffer[read..].fill(0);
        if count > 0 {
            let end = position + count as u64;
            for (&number, block) in state.blocks.range(position / BLOCK..end.div_ceil(BLOCK)) {
                copy_overlap(number, block.as_ref().map_or(&ZEROES[..], |block| &block[..]), position, buffer);
            }
        }
        Ok(count)
    }
}

impl State {
    fn zero(&mut self, from: u64, to: u64) {
        self.blocks.retain(|&number, _| !(from / BLOCK..to / BLOCK).contains(&number));
        let hidden = from / BLOCK..to.min(self.base_length).div_ceil(BLOCK);
        self.blocks.extend(hidden.map(|number| (number, None)));
        self.length = self.length.max(to);
    }

    fn set_length(&mut self, length: u64) {
        if length < self.length {
            self.base_length = self.base_length.min(length);
            self.blocks.split_off(&length.div_ceil(BLOCK));
            let keep = (length % BLOCK) as usize;
            if let Some(block) = self.blocks.get_mut(&(length / BLOCK)) {
                *block = cut_block(block, keep);
            }
        }
        self.length = length;
    }
}

/// An open file of the overlay.
pub(super) struct OverlayFile {
    path: RwLock<PathBuf>,
    node: Arc<OverlayNode>,
    writable: bool,
}

impl OverlayFile {
    pub(super) fn new(path: &Path, node: Arc<OverlayNode>, writable: bool) -> Self {
        Self { path: RwLock::new(path.to_path_buf()), node, writable }
    }

    fn check(&self, op: &'static str, valid: bool) -> Result<()> {
        let kind = match (self.writable, valid) {
            (true, true) => return Ok(()),
            (true, false) => DeviceErrorKind::InvalidRange,
            (false, _) => DeviceErrorKind::PermissionDenied,
        };
        Err(DeviceError::new(kind, op, &self.path.read()))
    }
}

impl DeviceFile for OverlayFile {
    fn path(&self) -> PathBuf {
        self.path.read().clone()
    }

    fn length(&self) -> Result<u64> {
        Ok(self.node.length())
    }

    fn read_some(&self, position: u64, buffer: &mut [u8]) -> Result<usize> {
        let state = self.node.state.lock();
        self.node.read(&state, position, buffer)
    }

    fn write(&self, position: u64, buffer: &AlignedBuffer, length: usize, _sync: Sync) -> Result<()> {
        let mut state = self.node.state.lock();
        let aligned = position.is_multiple_of(BLOCK) && length.is_multiple_of(BLOCK_BYTES);
        let inside = position.checked_add(length as u64).is_some_and(|end| end <= state.length);
        self.check("write", aligned && inside && length <= buffer.capacity_bytes())?;
        let blocks = buffer.as_slice()[..length].chunks(BLOCK_BYTES).map(shared_block);
        state.blocks.extend((position / BLOCK..).zip(blocks));
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        Ok(())
    }

    fn prepare(&self, from: u64, to: u64) -> Result<()> {
        let aligned = from.is_multiple_of(BLOCK) && to.is_multiple_of(BLOCK);
        self.check("prepare", aligned && from <= to)?;
        self.node.state.lock().zero(from, to);
        Ok(())
    }

    fn is_linked_elsewhere(&self) -> Result<bool> {
        Ok(false)
    }

    fn renamed(&self, to: &Path) {
        *self.path.write() = to.to_path_buf();
    }

    fn set_length(&self, length: u64) -> Result<()> {
        self.check("set_length", true)?;
        self.node.state.lock().set_length(length);
        Ok(())
    }
}

fn at_most(bytes: u64, limit: usize) -> usize {
    usize::try_from(bytes).map_or(limit, |bytes| bytes.min(limit))
}
