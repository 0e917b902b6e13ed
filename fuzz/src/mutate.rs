//! From valid inputs to nearly valid ones.
//!
//! Bytes without any sense seldom come past a decoder's first check, so most inputs are a seed with a few injuries, and
//! most of these get their checksums made right again (by the target's own repair).

use crate::prng::Prng;

/// No input grows beyond this; decoders have no state that larger ones would reach.
const MAX_BYTES: usize = 1 << 16;
/// Numbers at the edge of something, to be written over fields.
const EDGES: [i64; 14] = [
    0,
    1,
    -1,
    2,
    13,
    14,
    48,
    49,
    i16::MAX as i64,
    i16::MIN as i64,
    i32::MAX as i64,
    i32::MIN as i64,
    i64::MAX,
    i64::MIN,
];

/// An input: one in eight is random, the others are injured seeds; a few seeds stay whole.
pub fn input(prng: &mut Prng, seeds: &[Vec<u8>]) -> Vec<u8> {
    let seed = prng.pick(seeds).filter(|_| !seeds.is_empty()).cloned();
    let Some(mut bytes) = seed.filter(|_| !prng.one_in(8)) else {
        let bound = 1 << prng.below(10);
        let length = prng.below(bound);
        return prng.bytes(length);
    };
    if prng.one_in(16) {
        return bytes;
    }
    for _ in 0..=prng.below(4) {
        injure(prng, &mut bytes, seeds);
    }
    bytes.truncate(MAX_BYTES);
    bytes
}

fn injure(prng: &mut Prng, bytes: &mut Vec<u8>, seeds: &[Vec<u8>]) {
    let at = prng.below(bytes.len() + 1);
    let length = 1 + prng.below(16);
    let end = (at + length).min(bytes.len());
    match prng.below(9) {
        0 if at < bytes.len() => bytes[at] ^= 1 << prng.below(8),
        1 if at < bytes.len() => bytes[at] = prng.next() as u8,
        2 => bytes.truncate(at),
        3 => {
            let more = prng.bytes(length);
            bytes.splice(at..at, more);
        }
        4 => drop(bytes.drain(at..end)),
        5 => bytes[at..end].fill(0),
        6 => {
            let copy = bytes[at..end].to_vec();
            bytes.splice(at..at, copy);
        }
        7 => {
            if let Some(other) = prng.pick(seeds) {
                bytes.truncate(at);
                bytes.extend_from_slice(&other[prng.below(other.len() + 1)..]);
            }
        }
        _ => {
            let value = prng.pick(&EDGES).copied().unwrap_or_default().to_be_bytes();
            let width = [1, 2, 4, 8][prng.below(4)];
            let end = (at + width).min(bytes.len());
            bytes[at..end].copy_from_slice(&value[8 - (end - at)..]);
        }
    }
}
