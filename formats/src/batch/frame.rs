//! Where one batch ends and the next begins.

use super::{BatchView, FRAME_BYTES, LOG_OVERHEAD_BYTES, MAGIC, MIN_LENGTH, WHAT};
use crate::error::{FormatError, Result};

/// Total bytes of the next whole batch of a buffer; `None` where the buffer ends before the batch does.
///
/// Kafka's order of checks: a length below 14 is [`FormatError::BadLength`] as soon as it can be read, a magic outside
/// 0 to 2 is [`FormatError::BadMagic`] even where the batch is cut off. Magic 0 and 1 pass here and fail in
/// [`BatchView::new`].
pub fn frame_in_memory(bytes: &[u8]) -> Result<Option<usize>> {
    let Some((overhead, _)) = bytes.split_first_chunk::<LOG_OVERHEAD_BYTES>() else {
        return Ok(None);
    };
    let [.., a, b, c, d] = *overhead;
    let length = i32::from_be_bytes([a, b, c, d]);
    if length < MIN_LENGTH {
        return Err(FormatError::BadLength { what: WHAT, value: i64::from(length) });
    }
    let Some((&[.., magic], _)) = bytes.split_first_chunk::<FRAME_BYTES>() else {
        return Ok(None);
    };
    let magic = magic as i8;
    if !(0..=MAGIC).contains(&magic) {
        return Err(FormatError::BadMagic { magic });
    }
    let size = (length as usize).saturating_add(LOG_OVERHEAD_BYTES);
    Ok((bytes.len() >= size).then_some(size))
}

/// The batches of a buffer in order, up to the first that is cut off. An error is the last item.
#[derive(Clone, Debug)]
pub struct Batches<'a> {
    rest: &'a [u8],
    position: usize,
    failed: bool,
}

impl<'a> Batches<'a> {
    /// Over `bytes`, which begin with a batch.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, position: 0, failed: false }
    }

    /// Bytes of all batches given so far: where the next one begins.
    #[must_use]
    pub fn position(&self) -> usize {
        self.position
    }

    fn take(&mut self) -> Result<Option<BatchView<'a>>> {
        let Some(size) = frame_in_memory(self.rest)? else {
            return Ok(None);
        };
        let view = BatchView::new(self.rest)?;
        self.rest = &self.rest[size..];
        self.position += size;
        Ok(Some(view))
    }
}

impl<'a> Iterator for Batches<'a> {
    type Item = Result<BatchView<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let taken = self.take().transpose();
        self.failed = !matches!(taken, Some(Ok(_)));
        taken
    }
}
