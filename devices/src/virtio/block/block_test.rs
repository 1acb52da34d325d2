use super::*;
use crate::testing::{Buffer, FakeGuest};
use std::os::unix::fs::FileExt;

const RAM: usize = 16 << 20;
const OK: u8 = 0;
const IOERR: u8 = 1;
const UNSUPP: u8 = 2;

/// A file of `sectors` sectors, each filled with its number, that exists nowhere.
fn file(sectors: u8) -> File {
    let bytes: Vec<u8> = (0..sectors).flat_map(|sector| [sector; 512]).collect();
    crate::testing::memory_file(&bytes)
}

struct Machine {
    guest: FakeGuest<Block>,
    file: File,
}

impl Machine {
    fn new(read_only: bool) -> Self {
        let file = file(16);
        let block = Block::new(file.try_clone().unwrap(), read_only, "ballast-root").unwrap();
        Self { guest: FakeGuest::ready(RAM, block, u64::MAX), file }
    }

    /// Sends a request and returns its status, if it has one.
    fn request(&mut self, kind: u32, sector: u64, data: &[Buffer]) -> u8 {
        let mut header = kind.to_le_bytes().to_vec();
        header.extend([0; 4]);
        header.extend(sector.to_le_bytes());
        let status = self.guest.readable(&[0xee]);
        let mut chain = vec![self.guest.readable(&header)];
        chain.extend(data);
        chain.push(Buffer { writable: true, ..status });
        assert!(self.guest.send(0, &chain).is_some(), "the chain comes back");
        self.guest.contents(status)[0]
    }

    fn counters(&self) -> BlockCounters {
        *self.guest.transport().device().counters()
    }
}

#[test]
fn sectors_are_read_across_buffers() {
    let mut machine = Machine::new(true);
    let data = [machine.guest.writable(700), machine.guest.writable(324)];
    assert_eq!(machine.request(0, 3, &data), OK);
    let bytes = [machine.guest.contents(data[0]), machine.guest.contents(data[1])].concat();
    assert_eq!(bytes, [[3; 512], [4; 512]].concat());
    assert_eq!(machine.counters(), BlockCounters { served: 1, read_bytes: 1024, ..Default::default() });
}

#[test]
fn sectors_are_written_and_flushed() {
    let mut machine = Machine::new(false);
    let data = [machine.guest.readable(&[0xaa; 100]), machine.guest.readable(&[0xbb; 412])];
    assert_eq!(machine.request(1, 15, &data), OK);
    assert_eq!(machine.request(4, 0, &[]), OK);
    let mut sector = [0; 512];
    machine.file.read_exact_at(&mut sector, 15 * 512).unwrap();
    assert_eq!((sector[99], sector[100], sector[511]), (0xaa, 0xbb, 0xbb));
    assert_eq!((machine.counters().written_bytes, machine.counters().flushes), (512, 1));
}

#[test]
fn the_configuration_lists_what_is_served() {
    for read_only in [true, false] {
        let machine = Machine::new(read_only);
        assert_eq!(u64::from_le_bytes(machine.guest.read_config(0)), 16);
        assert_eq!(u32::from_le_bytes(machine.guest.read_config(8)), SEGMENT_BYTES_MAX);
        assert_eq!(u32::from_le_bytes(machine.guest.read_config(12)), SEGMENTS_MAX);
        assert_eq!(u32::from_le_bytes(machine.guest.read_config(20)), 512);
        assert_eq!(u32::from_le_bytes(machine.guest.read_config(36)), ranges::DISCARD.sectors);
        assert_eq!(u32::from_le_bytes(machine.guest.read_config(48)), 8192, "zeros of 4 MiB");
        assert_eq!(machine.guest.read_config::<1>(56), [1]);
        let features = machine.guest.transport().device().features();
        assert_eq!(features & (1 << blk::VIRTIO_BLK_F_RO) != 0, read_only);
        assert_eq!(features & (1 << blk::VIRTIO_BLK_F_FLUSH) != 0, !read_only);
        machine.guest.write_config(0, &[1; 8]);
        assert_eq!(machine.guest.transport().counters().refused_config_writes, 1);
    }
}

#[test]
fn the_id_is_padded_with_zeros() {
    let mut machine = Machine::new(true);
    let id = machine.guest.writable(20);
    assert_eq!(machine.request(8, 0, &[id]), OK);
    assert_eq!(machine.guest.contents(id), b"ballast-root\0\0\0\0\0\0\0\0");
}

#[test]
fn a_read_only_disk_is_not_written() {
    let mut machine = Machine::new(true);
    let data = machine.guest.readable(&[0xaa; 512]);
    assert_eq!(machine.request(1, 0, &[data]), IOERR);
    assert_eq!(machine.request(4, 0, &[]), UNSUPP);
    let mut sector = [1; 512];
    machine.file.read_exact_at(&mut sector, 0).unwrap();
    assert_eq!(sector, [0; 512]);
}

#[test]
fn a_request_beyond_the_disk_is_refused_whole() {
    let mut machine = Machine::new(false);
    let before = machine.file.metadata().unwrap().len();
    for sector in [16, 17, 15, u64::MAX, u64::MAX / 512, u64::MAX / 512 + 1] {
        let (read, write) = (machine.guest.writable(1024), machine.guest.readable(&[9; 1024]));
        assert_eq!(machine.request(0, sector, &[read]), IOERR, "{sector}");
        assert_eq!(machine.request(1, sector, &[write]), IOERR, "{sector}");
    }
    for len in [1, 511, 513] {
        let (read, write) = (machine.guest.writable(len), machine.guest.readable(&vec![9; len]));
        assert_eq!(machine.request(0, 0, &[read]), IOERR);
        assert_eq!(machine.request(1, 0, &[write]), IOERR);
    }
    assert_eq!(machine.counters().refused, 18);
    assert_eq!(machine.file.metadata().unwrap().len(), before);
}

#[test]
fn unknown_requests_are_unsupported() {
    let mut machine = Machine::new(false);
    for kind in [2, 3, 5, 10, 12, 14, 0x8000_0000, u32::MAX] {
        assert_eq!(machine.request(kind, 0, &[]), UNSUPP);
    }
    assert_eq!(machine.counters(), BlockCounters { unsupported: 8, ..Default::default() });
}

const DISCARD: u32 = 11;
const WRITE_ZEROES: u32 = 13;

/// Ranges of a request: sector, number of sectors, flags.
fn ranges(ranges: &[(u64, u32, u32)]) -> Vec<u8> {
    let bytes = |(sector, sectors, flags): &(u64, u32, u32)| {
        [&sector.to_le_bytes()[..], &sectors.to_le_bytes(), &flags.to_le_bytes()].concat()
    };
    ranges.iter().flat_map(bytes).collect()
}

/// First bytes of all sectors.
fn sectors(file: &File) -> Vec<u8> {
    let byte = |sector: u64| {
        let mut byte = [0];
        file.read_exact_at(&mut byte, sector * 512 + 100).unwrap();
        byte[0]
    };
    (0..file.metadata().unwrap().len() / 512).map(byte).collect()
}

#[test]
fn discarded_sectors_leave_the_hosts_memory() {
    use std::os::unix::fs::MetadataExt;
    let mut machine = Machine::new(false);
    let before = machine.file.metadata().unwrap().blocks();
    let data = machine.guest.readable(&ranges(&[(8, 8, 0), (0, 0, 0)]));
    assert_eq!(machine.request(DISCARD, 0, &[data]), OK);
    assert_eq!(sectors(&machine.file), [0, 1, 2, 3, 4, 5, 6, 7, 0, 0, 0, 0, 0, 0, 0, 0]);
    let after = machine.file.metadata().unwrap();
    assert_eq!((after.len(), before - after.blocks()), (16 * 512, 8), "one page of the file is a hole");
    assert_eq!((machine.counters().served, machine.counters().cleared_bytes), (1, 8 * 512));
}

#[test]
fn zeros_are_written_whether_their_blocks_may_go_or_not() {
    for flags in [0, 1] {
        let mut machine = Machine::new(false);
        let data = machine.guest.readable(&ranges(&[(3, 10, flags)]));
        assert_eq!(machine.request(WRITE_ZEROES, 0, &[data]), OK);
        assert_eq!(sectors(&machine.file), [0, 1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 13, 14, 15], "{flags}");
    }
}

#[test]
fn ranges_that_are_no_part_of_the_disk_are_refused_whole() {
    let mut machine = Machine::new(false);
    let before = sectors(&machine.file);
    let beyond = [(0, 1, 0), (15, 2, 0)];
    let many = vec![(0, 1, 0); 17];
    for bad in [&[][..], &[(16, 1, 0)], &beyond, &[(u64::MAX, 2, 0)], &[(0, u32::MAX, 0)], &many] {
        for kind in [DISCARD, WRITE_ZEROES] {
            let data = machine.guest.readable(&ranges(bad));
            let data = if bad.is_empty() { vec![] } else { vec![data] };
            assert_eq!(machine.request(kind, 0, &data), IOERR, "{kind} {bad:?}");
        }
    }
    let part = machine.guest.readable(&ranges(&[(0, 1, 0)])[..15]);
    assert_eq!(machine.request(DISCARD, 0, &[part]), IOERR);
    // One range of zeros in a request; reserved flags; the flag of zeros in a discard.
    let two = machine.guest.readable(&ranges(&[(0, 1, 0), (1, 1, 0)]));
    assert_eq!(machine.request(WRITE_ZEROES, 0, &[two]), IOERR);
    for (kind, flags) in [(DISCARD, 1), (DISCARD, 2), (WRITE_ZEROES, 2), (WRITE_ZEROES, 1 << 31)] {
        let data = machine.guest.readable(&ranges(&[(0, 1, flags)]));
        assert_eq!(machine.request(kind, 0, &[data]), UNSUPP, "{kind} {flags}");
    }
    assert_eq!(sectors(&machine.file), before);
    assert_eq!(machine.counters().cleared_bytes, 0);
}

#[test]
fn ranges_are_for_drivers_that_accepted_them_and_disks_that_can_be_written() {
    let file = file(16);
    let block = Block::new(file.try_clone().unwrap(), false, "").unwrap();
    let cleared = 1 << blk::VIRTIO_BLK_F_DISCARD | 1 << blk::VIRTIO_BLK_F_WRITE_ZEROES;
    let without = Machine { guest: FakeGuest::ready(RAM, block, !cleared), file };
    for mut machine in [without, Machine::new(true)] {
        for kind in [DISCARD, WRITE_ZEROES] {
            let data = machine.guest.readable(&ranges(&[(0, 8, 0)]));
            assert_eq!(machine.request(kind, 0, &[data]), UNSUPP);
        }
        assert_eq!(sectors(&machine.file)[7], 7);
    }
}

#[test]
fn a_request_that_is_too_long_is_refused() {
    let mut machine = Machine::new(false);
    let data = Buffer { gpa: 0, len: REQUEST_BYTES_MAX as u32 + 512, writable: false };
    assert_eq!(machine.request(1, 0, &[data]), IOERR);
}

#[test]
fn malformed_requests_are_answered_and_counted() {
    let mut machine = Machine::new(false);
    let (short, status) = (machine.guest.readable(&[0; 15]), machine.guest.writable(1));
    let header = machine.guest.readable(&[0; 16]);
    let outside = Buffer { gpa: 1 << 40, len: 512, writable: true };
    for chain in [&[short, status][..], &[header], &[status], &[status, header], &[header, outside]] {
        assert_eq!(machine.guest.send(0, chain), Some(0), "{chain:?}");
    }
    assert_eq!(machine.request(0, 1, &[outside]), IOERR);
    assert_eq!(machine.counters().bad_chains, 6);
    let data = machine.guest.writable(512);
    assert_eq!(machine.request(0, 1, &[data]), OK);
}

#[test]
fn a_disk_that_got_shorter_is_an_error_for_the_guest() {
    let mut machine = Machine::new(false);
    machine.file.set_len(512).unwrap();
    let data = machine.guest.writable(512);
    assert_eq!(machine.request(0, 4, &[data]), IOERR);
    assert_eq!(machine.counters().failed, 1);
}

#[test]
fn a_file_with_part_of_a_sector_is_no_disk() {
    let odd = file(1);
    odd.set_len(700).unwrap();
    let error = Block::new(odd, true, "odd").unwrap_err();
    assert_eq!(error.to_string(), "Disk of 700 bytes is not a multiple of 512 bytes");
}

#[test]
fn more_requests_than_a_batch_are_all_served() {
    let mut machine = Machine::new(true);
    let header = machine.guest.readable(&[0; 16]);
    for _ in 0..60 {
        let (data, status) = (machine.guest.writable(512), machine.guest.writable(1));
        machine.guest.add(0, &[header, data, status]);
    }
    machine.guest.notify(0);
    assert_eq!(machine.guest.used(0).len(), 60);
    assert!(machine.guest.transport().counters().queue_events >= 8);
}
