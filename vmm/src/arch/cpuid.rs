//! What the guest learns from CPUID: the host's features as far as KVM supports them, and its own topology.

use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES};
use kvm_ioctls::Kvm;

const ECX_TSC_DEADLINE: u32 = 1 << 24;
const ECX_HYPERVISOR: u32 = 1 << 31;
const EDX_HTT: u32 = 1 << 28;

/// The host's CPUID as KVM supports it.
///
/// # Errors
/// When KVM does not tell.
pub fn supported(kvm: &Kvm) -> Result<CpuId, kvm_ioctls::Error> {
    kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
}

/// CPUID of one virtual CPU: one package, one thread per core, APIC id = index.
#[must_use]
pub fn of_cpu(supported: &CpuId, index: u8, cpus: u8) -> CpuId {
    let mut cpuid = supported.clone();
    for entry in cpuid.as_mut_slice() {
        match entry.function {
            0x1 => {
                entry.ecx |= ECX_HYPERVISOR | ECX_TSC_DEADLINE;
                entry.ebx = entry.ebx & 0x0000_ffff | u32::from(cpus) << 16 | u32::from(index) << 24;
                if cpus > 1 {
                    entry.edx |= EDX_HTT;
                }
            }
            // Cores that share a cache and cores of the package (Intel SDM, leaf 4): all.
            0x4 => {
                entry.eax = entry.eax & 0x0000_3fff | u32::from(cpus - 1) << 26 | u32::from(cpus - 1) << 14
            }
            // Extended topology: x2APIC id, and per level how many bits to shift and how many logical CPUs.
            0xb | 0x1f => {
                entry.edx = u32::from(index);
                let package_bits = u32::from(cpus).next_power_of_two().trailing_zeros();
                (entry.eax, entry.ebx, entry.ecx) = match entry.index {
                    0 => (0, 1, 1 << 8),
                    1 => (package_bits, u32::from(cpus), 2 << 8 | 1),
                    level => (0, 0, level),
                };
            }
            // AMD: number of cores less one, and bits of the APIC id that name a core.
            0x8000_0008 => {
                let id_bits = u32::from(cpus).next_power_of_two().trailing_zeros();
                entry.ecx = entry.ecx & !0xf0ff | id_bits << 12 | u32::from(cpus - 1);
            }
            // AMD: extended APIC id, one thread per core, one node.
            0x8000_001e => (entry.eax, entry.ebx, entry.ecx) = (u32::from(index), u32::from(index), 0),
            _ => {}
        }
    }
    cpuid
}
