//! Many batches and one sync, at the limit: pieces of one size, filled and sent, several at once through the ring.

use oncelog_device::raw::RawRing;
use oncelog_device::{AlignedBuffer, BLOCK_BYTES};
use oncelog_formats::BatchView;
use oncelog_formats::batch::HEADER_BYTES;
use std::fs::File;
use std::os::unix::fs::FileExt;

use crate::Failure;
use crate::batches::BatchSource;

/// Measured best on the machines at hand, for the ring and for calls.
pub(super) const PIECE_BYTES: usize = 256 << 10;

/// Memory to fill, and where it goes.
pub(super) trait Sink {
    /// [`PIECE_BYTES`] to fill.
    fn piece(&mut self) -> &mut [u8];

    /// Sends the first `length` bytes of the piece; the next piece is another's memory or free again.
    fn send(&mut self, position: u64, length: usize) -> Result<(), Failure>;

    /// Everything sent survives the loss of power when this returns.
    fn sync(&mut self) -> Result<(), Failure>;
}

/// `count` batches from the front of the file, checked and stamped, round and round within `file_bytes`, and one sync.
pub(super) fn write(
    sink: &mut impl Sink,
    source: &mut BatchSource,
    count: u64,
    file_bytes: u64,
) -> Result<(), Failure> {
    let after = |position: u64| match position + PIECE_BYTES as u64 {
        next if next + PIECE_BYTES as u64 <= file_bytes => next,
        _ => 0,
    };
    let (mut at, mut position, mut next_offset) = (0, 0, 0_i64);
    for _ in 0..count {
        let batch = source.next();
        let view = BatchView::new(batch)?;
        view.verify_crc()?;
        // As the engine stamps it; the leader epoch is 0 already, and neither is under the checksum.
        let mut header = [0; HEADER_BYTES];
        header.copy_from_slice(&batch[..HEADER_BYTES]);
        header[..8].copy_from_slice(&next_offset.to_be_bytes());
        next_offset += i64::from(view.header().record_count);
        for mut part in [&header[..], &batch[HEADER_BYTES..]] {
            while !part.is_empty() {
                let fits = part.len().min(PIECE_BYTES - at);
                sink.piece()[at..at + fits].copy_from_slice(&part[..fits]);
                (part, at) = (&part[fits..], at + fits);
                if at == PIECE_BYTES {
                    sink.send(position, PIECE_BYTES)?;
                    (position, at) = (after(position), 0);
                }
            }
        }
    }
    let padded = at.next_multiple_of(BLOCK_BYTES);
    sink.piece()[at..padded].fill(0);
    sink.send(position, padded)?;
    sink.sync()
}

/// `pwrite` on the calling thread.
pub(super) struct CallSink<'a> {
    file: &'a File,
    piece: AlignedBuffer,
}

impl<'a> CallSink<'a> {
    pub(super) fn new(file: &'a File) -> Self {
        Self { file, piece: AlignedBuffer::new(PIECE_BYTES) }
    }
}

impl Sink for CallSink<'_> {
    fn piece(&mut self) -> &mut [u8] {
        self.piece.as_mut_slice()
    }

    fn send(&mut self, position: u64, length: usize) -> Result<(), Failure> {
        Ok(self.file.write_all_at(&self.piece.as_slice()[..length], position)?)
    }

    fn sync(&mut self) -> Result<(), Failure> {
        Ok(self.file.sync_data()?)
    }
}

/// A ring whose buffers are filled one after the other while the others are on the way.
pub(super) struct RingSink<'a> {
    ring: &'a mut RawRing,
    filling: usize,
    idle: Vec<usize>,
    on_the_way: usize,
}

impl<'a> RingSink<'a> {
    /// Over the first `count` buffers of an idle ring.
    pub(super) fn new(ring: &'a mut RawRing, count: usize) -> Self {
        Self { ring, filling: 0, idle: (1..count).collect(), on_the_way: 0 }
    }

    fn wait(&mut self) -> Result<(), Failure> {
        let (idle, on_the_way) = (&mut self.idle, &mut self.on_the_way);
        self.ring.wait(|slot, _moved| {
            idle.push(slot);
            *on_the_way -= 1;
        })?;
        Ok(())
    }
}

impl Sink for RingSink<'_> {
    fn piece(&mut self) -> &mut [u8] {
        self.ring.buffer(self.filling)
    }

    fn send(&mut self, position: u64, length: usize) -> Result<(), Failure> {
        self.ring.write(self.filling, 0, position, length, false);
        self.ring.submit()?;
        self.on_the_way += 1;
        while self.idle.is_empty() {
            self.wait()?;
        }
        self.filling = self.idle.pop().ok_or("no buffer")?;
        Ok(())
    }

    fn sync(&mut self) -> Result<(), Failure> {
        while self.on_the_way > 0 {
            self.wait()?;
        }
        Ok(self.ring.sync(0)?)
    }
}
