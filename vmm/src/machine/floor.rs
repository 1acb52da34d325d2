//! What a guest needs to boot and live: no target goes below it.

use crate::boot::kernel::Kernel;

/// What a Linux guest needs in addition to its kernel and initrd: slabs, page tables, a shell. Measured with Debian's
/// cloud kernels and a busybox initramfs, rounded up. Bytes.
const LIVING_BYTES: u64 = 24 << 20;
/// An initramfs is there twice while it is unpacked, and unpacks to more than its compressed length.
const INITRD_FACTOR: u64 = 4;
/// The kernel's own description of RAM and of images: 64 bytes per 4 KiB page (`struct page`).
const MEMMAP_DIVISOR: u64 = 64;
/// An unknown kernel: as large as the largest of Debian's. Bytes.
const UNKNOWN_KERNEL_BYTES: u64 = 64 << 20;

/// The floor of a guest with this kernel. Bytes.
pub(super) fn floor_bytes(kernel: &Kernel, initrd_bytes: u64, ram_bytes: u64, image_bytes: u64) -> u64 {
    let kernel_bytes = kernel.end - kernel.entry.min(kernel.end);
    let described = (ram_bytes + image_bytes) / MEMMAP_DIVISOR;
    let needed = kernel_bytes + initrd_bytes * INITRD_FACTOR + described + LIVING_BYTES;
    needed.next_multiple_of(1 << 20).min(ram_bytes)
}

/// The floor of a running guest whose kernel is not known. Bytes.
pub(super) fn unknown_floor_bytes(ram_bytes: u64) -> u64 {
    (UNKNOWN_KERNEL_BYTES + ram_bytes / MEMMAP_DIVISOR + LIVING_BYTES).min(ram_bytes)
}
