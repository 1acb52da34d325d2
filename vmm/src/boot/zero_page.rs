//! `struct boot_params`, the zero page (Documentation/arch/x86/zero-page.rst): memory map, initrd, command line, RSDP.

use super::kernel::Kernel;
use crate::layout;
use crate::memory::{HOLE_END, HOLE_START};
use devices::GuestRam;
use linux_loader::loader::bootparam::{boot_e820_entry, boot_params};
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

const E820_RAM: u32 = 1;
const E820_RESERVED: u32 = 2;

/// Writes the zero page for a kernel that is entered in 64-bit mode.
///
/// # Errors
/// When guest RAM is too small to hold it.
pub fn write(
    ram: &GuestRam,
    ram_bytes: u64,
    kernel: &Kernel,
    initrd: Option<(u64, u64)>,
    rsdp: u64,
) -> Result<(), GuestMemoryError> {
    let mut params = boot_params { hdr: kernel.header.unwrap_or_default(), ..Default::default() };
    params.hdr.type_of_loader = 0xff;
    params.hdr.boot_flag = 0xaa55;
    params.hdr.header = u32::from_le_bytes(*b"HdrS");
    params.hdr.cmd_line_ptr = u32::try_from(layout::CMDLINE).expect("below 1 MiB");
    params.hdr.cmdline_size = u32::try_from(layout::CMDLINE_BYTES_MAX).expect("2048");
    params.hdr.kernel_alignment = 0x0100_0000;
    if let Some((address, bytes)) = initrd {
        params.hdr.ramdisk_image = u32::try_from(address).expect("an initrd lies below 3 GiB");
        params.hdr.ramdisk_size = u32::try_from(bytes).expect("an initrd lies below 3 GiB");
    }
    params.acpi_rsdp_addr = rsdp;
    let map = e820(ram_bytes);
    for (slot, (start, end, kind)) in params.e820_table.iter_mut().zip(&map) {
        *slot = boot_e820_entry { addr: *start, size: end - start, r#type: *kind };
    }
    params.e820_entries = u8::try_from(map.len()).expect("four entries");
    ram.write_obj(params, GuestAddress(layout::ZERO_PAGE))
}

fn e820(ram_bytes: u64) -> Vec<(u64, u64, u32)> {
    let low_end = ram_bytes.min(HOLE_START);
    let mut map = vec![
        (0, layout::LOW_RAM_END, E820_RAM),
        (layout::ACPI, layout::ACPI_END, E820_RESERVED),
        (layout::KERNEL, low_end, E820_RAM),
    ];
    if ram_bytes > low_end {
        map.push((HOLE_END, HOLE_END + ram_bytes - low_end, E820_RAM));
    }
    map
}
