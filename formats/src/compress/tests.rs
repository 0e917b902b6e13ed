use alloc::string::String;
use alloc::vec::Vec;

use super::*;

/// The codecs of this build that do something.
fn codecs() -> Vec<Compression> {
    let built = |codec: &Compression| compress(*codec, b"x") != Err(FormatError::CodecUnavailable(*codec));
    Compression::ALL.into_iter().skip(1).filter(built).collect()
}

/// Compressible, incompressible, and longer than any codec's block.
fn samples() -> Vec<Vec<u8>> {
    let mut state = 1u32;
    let mut noise = |size: usize| -> Vec<u8> {
        core::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .take(size)
        .collect()
    };
    let words = b"exactly once, ".repeat(20_000);
    alloc::vec![Vec::new(), b"a".to_vec(), words, noise(1000), noise(200_000), [0; 300_000].to_vec()]
}

#[test]
fn what_is_compressed_comes_back_within_a_limit_that_just_fits() {
    for codec in codecs() {
        for sample in samples() {
            let packed = compress(codec, &sample).unwrap();
            let output = decompress(codec, &packed, sample.len()).unwrap();
            assert!(output == sample, "{} of {} bytes", codec.name(), sample.len());
            assert!(output.capacity() <= sample.len(), "{} took {}", codec.name(), output.capacity());
        }
    }
}

#[test]
fn one_byte_over_the_limit_is_too_large() {
    for codec in Compression::ALL.into_iter().take(1).chain(codecs()) {
        for sample in samples().iter().filter(|sample| !sample.is_empty()) {
            let packed = compress(codec, sample).unwrap();
            let limit_bytes = sample.len() - 1;
            let refused = decompress(codec, &packed, limit_bytes).err();
            assert_eq!(refused, Some(too_large(limit_bytes)), "{} of {} bytes", codec.name(), sample.len());
        }
    }
}

#[test]
fn a_cut_off_input_is_refused() {
    for codec in codecs() {
        let packed = compress(codec, b"some bytes, some bytes, some bytes").unwrap();
        // Snappy's framing has no end: where a block ends is a whole stream.
        let ends = if codec == Compression::Snappy { &[16][..] } else { &[] };
        for length in 1..packed.len() {
            let refused = decompress(codec, &packed[..length], 1000) == Err(FormatError::Decompress(codec));
            assert_eq!(refused, !ends.contains(&length), "{} cut at {length}", codec.name());
        }
    }
}

#[test]
fn ids_and_names_are_kafkas() {
    let names: Vec<_> = Compression::ALL.map(Compression::name).into();
    assert_eq!(names, ["none", "gzip", "snappy", "lz4", "zstd"]);
    for (id, codec) in Compression::ALL.into_iter().enumerate() {
        assert_eq!((codec.id(), Compression::from_id(id as u8)), (id as u8, Ok(codec)));
        assert_eq!(Compression::from_name(codec.name()), Ok(codec));
    }
    assert_eq!(Compression::from_id(5), Err(FormatError::UnknownCodec(5)));
    assert!(Compression::from_name(&String::from("GZIP")).is_err());
}

#[cfg(feature = "gzip")]
#[test]
fn gzip_members_and_zstd_frames_may_follow_each_other() {
    for codec in [Compression::Gzip, Compression::Zstd] {
        let Ok(first) = compress(codec, b"one ") else {
            continue;
        };
        let joined = [first, compress(codec, b"two").unwrap()].concat();
        assert_eq!(decompress(codec, &joined, 100).as_deref(), Ok(&b"one two"[..]), "{}", codec.name());
    }
}

#[cfg(feature = "snappy")]
#[test]
fn snappy_is_also_read_raw_and_joined() {
    let raw = snap::raw::Encoder::new().compress_vec(b"one ").unwrap();
    assert_eq!(decompress(Compression::Snappy, &raw, 100).as_deref(), Ok(&b"one "[..]));
    let framed = compress(Compression::Snappy, b"two").unwrap();
    let joined = framed.repeat(2);
    assert_eq!(decompress(Compression::Snappy, &joined, 100).as_deref(), Ok(&b"twotwo"[..]));
}

#[cfg(feature = "snappy")]
#[test]
fn a_snappy_block_that_claims_more_than_it_can_hold_allocates_nothing() {
    // A length of 2^32-1 and one literal.
    let claim = [0xff, 0xff, 0xff, 0xff, 0x0f, 0x00, b'x'];
    let refused = FormatError::Decompress(Compression::Snappy);
    assert_eq!(decompress(Compression::Snappy, &claim, usize::MAX), Err(refused));
}

#[cfg(feature = "zstd")]
#[test]
fn a_zstd_frame_that_claims_more_than_it_holds_is_not_believed() {
    // Content size and window 1 GiB, one raw block of nothing.
    let claim = b"\x28\xb5\x2f\xfd\xa0\0\0\0\x40\x01\0\0";
    let refused = FormatError::Decompress(Compression::Zstd);
    // Growing to this limit would not be "refused", it would be an abort.
    assert_eq!(decompress(Compression::Zstd, claim, usize::MAX >> 1), Err(refused));
    // No content size, a window of 128 MiB, one raw block.
    let wide = b"\x28\xb5\x2f\xfd\0\x88\x19\0\0abc";
    assert_eq!(decompress(Compression::Zstd, wide, 3).as_deref(), Ok(&b"abc"[..]));
}

#[cfg(feature = "lz4")]
#[test]
fn lz4_writes_kafkas_header_and_reads_the_optional_parts() {
    let refused = Err(FormatError::Decompress(Compression::Lz4));
    let packed = compress(Compression::Lz4, b"abc").unwrap();
    assert_eq!(packed, b"\x04\x22\x4d\x18\x60\x40\x82\x03\0\0\x80abc\0\0\0\0");
    let mut bad_checksum = packed.clone();
    bad_checksum[6] ^= 1;
    assert_eq!(decompress(Compression::Lz4, &bad_checksum, 100), refused);
    let mut linked_blocks = packed;
    linked_blocks[4] = 0x40;
    linked_blocks[6] = 0xc0;
    assert_eq!(decompress(Compression::Lz4, &linked_blocks, 100), refused);
    // `lz4 -BX --content-size`: block checksums, content size, content checksum, 4 MiB blocks.
    let full = b"\x04\x22\x4d\x18\x7c\x70\x03\0\0\0\0\0\0\0\x00\x03\0\0\x80abc\xff\xff\xff\xff\0\0\0\0\xff\xff\xff\xff";
    let mut full = full.to_vec();
    full[14] = lz4::header_checksum(&full[4..14]);
    assert_eq!(decompress(Compression::Lz4, &full, 100).as_deref(), Ok(&b"abc"[..]));
}

proptest::proptest! {
    #[test]
    fn damaged_input_never_panics_or_takes_more_than_the_limit(
        sample in proptest::collection::vec(0u8..4, 0..2000),
        changes in proptest::collection::vec((proptest::prelude::any::<usize>(), proptest::prelude::any::<u8>()), 0..5),
        limit_bytes in 0usize..3000,
    ) {
        for codec in codecs() {
            let mut packed = compress(codec, &sample).unwrap();
            for &(position, value) in &changes {
                let position = position % packed.len();
                packed[position] = value;
            }
            if let Ok(output) = decompress(codec, &packed, limit_bytes) {
                proptest::prop_assert!(output.capacity() <= limit_bytes, "{} took {}", codec.name(), output.capacity());
            }
        }
    }
}

/// `bytes` bytes of words in no order, a stretch of noise, and zeroes.
fn mixture(bytes: usize) -> Vec<u8> {
    let mut state = 5u32;
    let mut next = move |limit: u32| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) % limit
    };
    let mut mixture = Vec::new();
    while mixture.len() < bytes {
        match next(400) {
            0 => mixture.extend(core::iter::repeat_with(|| next(256) as u8).take(3_000)),
            1 => mixture.extend([0; 2_000]),
            word => mixture.extend(alloc::format!("word{} ", word * word % 1_009).bytes()),
        }
    }
    mixture.truncate(bytes);
    mixture
}

/// What Kafka 4.4.0's own streams make of [`mixture`] on Java 17: size and CRC-32C.
#[test]
fn bytes_are_those_of_kafkas_own_libraries() {
    let table = [
        (Compression::Gzip, 0, (20, 0x7ad1f8f5)),
        (Compression::Gzip, 1, (21, 0xd0d3ea40)),
        (Compression::Gzip, 100, (74, 0x0e6c989c)),
        (Compression::Gzip, 5000, (3636, 0xf9540763)),
        (Compression::Gzip, 40000, (28747, 0x423fe41d)),
        (Compression::Gzip, 65536, (41178, 0xd232e0ca)),
        (Compression::Gzip, 65537, (41180, 0x75c6042c)),
        (Compression::Gzip, 131072, (73807, 0x28f5fd39)),
        (Compression::Gzip, 300000, (159413, 0x832f8fc3)),
        (Compression::Gzip, 1000000, (510787, 0x9f494305)),
        (Compression::Lz4, 0, (11, 0xa36cd84b)),
        (Compression::Lz4, 1, (16, 0xcacb627d)),
        (Compression::Lz4, 100, (90, 0x0ca93aec)),
        (Compression::Lz4, 5000, (3901, 0x4308c769)),
        (Compression::Lz4, 40000, (30028, 0x27f76ac0)),
        (Compression::Lz4, 65536, (43316, 0xf6d092b4)),
        (Compression::Lz4, 65537, (43321, 0xcbc3b6a5)),
        (Compression::Lz4, 131072, (78795, 0x019cfb9c)),
        (Compression::Lz4, 300000, (170562, 0x940f0676)),
        (Compression::Lz4, 1000000, (550270, 0x7f02adad)),
        (Compression::Zstd, 0, (9, 0x869adf38)),
        (Compression::Zstd, 1, (13, 0x13f19909)),
        (Compression::Zstd, 100, (84, 0x7a39b600)),
        (Compression::Zstd, 5000, (3583, 0x48d8d41c)),
        (Compression::Zstd, 40000, (28244, 0x32f6e5fd)),
        (Compression::Zstd, 65536, (40166, 0x62f2388e)),
        (Compression::Zstd, 65537, (40161, 0x4f124b9a)),
        (Compression::Zstd, 131072, (71540, 0x505fe01a)),
        (Compression::Zstd, 300000, (96432, 0xf3f9f8eb)),
        (Compression::Zstd, 1000000, (169765, 0x3ff6b701)),
        (Compression::Snappy, 0, (16, 0xca773491)),
        (Compression::Snappy, 65536, (44612, 0x2b108a3e)),
        (Compression::Snappy, 131072, (81128, 0xf8a27b3c)),
        (Compression::Snappy, 1000000, (569215, 0x5c09298f)),
    ];
    for (codec, bytes, expected) in table {
        let packed = match compress(codec, &mixture(bytes)) {
            Err(FormatError::CodecUnavailable(_)) => continue,
            packed => packed.unwrap(),
        };
        let found = (packed.len(), crate::crc32c::crc32c(&packed));
        assert_eq!(found, expected, "{} of {bytes} bytes", codec.name());
    }
}
