//! What the demo writes: records that can be made again from their numbers alone, so that reading them back proves
//! something without keeping a copy.

use oncelog_formats::{BatchBuilder, FormatError};

/// Records in a batch.
pub const BATCH_RECORDS: u64 = 20;
/// Bytes of a record's value.
pub const VALUE_BYTES: usize = 100;
/// The id of the first producer; the others follow.
pub const FIRST_PRODUCER_ID: i64 = 1000;

/// The batch `batch` (from 0) of a producer (from 0).
pub fn batch(seed: u64, producer: usize, batch: u64, now_ms: i64) -> Result<Vec<u8>, FormatError> {
    let first = batch * BATCH_RECORDS;
    let producer_id = FIRST_PRODUCER_ID + producer as i64;
    let mut builder = BatchBuilder::new().producer(producer_id, 0, (first & 0x7fff_ffff) as i32);
    for record in first..first + BATCH_RECORDS {
        builder.append(now_ms, None, Some(&value(seed, producer, record)), &[]);
    }
    builder.build()
}

/// The value of a producer's record `record` (from 0): its two numbers, then filler that follows from them.
pub fn value(seed: u64, producer: usize, record: u64) -> [u8; VALUE_BYTES] {
    let mut value = [0; VALUE_BYTES];
    value[..8].copy_from_slice(&(producer as u64).to_be_bytes());
    value[8..16].copy_from_slice(&record.to_be_bytes());
    let mut chance = Chance::new(seed ^ (producer as u64) << 48 ^ record);
    for chunk in value[16..].chunks_mut(8) {
        let filler = chance.next().to_be_bytes();
        chunk.copy_from_slice(&filler[..chunk.len()]);
    }
    value
}

/// The numbers in a value, if it is one that [`value`] makes.
pub fn numbers(seed: u64, bytes: &[u8]) -> Option<(usize, u64)> {
    let producer = usize::try_from(u64::from_be_bytes(bytes.get(..8)?.try_into().ok()?)).ok()?;
    let record = u64::from_be_bytes(bytes.get(8..16)?.try_into().ok()?);
    (bytes == value(seed, producer, record)).then_some((producer, record))
}

/// SplitMix64: numbers that follow from a seed.
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// Starts at `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`, which is not 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_tells_its_numbers_and_a_changed_one_does_not() {
        let mut bytes = value(7, 3, 99);
        assert_eq!(numbers(7, &bytes), Some((3, 99)));
        assert_eq!(numbers(8, &bytes), None);
        bytes[50] ^= 1;
        assert_eq!(numbers(7, &bytes), None);
        assert_eq!(numbers(7, b"short"), None);
    }
}
