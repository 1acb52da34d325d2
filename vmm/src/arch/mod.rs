//! State of an x86-64 virtual CPU at the 64-bit entry of a kernel (Documentation/arch/x86/boot.rst).

pub mod cpuid;
pub mod msr;
pub mod regs;
