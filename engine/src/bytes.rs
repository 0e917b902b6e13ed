//! What a read hands out: bytes shared by all who hold them.
//!
//! A read must neither copy what is in memory already nor touch fresh pages for each answer. So its bytes lie in
//! buffers that are lent: from the tail of what was just written, or from the engine's pool. The last one to let go
//! gives the buffer back.

use std::ops::{Deref, Range};
use std::sync::Arc;

use oncelog_device::{AlignedBuffer, BufferPool};

/// A range of a shared buffer; a clone shares it too. Derefs to the bytes.
///
/// While one lives its buffer is not used again, so who keeps many for long keeps their memory: copy (`to_vec`) what is
/// to be kept. Code that speaks in `bytes::Bytes` gets one without a copy by `Bytes::from_owner(shared)`.
#[derive(Clone, Default)]
pub struct SharedBytes {
    buffer: Option<Arc<Lent>>,
    range: Range<usize>,
}

/// A buffer on loan from a pool.
pub(crate) struct Lent {
    buffer: AlignedBuffer,
    pool: Arc<BufferPool>,
}

impl Lent {
    pub fn new(buffer: AlignedBuffer, pool: Arc<BufferPool>) -> Self {
        Self { buffer, pool }
    }

    /// One of at least `bytes`; holds whatever its last user left.
    pub fn take(pool: &Arc<BufferPool>, bytes: usize) -> Self {
        Self::new(pool.take(bytes), pool.clone())
    }

    pub fn buffer(&self) -> &AlignedBuffer {
        &self.buffer
    }

    pub fn buffer_mut(&mut self) -> &mut AlignedBuffer {
        &mut self.buffer
    }

    /// These bytes of it, to be shared.
    pub fn share(self, range: Range<usize>) -> SharedBytes {
        assert!(range.start <= range.end && range.end <= self.buffer.capacity_bytes(), "{range:?} of a lent buffer");
        SharedBytes { buffer: Some(Arc::new(self)), range }
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.pool.give(std::mem::take(&mut self.buffer));
    }
}

impl SharedBytes {
    /// A part of these bytes that shares the same buffer.
    #[must_use]
    pub fn slice(&self, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= self.len(), "{range:?} of {} bytes", self.len());
        let start = self.range.start;
        Self { buffer: self.buffer.clone(), range: start + range.start..start + range.end }
    }

    /// Bytes of the buffer that is kept alive, used or not.
    pub(crate) fn held_bytes(&self) -> usize {
        self.buffer.as_ref().map_or(0, |lent| lent.buffer.capacity_bytes())
    }
}

impl Deref for SharedBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.buffer {
            Some(lent) => &lent.buffer.as_slice()[self.range.clone()],
            None => &[],
        }
    }
}

impl AsRef<[u8]> for SharedBytes {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl PartialEq for SharedBytes {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for SharedBytes {}

impl std::fmt::Debug for SharedBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SharedBytes({} bytes)", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_goes_back_when_the_last_holder_lets_go() {
        let pool = Arc::new(BufferPool::new(1 << 20));
        let mut lent = Lent::take(&pool, 8_192);
        lent.buffer_mut().as_mut_slice()[..4].copy_from_slice(b"abcd");
        let address = lent.buffer().as_slice().as_ptr();
        let whole = lent.share(0..4);
        let part = whole.slice(1..3);
        drop(whole);
        assert_eq!(&*part, b"bc");
        assert_ne!(pool.take(8_192).as_slice().as_ptr(), address, "still lent");
        drop(part);
        assert_eq!(pool.take(8_192).as_slice().as_ptr(), address);
        assert!(SharedBytes::default().is_empty());
    }
}
