//! Whether released memory really leaves the host. In a process of its own: other tests would be charged as well.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "support/cgroup.rs"]
mod cgroup;

use vm_memory::{Bytes, GuestAddress};
use vmm::memory::{Pagemap, Ram};

const MIB: u64 = 1 << 20;

/// The charge of a memory cgroup shows whether bytes left the host; resident memory does not.
#[test]
fn half_of_each_huge_page_really_leaves_the_host() {
    let Some(group) = cgroup::Group::enter() else {
        skip::skip!(MemoryCgroup, "no memory cgroup can be made");
        return;
    };
    let (ram, pagemap) = (Ram::new(64 * MIB).unwrap(), Pagemap::open().unwrap());
    for frame in 0..16384 {
        ram.guest().write_obj(0xa5u8, GuestAddress(frame * 4096)).unwrap();
    }
    let before = group.usage_bytes();
    assert!(before >= 60 * MIB, "the cgroup is charged: {before}");
    let mut freed = 0;
    for frame in (0..16384).step_by(2) {
        freed += ram.release(&pagemap, frame, 1).unwrap().bytes;
    }
    let left = before.saturating_sub(group.usage_bytes());
    assert_eq!(freed, 32 * MIB);
    assert!(left >= freed * 95 / 100, "{left} of {freed} bytes left the cgroup's charge");
}
