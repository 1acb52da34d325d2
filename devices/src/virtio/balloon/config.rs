//! The configuration space (virtio 1.3, section 5.5.4): le32 `num_pages`, le32 `actual`.
//!
//! The two words after them belong to features that are not offered; they read as 0.

use crate::virtio::read_config_bytes;

const CONFIG_BYTES: usize = 8;
const ACTUAL_OFFSET: u64 = 4;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Config {
    /// Frames that the host asks the driver to hold.
    pub target: u32,
    /// Frames that the driver claims to hold.
    pub actual: u32,
}

impl Config {
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        let mut bytes = [0; CONFIG_BYTES];
        bytes[..4].copy_from_slice(&self.target.to_le_bytes());
        bytes[4..].copy_from_slice(&self.actual.to_le_bytes());
        read_config_bytes(&bytes, offset, data);
    }

    /// Writes `actual`, whole; everything else is read-only. Returns whether it was written.
    pub fn write(&mut self, offset: u64, data: &[u8]) -> bool {
        match <[u8; 4]>::try_from(data) {
            Ok(actual) if offset == ACTUAL_OFFSET => {
                self.actual = u32::from_le_bytes(actual);
                true
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_width_reads_the_same_bytes() {
        let config = Config { target: 0x0403_0201, actual: 0x0807_0605 };
        for offset in 0..20 {
            for width in 0..9 {
                let mut data = vec![0xee; width];
                config.read(offset, &mut data);
                for (index, byte) in data.iter().enumerate() {
                    let at = offset as usize + index;
                    assert_eq!(*byte as usize, if at < CONFIG_BYTES { at + 1 } else { 0 });
                }
            }
        }
        config.read(u64::MAX, &mut [0; 8]);
    }

    #[test]
    fn only_actual_is_writable_and_only_whole() {
        for offset in 0..20 {
            for width in 0..9 {
                let mut config = Config { target: 1, actual: 2 };
                let written = config.write(offset, &vec![7; width]);
                assert_eq!(written, (offset, width) == (4, 4));
                assert_eq!(config.target, 1);
                assert_eq!(config.actual, if written { 0x0707_0707 } else { 2 });
            }
        }
    }
}
