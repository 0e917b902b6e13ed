//! Whole batches at the front of some bytes, as many as a read may have.

use oncelog_device::planted::{Bug, planted};
use oncelog_formats::batch::HEADER_BYTES;
use oncelog_formats::{BatchHeader, BatchView};

use super::scan::base_offset;

/// How far a read may go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Want {
    /// Batches that reach this offset are for others.
    pub limit: i64,
    /// At most this many bytes.
    pub max_bytes: usize,
    /// But one batch whatever its size.
    pub at_least_one: bool,
}

/// Why no more batches were taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Halt {
    /// The next batch reaches the limit, or everything below it was taken.
    Limit,
    /// The next batch is over the size.
    Size,
    /// The bytes end here, or inside a batch of this many bytes if that is known.
    Bytes(Option<usize>),
    /// This batch is next and whole, but lies behind a gap, and these bytes do not show that there is room for it.
    Gap(BatchHeader),
    /// What follows is no batch that could stand here.
    Broken(String),
}

/// What was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    /// Bytes of whole batches.
    pub bytes: usize,
    /// Bytes of the first one, if it was taken whatever its size.
    pub first_bytes: usize,
    /// Offset behind the last of them, or the one expected at the start.
    pub next_offset: i64,
    pub halt: Halt,
}

/// Takes batches from the front of `bytes`, of which the first must not lie below `expected`. With `verify` each must
/// be what was written, as far as can be told (see [`super::walk`]); without, they are known to be (what this process
/// checked and kept).
pub(crate) fn take(bytes: &[u8], expected: i64, want: Want, verify: bool) -> Taken {
    let mut taken = Taken { bytes: 0, first_bytes: 0, next_offset: expected, halt: Halt::Limit };
    taken.go_on(bytes, want, verify);
    taken
}

impl Taken {
    /// Takes the batch that came to a [`Halt::Gap`], and what follows.
    pub fn step_over_gap(&mut self, header: &BatchHeader, bytes: &[u8], want: Want) {
        self.halt = Halt::Limit;
        self.push(header, want);
        self.go_on(bytes, want, true);
    }

    fn go_on(&mut self, bytes: &[u8], want: Want, verify: bool) {
        while self.next_offset < want.limit {
            match next(&bytes[self.bytes..], self, want, verify) {
                Ok(header) => self.push(&header, want),
                Err(halt) => {
                    self.halt = halt;
                    break;
                }
            }
        }
    }

    fn push(&mut self, header: &BatchHeader, want: Want) {
        if self.bytes == 0 && want.at_least_one {
            self.first_bytes = header.size_bytes();
        }
        self.bytes += header.size_bytes();
        self.next_offset = header.next_offset();
    }
}

fn next(rest: &[u8], taken: &Taken, want: Want, verify: bool) -> Result<BatchHeader, Halt> {
    if rest.len() < HEADER_BYTES {
        return Err(if taken.bytes > 0 && taken.bytes + HEADER_BYTES > want.max_bytes {
            Halt::Size
        } else {
            Halt::Bytes(None)
        });
    }
    let header = BatchHeader::parse(rest).map_err(|e| Halt::Broken(e.to_string()))?;
    let size = header.size_bytes();
    // What is not wanted is not looked at: behind the limit it may not even be written yet.
    if header.last_offset() >= want.limit {
        return Err(Halt::Limit);
    }
    let first = taken.bytes == 0 && want.at_least_one;
    if !first && taken.bytes + size > want.max_bytes {
        return Err(Halt::Size);
    }
    if size > rest.len() {
        return Err(Halt::Bytes(Some(size)));
    }
    if verify && !planted(Bug::ReadChecksumSkipped) {
        let view = BatchView::new(rest).and_then(|view| view.verify_crc());
        view.map_err(|e| Halt::Broken(e.to_string()))?;
        if header.base_offset < taken.next_offset {
            let (offset, last) = (header.base_offset, taken.next_offset - 1);
            return Err(Halt::Broken(format!("offset {offset} behind offset {last}")));
        }
        if header.base_offset > taken.next_offset && !planted(Bug::GapBelieved) && !has_room(&header, &rest[size..]) {
            return Err(Halt::Gap(header));
        }
    }
    Ok(header)
}

/// Whether what follows a batch begins behind it.
fn has_room(header: &BatchHeader, behind: &[u8]) -> bool {
    base_offset(behind).is_some_and(|base_offset| base_offset >= header.next_offset())
}
