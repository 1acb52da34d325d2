//! Content that a seed determines, and the checksum of content.
//!
//! Word `i` is splitmix64 of seed and `i`: any part can be made without what precedes it, no page equals
//! another (nothing for same-page merging to find) and nothing compresses.

/// Increment of splitmix64: 2^64 divided by the golden ratio.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
const WORD_BYTES: usize = 8;

fn word(seed: u64, index: u64) -> u64 {
    let mut z = seed.wrapping_add(index.wrapping_add(1).wrapping_mul(GOLDEN));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Fills `buffer` with what the pattern of `seed` has from `offset_bytes` on, a multiple of 8.
pub fn fill(seed: u64, offset_bytes: u64, buffer: &mut [u8]) {
    let first = offset_bytes / WORD_BYTES as u64;
    let (words, tail) = buffer.as_chunks_mut::<WORD_BYTES>();
    let mut index = first;
    for chunk in words {
        *chunk = word(seed, index).to_le_bytes();
        index = index.wrapping_add(1);
    }
    let last = word(seed, index).to_le_bytes();
    let tail_bytes = tail.len();
    tail.copy_from_slice(&last[..tail_bytes]);
}

/// Whether `content` is what the pattern of `seed` has from `offset_bytes` on, a multiple of 8.
pub fn matches(seed: u64, offset_bytes: u64, content: &[u8]) -> bool {
    let mut index = offset_bytes / WORD_BYTES as u64;
    let (words, tail) = content.as_chunks::<WORD_BYTES>();
    for chunk in words {
        if u64::from_le_bytes(*chunk) != word(seed, index) {
            return false;
        }
        index = index.wrapping_add(1);
    }
    word(seed, index).to_le_bytes().starts_with(tail)
}

/// A 64-bit checksum: every bit of every byte and every position counts. Not for adversaries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checksum {
    state: u64,
}

impl Default for Checksum {
    fn default() -> Self {
        Checksum { state: GOLDEN }
    }
}

impl Checksum {
    /// Adds content. All calls but the last must bring a multiple of 8 bytes.
    pub fn update(&mut self, content: &[u8]) {
        let (words, tail) = content.as_chunks::<WORD_BYTES>();
        for chunk in words {
            self.mix(u64::from_le_bytes(*chunk));
        }
        if !tail.is_empty() {
            let mut last = [0; WORD_BYTES];
            last[..tail.len()].copy_from_slice(tail);
            self.mix(u64::from_le_bytes(last));
            self.mix(tail.len() as u64);
        }
    }

    /// The value so far, as 16 hexadecimal digits: JSON numbers do not hold 64 bits everywhere.
    pub fn hex(&self) -> String {
        format!("{:016x}", self.state)
    }

    fn mix(&mut self, word: u64) {
        self.state = (self.state ^ word).wrapping_mul(0xff51_afd7_ed55_8ccd).rotate_left(29);
    }
}

/// The checksum of `content`.
pub fn checksum(content: &[u8]) -> String {
    let mut sum = Checksum::default();
    sum.update(content);
    sum.hex()
}

/// The checksum of the first `bytes` of the pattern of `seed`: what the host expects of a guest.
pub fn checksum_of_seed(seed: u64, bytes: u64) -> String {
    let mut sum = Checksum::default();
    let mut buffer = vec![0; 64 << 10];
    let mut offset = 0;
    while offset < bytes {
        let n = (bytes - offset).min(buffer.len() as u64) as usize;
        fill(seed, offset, &mut buffer[..n]);
        sum.update(&buffer[..n]);
        offset += n as u64;
    }
    sum.hex()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_part_can_be_made_alone() {
        let mut whole = vec![0; 4099];
        fill(7, 0, &mut whole);
        let mut part = vec![0; 99];
        fill(7, 4000, &mut part);
        assert_eq!(part, whole[4000..]);
        assert!(matches(7, 0, &whole) && matches(7, 4000, &part));
        assert!(!matches(8, 0, &whole) && !matches(7, 8, &whole));
    }

    #[test]
    fn one_wrong_bit_is_seen_anywhere() {
        let mut content = vec![0; 1003];
        fill(1, 0, &mut content);
        let good = checksum(&content);
        assert_eq!(good, checksum_of_seed(1, 1003));
        for at in [0, 500, 1000, 1002] {
            content[at] ^= 0x10;
            assert_ne!(checksum(&content), good);
            assert!(!matches(1, 0, &content), "{at}");
            content[at] ^= 0x10;
        }
    }

    #[test]
    fn order_and_length_count() {
        assert_ne!(checksum(&[0; 8]), checksum(&[0; 16]));
        assert_ne!(checksum(&[0; 7]), checksum(&[0; 8]));
        assert_ne!(checksum(b"aaaaaaaabbbbbbbb"), checksum(b"bbbbbbbbaaaaaaaa"));
        let mut parts = Checksum::default();
        parts.update(b"aaaaaaaa");
        parts.update(b"bbbb");
        assert_eq!(parts.hex(), checksum(b"aaaaaaaabbbb"));
    }
}
