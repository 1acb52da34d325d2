use super::*;
use std::io::Write;

const RAM_BYTES: usize = 64 << 20;

fn ram() -> GuestRam {
    GuestRam::from_ranges(&[(GuestAddress(0), RAM_BYTES)]).unwrap()
}

/// A file that is gone with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(bytes: &[u8]) -> Self {
        use std::sync::atomic::{AtomicUsize, Ordering};
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("ballast-kernel-{}-{number}", std::process::id()));
        File::create(&path).unwrap().write_all(bytes).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).unwrap();
    }
}

/// What loading these bytes comes to: the kernel, or the error with its causes.
fn load(bytes: &[u8]) -> Result<Kernel, String> {
    let file = Scratch::new(bytes);
    load_kernel(&ram(), &file.0).map_err(|error| format!("{:#}", anyhow::Error::from(error)))
}

/// A segment: offset in the file, physical address, bytes in the file, bytes in memory.
type Segment = (u64, u64, u64, u64);

fn elf(entry: u64, segments: &[Segment]) -> Vec<u8> {
    let mut bytes = b"\x7fELF\x02\x01\x01".to_vec();
    bytes.resize(16, 0);
    bytes.extend(2u16.to_le_bytes());
    bytes.extend(62u16.to_le_bytes());
    bytes.extend(1u32.to_le_bytes());
    [entry, 64, 0].iter().for_each(|word| bytes.extend(word.to_le_bytes()));
    bytes.extend(0u32.to_le_bytes());
    let count = u16::try_from(segments.len()).unwrap();
    [64u16, 56, count, 64, 0, 0].iter().for_each(|half| bytes.extend(half.to_le_bytes()));
    for (offset, start, in_file, in_memory) in segments {
        bytes.extend(1u32.to_le_bytes());
        bytes.extend(5u32.to_le_bytes());
        [*offset, *start, *start, *in_file, *in_memory, 0x1000]
            .iter()
            .for_each(|word| bytes.extend(word.to_le_bytes()));
    }
    bytes.resize(bytes.len() + 4096, 0xf4);
    bytes
}

const GOOD: Segment = (64, 0x10_0000, 4096, 8192);

#[test]
fn an_elf_kernel_is_loaded_where_it_says() {
    let kernel = load(&elf(0x10_0010, &[GOOD])).unwrap();
    assert_eq!((kernel.entry, kernel.end), (0x10_0010, 0x10_2000));
}

#[test]
fn an_elf_kernel_that_lies_is_refused_by_what_it_lies_in() {
    let end = RAM_BYTES as u64;
    for (segments, entry, word) in [
        (vec![GOOD, (64, 0, 16, 16)], 0x10_0000, "segment 1 starts at 0x0, among the boot structures"),
        (vec![(64, 0x9000, 16, 16)], 0x9000, "segment 0 starts at 0x9000"),
        (vec![(64, end, 16, 16)], end, "segment 0 at 0x4000000 of 16 bytes does not lie in RAM"),
        (vec![(64, 0x10_0000, 16, end)], 0x10_0000, "does not lie in RAM"),
        (vec![(64, u64::MAX - 7, 16, 16)], 0, "does not lie in RAM"),
        (vec![(64, 0x10_0000, 1 << 20, 1 << 20)], 0x10_0000, "cut short"),
        (vec![(u64::MAX, 0x10_0000, 16, 16)], 0x10_0000, "cut short"),
        (vec![(64, 0x10_0000, 32, 16)], 0x10_0000, "p_filesz is 32 in segment 0"),
        (vec![GOOD], 0x20_0000, "e_entry is 0x200000"),
        (vec![], 0x10_0000, "e_entry"),
    ] {
        let error = load(&elf(entry, &segments)).unwrap_err();
        assert!(error.contains(word) && !error.contains('\n'), "{error:?} does not say {word:?}");
    }
    let whole = elf(0x10_0010, &[GOOD]);
    for length in [4, 10, 63, 64, 100, 119, 200, whole.len() - 57] {
        let error = load(&whole[..length]).unwrap_err();
        assert!(error.contains("cut short"), "{length}: {error}");
    }
    for (at, word) in [(4, "class 7"), (5, "data 7"), (18, "machine 7"), (54, "e_phentsize is 7")] {
        let mut bytes = whole.clone();
        bytes[at] = 7;
        let error = load(&bytes).unwrap_err();
        assert!(error.contains(word), "{error} does not say {word:?}");
    }
}

fn bzimage(version: u16, xloadflags: u16, pref_address: u64, init_size: u32) -> Vec<u8> {
    let mut bytes = vec![0; 8192];
    bytes[0x1f1] = 4;
    bytes[0x202..0x206].copy_from_slice(b"HdrS");
    bytes[0x206..0x208].copy_from_slice(&version.to_le_bytes());
    bytes[0x211] = 1;
    bytes[0x214..0x218].copy_from_slice(&0x10_0000u32.to_le_bytes());
    bytes[0x236..0x238].copy_from_slice(&xloadflags.to_le_bytes());
    bytes[0x258..0x260].copy_from_slice(&pref_address.to_le_bytes());
    bytes[0x260..0x264].copy_from_slice(&init_size.to_le_bytes());
    bytes
}

#[test]
fn a_bzimage_is_entered_in_64_bit_mode_and_ends_behind_what_it_unpacks() {
    let kernel = load(&bzimage(0x20f, 1, 0x100_0000, 0x20_0000)).unwrap();
    assert_eq!((kernel.entry, kernel.end), (0x10_0200, 0x120_0000));
}

#[test]
fn a_bzimage_that_lies_in_its_header_is_refused() {
    for (image, word) in [
        (bzimage(0x20f, 1, u64::MAX, u32::MAX), "pref_address is 0xffffffffffffffff"),
        (bzimage(0x20f, 1, 0, 1), "pref_address is 0x0"),
        (bzimage(0x20f, 1, 1 << 63, 1), "need 9223372036854775809 bytes"),
        (bzimage(0x20f, 1, 0x100_0000, u32::MAX), "--memory gives 67108864"),
        (bzimage(0x20b, 1, 0x100_0000, 1), "version is 0x20b"),
        (bzimage(0x20f, 2, 0x100_0000, 1), "xloadflags is 0x2"),
    ] {
        let error = load(&image).unwrap_err();
        assert!(error.contains(word), "{error} does not say {word:?}");
    }
    let mut image = bzimage(0x20f, 1, 0x100_0000, 1);
    for length in [0x206, 0x210, 0x267, 2560] {
        let error = load(&image[..length]).unwrap_err();
        assert!(error.contains("cut short"), "{length}: {error}");
    }
    image[0x1f1] = 255;
    assert!(load(&image).unwrap_err().contains("real-mode part ends at"));
}

#[test]
fn what_is_no_kernel_and_no_initrd_is_refused() {
    for bytes in [&b""[..], b"hello", &[0; 8192]] {
        assert!(load(bytes).unwrap_err().contains("no kernel"));
    }
    let empty = Scratch::new(b"");
    assert!(load_initrd(&ram(), &empty.0, 0).unwrap_err().to_string().contains("is empty"));
    let large = Scratch::new(&[]);
    File::options().write(true).open(&large.0).unwrap().set_len(1 << 42).unwrap();
    assert!(matches!(load_initrd(&ram(), &large.0, 0), Err(LoadError::DoesNotFit { .. })));
}
