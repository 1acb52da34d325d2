use super::*;
use std::io::Write;
use std::os::fd::AsRawFd;

/// An image of 2 MiB, each page filled with its number.
fn managed() -> (File, Managed) {
    let mut file = tempfile::tempfile().unwrap();
    for page in 0..512u32 {
        file.write_all(&[page as u8; FRAME_BYTES as usize]).unwrap();
    }
    let other = file.try_clone().unwrap();
    (other, Managed::new(Arc::new(Pagecache::new(file).unwrap())).unwrap())
}

fn map(file: &File, protection: i32, flags: i32) -> Result<*mut u8, i32> {
    // SAFETY: a new mapping of an open file, at an address of the kernel's choice.
    let at = unsafe { libc::mmap(std::ptr::null_mut(), 2 << 20, protection, flags, file.as_raw_fd(), 0) };
    if at == libc::MAP_FAILED {
        Err(io::Error::last_os_error().raw_os_error().unwrap())
    } else {
        Ok(at.cast())
    }
}

#[test]
fn filled_granules_are_resident_until_they_are_punched() {
    let (_, managed) = managed();
    assert!(managed.resident().unwrap().is_empty() && managed.held_bytes().unwrap() == 0);
    for granule in [0, 3, 4, 31] {
        managed.fill(GranuleIndex(granule)).unwrap();
    }
    let runs = |managed: &Managed| -> Vec<(u64, u64)> {
        managed.resident().unwrap().runs().map(|run| (run.first, run.count)).collect()
    };
    assert_eq!(runs(&managed), [(0, 16), (48, 32), (496, 16)]);
    managed.punch(GranuleIndex(3)).unwrap();
    assert_eq!(runs(&managed), [(0, 16), (64, 16), (496, 16)]);
    assert_eq!(managed.held_bytes().unwrap(), 3 * GRANULE_BYTES);
    assert!(managed.fill(GranuleIndex(32)).is_err());
}

#[test]
fn a_guest_can_read_its_descriptor_and_cannot_write() {
    let (_, managed) = managed();
    managed.fill(GranuleIndex(2)).unwrap();
    let guest = managed.open_for_guest().unwrap();
    let mut byte = [0];
    guest.read_exact_at(&mut byte, 40 * FRAME_BYTES).unwrap();
    assert_eq!(byte, [40]);
    assert!(guest.write_at(b"x", 0).is_err() && guest.set_len(0).is_err());
    let shared = map(&guest, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
    assert_eq!(shared, Err(libc::EACCES));
    let read = map(&guest, libc::PROT_READ, libc::MAP_SHARED).unwrap();
    // SAFETY: exactly the mapping made above.
    let more = unsafe { libc::mprotect(read.cast(), 4096, libc::PROT_READ | libc::PROT_WRITE) };
    assert_eq!((more, io::Error::last_os_error().raw_os_error()), (-1, Some(libc::EACCES)));
    assert!(fallocate(&guest, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 0, 4096).is_err());
    assert!(
        fcntl_add_seals(&guest, SealFlags::WRITE).is_err(),
        "no guest can keep the balancer from filling it"
    );
    // Not even the balancer can change its length.
    assert!(managed.memory.set_len(0).is_err() && managed.memory.set_len(4 << 20).is_err());
}

#[test]
fn a_seal_against_writing_would_forbid_to_evict() {
    let memory = memfd_create(c"sealed", MemfdFlags::ALLOW_SEALING).unwrap();
    ftruncate(&memory, 1 << 20).unwrap();
    fcntl_add_seals(&memory, SealFlags::FUTURE_WRITE).unwrap();
    let punched = fallocate(&memory, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 0, 65536);
    assert_eq!(punched, Err(rustix::io::Errno::PERM));
}

#[test]
fn a_file_that_was_written_to_fills_nothing_any_more() {
    let (file, managed) = managed();
    managed.fill(GranuleIndex(0)).unwrap();
    file.write_all_at(b"other", 70_000).unwrap();
    let later = std::time::SystemTime::now() + std::time::Duration::from_secs(1);
    file.set_modified(later).unwrap();
    let error = managed.fill(GranuleIndex(1)).unwrap_err();
    assert!(error.to_string().contains("after it was verified"), "{error}");
    assert_eq!(managed.held_bytes().unwrap(), GRANULE_BYTES);
}

#[test]
fn a_hole_that_is_read_through_a_mapping_is_found_in_nobodys_books() {
    let (_, managed) = managed();
    managed.fill(GranuleIndex(0)).unwrap();
    let guest = managed.open_for_guest().unwrap();
    let at = map(&guest, libc::PROT_READ, libc::MAP_SHARED).unwrap();
    // SAFETY: inside the mapping.
    assert_eq!(unsafe { at.add(5 * 65536).read_volatile() }, 0);
    let foreign = managed.resident().unwrap().without(pages_of(GranuleIndex(0)));
    assert!(foreign.count() >= 1);
    for run in foreign.runs() {
        managed.evict(run).unwrap();
    }
    assert_eq!(managed.held_bytes().unwrap(), GRANULE_BYTES);
    // What is filled there later is the image's.
    managed.fill(GranuleIndex(5)).unwrap();
    // SAFETY: inside the mapping.
    assert_eq!(unsafe { at.add(5 * 65536).read_volatile() }, 80);
}
