//! Batches to send, ready but for their sequence number.
//!
//! A client that builds each batch anew would be measured along with the log. Here the bytes stay and the sequence
//! number is changed in place; the checksum follows without reading the batch again, because CRC is linear: each bit of
//! the sequence number changes it by a pattern that depends on the batch's length alone.

use oncelog_formats::BatchBuilder;
use oncelog_formats::crc32c::crc32c;

use crate::Failure;

/// Where Kafka's batch header keeps its checksum, the first byte under it, and the first sequence number.
const CRC_AT: usize = 17;
const COVERED_FROM: usize = 21;
const SEQUENCE_AT: usize = 53;

/// One batch of one record with random content, the next sequence number put in on each turn.
pub(crate) struct BatchSource {
    bytes: Vec<u8>,
    /// Of the next batch; without a producer there is none to count.
    next: Option<i32>,
    crc: u32,
    patterns: [u32; 32],
}

impl BatchSource {
    /// A batch of `size_bytes` in all from producer `producer_id`, or from none at -1.
    pub(crate) fn new(producer_id: i64, size_bytes: usize) -> Result<Self, Failure> {
        let around_bytes = build(producer_id, 0)?.len();
        let mut value_bytes = size_bytes.saturating_sub(around_bytes);
        // The lengths in front of a longer value are longer themselves.
        value_bytes -= (build(producer_id, value_bytes)?.len() - size_bytes.max(around_bytes)).min(value_bytes);
        Self::of_record(producer_id, value_bytes)
    }

    /// A batch of one record with a value of `value_bytes`.
    pub(crate) fn of_record(producer_id: i64, value_bytes: usize) -> Result<Self, Failure> {
        let mut bytes = build(producer_id, value_bytes)?;
        let crc = crc32c(&bytes[COVERED_FROM..]);
        let patterns = std::array::from_fn(|bit| {
            let (at, mask) = (SEQUENCE_AT + 3 - bit / 8, 1 << (bit % 8));
            bytes[at] ^= mask;
            let changed = crc32c(&bytes[COVERED_FROM..]) ^ crc;
            bytes[at] ^= mask;
            changed
        });
        Ok(Self { bytes, next: (producer_id >= 0).then_some(0), crc, patterns })
    }

    /// The next batch of this producer.
    pub(crate) fn next(&mut self) -> &[u8] {
        let Some(sequence) = self.next else { return &self.bytes };
        self.next = Some(sequence.checked_add(1).unwrap_or(0));
        self.bytes[SEQUENCE_AT..SEQUENCE_AT + 4].copy_from_slice(&sequence.to_be_bytes());
        let (mut crc, mut left) = (self.crc, sequence);
        while left != 0 {
            crc ^= self.patterns[left.trailing_zeros() as usize];
            left &= left - 1;
        }
        self.bytes[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_be_bytes());
        &self.bytes
    }

    /// Size of each batch.
    pub(crate) fn size_bytes(&self) -> usize {
        self.bytes.len()
    }
}

fn build(producer_id: i64, value_bytes: usize) -> Result<Vec<u8>, Failure> {
    let mut builder = BatchBuilder::new();
    if producer_id >= 0 {
        builder = builder.producer(producer_id, 0, 0);
    }
    builder.append(0, None, Some(&random_bytes(value_bytes, producer_id.cast_unsigned())), &[]);
    Ok(builder.build()?)
}

/// Bytes that no engine can compress.
fn random_bytes(count: usize, seed: u64) -> Vec<u8> {
    let mut state = seed ^ 0x9e37_79b9_7f4a_7c15;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.flatten().take(count).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use oncelog_formats::BatchView;

    #[test]
    fn each_batch_has_its_sequence_number_its_size_and_a_right_checksum() {
        for size_bytes in [172, 1024, 65536] {
            let mut source = BatchSource::new(7, size_bytes).unwrap();
            source.next = Some(i32::MAX - 1);
            for sequence in [i32::MAX - 1, i32::MAX, 0, 1] {
                let batch = BatchView::new(source.next()).unwrap();
                batch.verify_crc().unwrap();
                assert_eq!((batch.header().base_sequence, batch.header().producer_id), (sequence, 7));
                assert_eq!(batch.bytes().len(), size_bytes);
            }
            let mut nobody = BatchSource::new(-1, size_bytes).unwrap();
            nobody.next();
            let batch = BatchView::new(nobody.next()).unwrap();
            batch.verify_crc().unwrap();
            assert_eq!((batch.header().base_sequence, batch.bytes().len()), (-1, size_bytes));
        }
    }
}
