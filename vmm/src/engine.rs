//! The choice of the engine of a guest: which hypervisor it gets.

use crate::machine::qemu::Accelerator;
use crate::spec::EngineChoice;
use std::fs;

/// Environment variable with the engine of guests whose command line and spec file name none.
pub const ENGINE_VARIABLE: &str = "BALLAST_ENGINE";

/// The hypervisor of a guest on this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hypervisor {
    /// KVM, used by this process.
    Kvm,
    /// A QEMU that this process starts.
    Qemu(Accelerator),
}

impl Hypervisor {
    /// The hypervisor for the engine that was chosen on the command line, or in the environment.
    ///
    /// # Errors
    /// When the environment names an unknown engine.
    pub fn choose(name: Option<EngineChoice>) -> Result<Self, String> {
        let named = std::env::var(ENGINE_VARIABLE).ok().filter(|text| !text.is_empty());
        let of_environment = || named.map_or(Ok(EngineChoice::Auto), |text| text.parse());
        let name =
            name.map_or_else(of_environment, Ok).map_err(|error| format!("{ENGINE_VARIABLE}: {error}"))?;
        Ok(Self::by(name, virtualizes))
    }

    fn by(name: EngineChoice, virtualizes: impl Fn() -> bool) -> Self {
        match name {
            EngineChoice::Kvm => Self::Kvm,
            EngineChoice::Auto if virtualizes() => Self::Kvm,
            EngineChoice::Qemu if virtualizes() => Self::Qemu(Accelerator::Kvm),
            EngineChoice::Auto | EngineChoice::Qemu => Self::Qemu(Accelerator::Tcg),
        }
    }
}

/// True if the processor itself virtualizes and KVM can be used. A KVM in software, on a processor that does not
/// virtualize, runs small guests but not Linux: it emulates too few instructions.
fn virtualizes() -> bool {
    let is_usable = || fs::OpenOptions::new().read(true).write(true).open("/dev/kvm").is_ok();
    has_flag(&fs::read_to_string("/proc/cpuinfo").unwrap_or_default()) && is_usable()
}

/// True if `vmx` (Intel) or `svm` (AMD) is among the flags in `/proc/cpuinfo`.
fn has_flag(cpuinfo: &str) -> bool {
    let flags = cpuinfo.lines().filter_map(|line| line.strip_prefix("flags")?.split_once(':'));
    flags.flat_map(|(_, flags)| flags.split_ascii_whitespace()).any(|flag| flag == "vmx" || flag == "svm")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_takes_kvm_only_if_the_processor_virtualizes() {
        let of = |name, virtualizes| Hypervisor::by(name, move || virtualizes);
        assert_eq!(of(EngineChoice::Auto, true), Hypervisor::Kvm);
        assert_eq!(of(EngineChoice::Auto, false), Hypervisor::Qemu(Accelerator::Tcg));
        assert_eq!(of(EngineChoice::Qemu, true), Hypervisor::Qemu(Accelerator::Kvm));
        assert_eq!(of(EngineChoice::Qemu, false), Hypervisor::Qemu(Accelerator::Tcg));
        // A KVM in software is enough for guests without an operating system.
        assert_eq!(of(EngineChoice::Kvm, false), Hypervisor::Kvm);
    }

    #[test]
    fn only_whole_words_of_the_flags_count() {
        assert!(has_flag("processor\t: 0\nflags\t\t: fpu vmx sse\n"));
        assert!(has_flag("flags\t\t: svm\n"));
        assert!(!has_flag("flags\t\t: fpu svm_lock\nbugs\t\t: vmx\nvmx flags\t: ept\n"));
    }
}
