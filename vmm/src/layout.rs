//! The guest-physical map and the interrupt lines.
//!
//! ```text
//!  0x0000_0500  GDT, IDT                      0xd000_0000  virtio-mmio windows, 4 KiB each
//!  0x0000_7000  zero page (boot_params)       0xfec0_0000  IOAPIC
//!  0x0000_9000  page tables                   0xfee0_0000  local APICs
//!  0x0002_0000  command line                  0xfffb_c000  KVM's identity map and TSS (Intel only)
//!  0x000e_0000  ACPI tables                   0x1_0000_0000 RAM beyond 3 GiB
//!  0x0010_0000  kernel                        initrd: at the top of RAM below 3 GiB
//! ```

/// Global descriptor table for the 64-bit entry.
pub const GDT: u64 = 0x500;
/// Interrupt descriptor table: empty, the kernel brings its own.
pub const IDT: u64 = 0x520;
/// `struct boot_params` (Documentation/arch/x86/zero-page.rst).
pub const ZERO_PAGE: u64 = 0x7000;
/// Top of the stack at entry.
pub const BOOT_STACK: u64 = 0x8ff0;
/// Page tables: one PML4, one PDPT, four page directories that map 4 GiB to itself.
pub const PML4: u64 = 0x9000;
/// The kernel's command line.
pub const CMDLINE: u64 = 0x2_0000;
/// Longest command line that x86 Linux takes (`COMMAND_LINE_SIZE`), with its NUL.
pub const CMDLINE_BYTES_MAX: usize = 2048;
/// End of RAM below the legacy hole, where an EBDA would begin.
pub const LOW_RAM_END: u64 = 0x9_fc00;
/// ACPI tables; the kernel also looks for the RSDP here.
pub const ACPI: u64 = 0xe_0000;
/// End of the room for ACPI tables, and of the legacy hole.
pub const ACPI_END: u64 = 0x10_0000;
/// Where kernels are loaded.
pub const KERNEL: u64 = 0x10_0000;

/// First virtio-mmio window.
pub const MMIO: u64 = 0xd000_0000;
/// Interrupt line of the first virtio device; each has its own.
pub const VIRTIO_GSI: u32 = 5;
/// Lines of the IOAPIC.
pub const GSIS: u32 = 24;
/// Most virtio devices: one interrupt line each.
pub const VIRTIO_DEVICES_MAX: u32 = GSIS - VIRTIO_GSI;

/// First serial port and its line.
pub const COM1: u16 = 0x3f8;
/// Ports of a 16550A.
pub const COM_PORTS: u8 = 8;
/// Interrupt line of COM1.
pub const COM1_GSI: u32 = 4;
/// Keyboard controller, of which only the reset command is served.
pub const I8042: u16 = 0x60;
/// ACPI sleep control, sleep status and reset registers, one byte each.
pub const ACPI_PORTS: u16 = 0x600;

/// IOAPIC registers.
pub const IOAPIC: u32 = 0xfec0_0000;
/// Local APIC registers.
pub const LOCAL_APIC: u32 = 0xfee0_0000;
/// A page for the real-mode identity map that KVM needs on Intel.
pub const KVM_IDENTITY_MAP: u64 = 0xfffb_c000;
/// Three pages for the task state segment that KVM needs on Intel.
pub const KVM_TSS: usize = 0xfffb_d000;

const _: () = assert!(MMIO + (VIRTIO_DEVICES_MAX as u64) * 0x1000 < IOAPIC as u64);
const _: () =
    assert!(MMIO >= crate::memory::HOLE_START && KVM_TSS as u64 + 0x3000 <= crate::memory::HOLE_END);
