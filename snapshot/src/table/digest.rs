//! What a producer adds to the digest of its table.
//!
//! A sum of terms, one for the standing and one for each batch, so that an append changes the digest by what it changes
//! and not by all that the producer remembers. The terms do not depend on how the table stores the producer: a batch's
//! sequences have a term of their own only where they do not follow from the newest one's. Append times, which each
//! replica has its own of, stay out.

use oncelog_formats::num::sequence_sub;

use super::line::Place;
use crate::producer::{ProducerEntry, Standing};

/// All terms of an entry.
pub(super) fn entry_term(producer_id: i64, entry: &ProducerEntry) -> u64 {
    let mut sum = standing_term(producer_id, &entry.standing());
    let mut expected = None;
    for batch in entry.batches().iter().rev() {
        sum = sum.wrapping_add(place_term(producer_id, &Place::of(batch)));
        let span = batch.last_offset.wrapping_sub(batch.first_offset) as i32;
        let first = sequence_sub(batch.last_sequence, span);
        if expected.is_some_and(|last| last != batch.last_sequence) || first != batch.first_sequence {
            let sequences = u64::from(batch.first_sequence as u32) << 32 | u64::from(batch.last_sequence as u32);
            let at = fold(producer_id as u64 ^ KEYS[6], batch.last_offset as u64 ^ KEYS[7]);
            sum = sum.wrapping_add(fold(at ^ KEYS[1], sequences ^ KEYS[4]));
        }
        expected = Some(sequence_sub(batch.first_sequence, 1));
    }
    sum
}

/// The term of everything but the batches.
#[inline]
pub(super) fn standing_term(producer_id: i64, standing: &Standing) -> u64 {
    let Standing { epoch, coordinator_epoch, last_sequence, has_batches: _, last_timestamp, txn_first_offset } =
        *standing;
    let epochs = u64::from(last_sequence as u32) | u64::from(epoch as u16) << 32 | (coordinator_epoch as u64) << 48;
    let term = head_term(producer_id, epochs, last_timestamp, txn_first_offset.unwrap_or(-1));
    match i16::try_from(coordinator_epoch) {
        Ok(_) => term,
        Err(_) => term.wrapping_add(fold(producer_id as u64 ^ KEYS[4], coordinator_epoch as u64 ^ KEYS[1])),
    }
}

/// The same of one whose coordinator epoch has 16 bits: `epochs` are its last sequence (32 bits), epoch (16) and
/// coordinator epoch (16), from the lowest bits on.
#[inline]
pub(super) fn head_term(producer_id: i64, epochs: u64, last_timestamp: i64, txn_first_offset: i64) -> u64 {
    let a = fold(producer_id as u64 ^ KEYS[0], epochs ^ KEYS[1]);
    let b = fold(last_timestamp as u64 ^ KEYS[2], txn_first_offset as u64 ^ KEYS[3]);
    a ^ b
}

/// The term of one batch.
#[inline]
pub(super) fn place_term(producer_id: i64, place: &Place) -> u64 {
    let a = fold(producer_id as u64 ^ KEYS[5], place.first_offset as u64 ^ KEYS[6]);
    let b = fold(place.last_offset as u64 ^ KEYS[7], place.timestamp as u64 ^ KEYS[0]);
    a ^ b
}

/// Both halves of the product: every bit of either factor reaches most bits of the result.
#[inline]
pub(super) fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

/// The first digits behind the point of the square roots of 2, 3, 5, 7, 11, 13, 17 and 19: numbers without a plan.
pub(super) const KEYS: [u64; 8] = [
    0x6a09_e667_f3bc_c908,
    0xbb67_ae85_84ca_a73b,
    0x3c6e_f372_fe94_f82b,
    0xa54f_f53a_5f1d_36f1,
    0x510e_527f_ade6_82d1,
    0x9b05_688c_2b3e_6c1f,
    0x1f83_d9ab_fb41_bd6b,
    0x5be0_cd19_137e_2179,
];
