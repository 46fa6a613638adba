//! MurmurHash3 for 32 bits, by Austin Appleby; the algorithm is in the public domain.

/// `MurmurHash3_x86_32` with seed 0.
pub(super) fn murmur3(bytes: &[u8]) -> u32 {
    const C1: u32 = 0xcc9e_2d51;
    const C2: u32 = 0x1b87_3593;
    let scramble = |block: u32| block.wrapping_mul(C1).rotate_left(15).wrapping_mul(C2);
    let mut hash = 0_u32;
    let (blocks, tail) = bytes.as_chunks::<4>();
    for block in blocks {
        hash ^= scramble(u32::from_le_bytes(*block));
        hash = hash.rotate_left(13).wrapping_mul(5).wrapping_add(0xe654_6b64);
    }
    if !tail.is_empty() {
        let mut block = [0; 4];
        block[..tail.len()].copy_from_slice(tail);
        hash ^= scramble(u32::from_le_bytes(block));
    }
    // The length of the original is an int of 32 bits as well.
    #[expect(clippy::cast_possible_truncation, reason = "the algorithm has it so")]
    let length = bytes.len() as u32;
    hash ^= length;
    hash = (hash ^ (hash >> 16)).wrapping_mul(0x85eb_ca6b);
    hash = (hash ^ (hash >> 13)).wrapping_mul(0xc2b2_ae35);
    hash ^ (hash >> 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_the_reference_for_every_length_of_the_tail() {
        // mmh3.hash(text, signed=False) of the Python package mmh3 5.3.1.
        for (text, hash) in [
            ("", 0),
            ("a", 1_009_084_850),
            ("ab", 2_613_040_991),
            ("abc", 3_017_643_002),
            ("abcd", 1_139_631_978),
            ("abcde", 3_902_511_862),
            ("quick", 771_291_085),
            ("Ünïcödé", 198_920_051),
            ("🚀 rocket", 3_317_996_230),
            ("the quick brown fox jumps over the lazy dog", 48_128_767),
        ] {
            assert_eq!(murmur3(text.as_bytes()), hash, "{text:?}");
        }
    }
}
