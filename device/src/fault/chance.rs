//! The one door of chance in the fakes: splitmix64, because it is a few lines, has no state worth hiding, and gives the
//! same numbers on every machine and in every version of every library.

/// A well-mixed value of `input`: the same one always.
pub(crate) fn mix(input: u64) -> u64 {
    let mut z = input.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A well-mixed value of two numbers.
pub(crate) fn mix2(a: u64, b: u64) -> u64 {
    mix(mix(a) ^ b)
}

/// A number below `limit` out of `mixed`; 0 where `limit` is 0.
pub(crate) fn below(mixed: u64, limit: u64) -> u64 {
    let wide = u128::from(mixed) * u128::from(limit);
    u64::try_from(wide >> 64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mix_is_splitmix64() {
        // The first two outputs of splitmix64 seeded with 0, from its reference implementation.
        assert_eq!(mix(0), 0xe220_a839_7b1d_cdaf);
        assert_eq!(mix(0x9e37_79b9_7f4a_7c15), 0x6e78_9e6a_a1b9_65f4);
    }

    #[test]
    fn below_reaches_every_number_and_no_other() {
        let mut seen = [false; 5];
        for seed in 0..100 {
            seen[usize::try_from(below(mix(seed), 5)).unwrap()] = true;
        }
        assert_eq!(seen, [true; 5]);
        assert_eq!(below(u64::MAX, 0), 0);
    }
}
