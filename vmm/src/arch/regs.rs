//! Registers at the 64-bit entry: long mode, flat segments, the first 4 GiB mapped to themselves, RSI = zero page.

use crate::layout;
use devices::GuestRam;
use kvm_bindings::{kvm_fpu, kvm_regs, kvm_segment, kvm_sregs};
use kvm_ioctls::VcpuFd;
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

const CR0_PE: u64 = 1;
const CR0_ET: u64 = 1 << 4;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
const PRESENT_WRITABLE: u64 = 0b11;
const HUGE: u64 = 1 << 7;
const RFLAGS_RESERVED: u64 = 1 << 1;

/// Null, null, code at 0x10, data at 0x18 (`__BOOT_CS`, `__BOOT_DS`).
const GDT: [u64; 4] = [0, 0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff];

/// Writes descriptor and page tables into guest RAM.
///
/// # Errors
/// When RAM is smaller than the tables.
pub fn write_tables(ram: &GuestRam) -> Result<(), GuestMemoryError> {
    for (slot, descriptor) in GDT.iter().enumerate() {
        ram.write_obj(*descriptor, GuestAddress(layout::GDT + slot as u64 * 8))?;
    }
    ram.write_obj(0u64, GuestAddress(layout::IDT))?;
    let pdpt = layout::PML4 + 0x1000;
    ram.write_obj(pdpt | PRESENT_WRITABLE, GuestAddress(layout::PML4))?;
    for gib in 0..4u64 {
        let directory = pdpt + 0x1000 * (gib + 1);
        ram.write_obj(directory | PRESENT_WRITABLE, GuestAddress(pdpt + gib * 8))?;
        for page in 0..512u64 {
            let target = gib << 30 | page << 21;
            ram.write_obj(target | PRESENT_WRITABLE | HUGE, GuestAddress(directory + page * 8))?;
        }
    }
    Ok(())
}

/// Puts the boot processor at the kernel's entry. The others wait for the kernel to start them.
///
/// # Errors
/// When KVM refuses the registers.
pub fn set_entry(vcpu: &VcpuFd, entry: u64) -> Result<(), kvm_ioctls::Error> {
    let mut sregs = vcpu.get_sregs()?;
    long_mode(&mut sregs);
    vcpu.set_sregs(&sregs)?;
    vcpu.set_regs(&kvm_regs {
        rflags: RFLAGS_RESERVED,
        rip: entry,
        rsp: layout::BOOT_STACK,
        rbp: layout::BOOT_STACK,
        rsi: layout::ZERO_PAGE,
        ..Default::default()
    })
}

/// Floating point as after FNINIT, with all exceptions masked.
///
/// # Errors
/// When KVM refuses it.
pub fn set_fpu(vcpu: &VcpuFd) -> Result<(), kvm_ioctls::Error> {
    vcpu.set_fpu(&kvm_fpu { fcw: 0x37f, mxcsr: 0x1f80, ..Default::default() })
}

fn long_mode(sregs: &mut kvm_sregs) {
    let segment = |selector, type_, l, db| kvm_segment {
        base: 0,
        limit: 0xffff_ffff,
        selector,
        type_,
        present: 1,
        s: 1,
        l,
        db,
        g: 1,
        ..Default::default()
    };
    sregs.gdt.base = layout::GDT;
    sregs.gdt.limit = 31;
    sregs.idt.base = layout::IDT;
    sregs.idt.limit = 7;
    sregs.cs = segment(0x10, 0xb, 1, 0);
    let data = segment(0x18, 0x3, 0, 1);
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    sregs.cr3 = layout::PML4;
    sregs.cr4 = CR4_PAE;
    sregs.cr0 = CR0_PE | CR0_ET | CR0_PG;
    sregs.efer = EFER_LME | EFER_LMA;
}

/// LINT0 takes the legacy interrupt controller, LINT1 the NMI (Intel SDM, section 11.5.1).
///
/// # Errors
/// When KVM refuses it.
pub fn set_local_apic(vcpu: &VcpuFd) -> Result<(), kvm_ioctls::Error> {
    const LINT0: usize = 0x350;
    const LINT1: usize = 0x360;
    const MODE_NMI: u8 = 4;
    const MODE_EXTINT: u8 = 7;
    let mut lapic = vcpu.get_lapic()?;
    for (register, mode) in [(LINT0, MODE_EXTINT), (LINT1, MODE_NMI)] {
        // Delivery mode: bits 8 to 10 of the register, so the low three bits of its second byte.
        let byte = lapic.regs[register + 1].cast_unsigned();
        lapic.regs[register + 1] = (byte & !7 | mode).cast_signed();
    }
    vcpu.set_lapic(&lapic)
}
