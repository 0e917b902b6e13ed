//! Sequence-number arithmetic.
//!
//! Producers number records 0 to 2^31-1 and start again at 0; Kafka's two functions are kept bit for bit because the
//! answers for -1 ("no sequence") also end up on disk.

/// `sequence` plus `increment`, wrapping from 2^31-1 to 0. Outside the domain the result is Kafka's, never a panic.
#[inline]
#[must_use]
pub fn sequence_add(sequence: i32, increment: i32) -> i32 {
    if sequence > i32::MAX.wrapping_sub(increment) {
        increment.wrapping_sub(i32::MAX.wrapping_sub(sequence)).wrapping_sub(1)
    } else {
        sequence.wrapping_add(increment)
    }
}

/// `sequence` minus `decrement`, wrapping from 0 to 2^31-1. Outside the domain the result is Kafka's, never a panic.
#[inline]
#[must_use]
pub fn sequence_sub(sequence: i32, decrement: i32) -> i32 {
    if sequence < decrement {
        i32::MAX.wrapping_sub(decrement.wrapping_sub(sequence)).wrapping_add(1)
    } else {
        sequence.wrapping_sub(decrement)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_and_differences_wrap_within_the_domain() {
        const MAX: i32 = i32::MAX;
        for (sequence, increment, sum) in [(0, 1, 1), (MAX, 1, 0), (MAX - 5, 10, 4), (MAX - 10, 20, 9), (MAX, 0, MAX)] {
            assert_eq!(sequence_add(sequence, increment), sum, "{sequence} + {increment}");
        }
        for (sequence, decrement, difference) in
            [(9, 4, 5), (0, 1, MAX), (9, 20, MAX - 10), (-1, 0, MAX), (-1, 5, MAX - 5)]
        {
            assert_eq!(sequence_sub(sequence, decrement), difference, "{sequence} - {decrement}");
        }
    }

    #[test]
    fn hostile_values_do_not_panic() {
        for a in [i32::MIN, -1, 0, i32::MAX] {
            for b in [i32::MIN, -1, 0, i32::MAX] {
                let _ = (sequence_add(a, b), sequence_sub(a, b));
            }
        }
    }
}
