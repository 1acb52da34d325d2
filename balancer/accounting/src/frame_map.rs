//! A number per frame, stored per block of 2 MiB where all frames have the same number.

use super::Run;

/// Frames of a block.
const BLOCK_FRAMES: usize = 512;

/// A block whose frames all have the same number needs no entries.
#[derive(Debug)]
enum Block {
    Uniform(u32),
    Split(Box<[u32; BLOCK_FRAMES]>),
}

/// A number for every frame; 0 until it is changed.
#[derive(Debug, Default)]
pub(super) struct FrameMap {
    blocks: Vec<Block>,
    split: usize,
}

impl FrameMap {
    /// Changes the numbers of a run: `change` gets a number and how many frames in a row have it, and returns the new
    /// number.
    pub fn update(&mut self, run: Run, mut change: impl FnMut(u32, u64) -> u32) {
        let (mut at, end) = (to_index(run.first), to_index(run.first + run.count));
        let blocks = end.div_ceil(BLOCK_FRAMES);
        if blocks > self.blocks.len() {
            self.blocks.resize_with(blocks, || Block::Uniform(0));
        }
        while at < end {
            let (index, from) = (at / BLOCK_FRAMES, at % BLOCK_FRAMES);
            let to = BLOCK_FRAMES.min(from + end - at);
            self.update_block(index, from, to, &mut change);
            at += to - from;
        }
    }

    fn update_block(
        &mut self,
        index: usize,
        from: usize,
        to: usize,
        change: &mut impl FnMut(u32, u64) -> u32,
    ) {
        let block = &mut self.blocks[index];
        match block {
            Block::Uniform(number) => {
                let old = *number;
                let new = change(old, (to - from) as u64);
                if to - from == BLOCK_FRAMES {
                    *number = new;
                } else if new != old {
                    let mut entries = Box::new([old; BLOCK_FRAMES]);
                    entries[from..to].fill(new);
                    *block = Block::Split(entries);
                    self.split += 1;
                }
            }
            Block::Split(entries) => {
                let mut rest = &mut entries[from..to];
                while let Some(&old) = rest.first() {
                    let alike = rest.iter().take_while(|number| **number == old).count();
                    let new = change(old, alike as u64);
                    rest[..alike].fill(new);
                    rest = &mut rest[alike..];
                }
                // If both ends differ, the block is still mixed and need not be scanned.
                let first = entries[0];
                if first == entries[BLOCK_FRAMES - 1] && entries.iter().all(|number| *number == first) {
                    *block = Block::Uniform(first);
                    self.split -= 1;
                }
            }
        }
    }

    pub fn storage_bytes(&self) -> usize {
        self.blocks.capacity() * size_of::<Block>() + self.split * size_of::<[u32; BLOCK_FRAMES]>()
    }
}

fn to_index(frame: u64) -> usize {
    usize::try_from(frame).expect("frame numbers are memory addresses / 4096")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_behaves_like_an_array(runs in prop::collection::vec((0u64..2000, 1u64..1500, 0u32..3), 1..60)) {
            let mut map = FrameMap::default();
            let mut array = vec![0u32; 4096];
            for (first, count, number) in runs {
                let mut seen = Vec::new();
                map.update(Run { first, count }, |old, frames| {
                    seen.extend(std::iter::repeat_n(old, usize::try_from(frames).unwrap()));
                    number
                });
                let range = first as usize..(first + count) as usize;
                prop_assert_eq!(&seen[..], &array[range.clone()]);
                array[range].fill(number);
            }
        }
    }

    #[test]
    fn a_uniform_block_has_no_entries() {
        let mut map = FrameMap::default();
        map.update(Run { first: 0, count: 1024 }, |_, _| 1);
        let uniform = map.storage_bytes();
        map.update(Run { first: 5, count: 1 }, |_, _| 2);
        assert_eq!(map.storage_bytes(), uniform + 2048);
        map.update(Run { first: 5, count: 1 }, |_, _| 1);
        assert_eq!(map.storage_bytes(), uniform);
    }
}
