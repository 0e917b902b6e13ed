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

/// Whether `sequence` lies in the half of the domain that comes after `other`, the wrap counted in.
#[inline]
#[must_use]
pub fn sequence_is_after(sequence: i32, other: i32) -> bool {
    (1..=i32::MAX / 2).contains(&sequence_sub(sequence, other))
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
    fn what_comes_after_comes_after_across_the_wrap() {
        const MAX: i32 = i32::MAX;
        for (sequence, other, after) in
            [(1, 0, true), (0, 0, false), (0, 1, false), (0, MAX, true), (MAX, 0, false), (7, MAX - 7, true)]
        {
            assert_eq!(sequence_is_after(sequence, other), after, "{sequence} after {other}");
        }
    }

    #[test]
    fn hostile_values_do_not_panic() {
        for a in [i32::MIN, -1, 0, i32::MAX] {
            for b in [i32::MIN, -1, 0, i32::MAX] {
                let _ = (sequence_add(a, b), sequence_sub(a, b), sequence_is_after(a, b));
            }
        }
    }
}
