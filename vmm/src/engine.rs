//! Which engine a guest gets.

use crate::qemu::Accelerator;
use crate::spec::EngineName;
use std::fs;

/// Environment variable that names the engine of guests whose command line and spec file name none.
pub const ENGINE_VARIABLE: &str = "BALLAST_ENGINE";

/// What runs a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// This process, by KVM.
    Kvm,
    /// A QEMU that this process starts.
    Qemu(Accelerator),
}

impl Engine {
    /// The engine that was named, or that the environment names; on this machine.
    ///
    /// # Errors
    /// When the environment names none that there is.
    pub fn choose(name: Option<EngineName>) -> Result<Self, String> {
        let named = std::env::var(ENGINE_VARIABLE).ok().filter(|text| !text.is_empty());
        let of_environment = || named.map_or(Ok(EngineName::Auto), |text| text.parse());
        let name =
            name.map_or_else(of_environment, Ok).map_err(|error| format!("{ENGINE_VARIABLE}: {error}"))?;
        Ok(Self::by(name, virtualizes))
    }

    fn by(name: EngineName, virtualizes: impl Fn() -> bool) -> Self {
        match name {
            EngineName::Kvm => Self::Kvm,
            EngineName::Auto if virtualizes() => Self::Kvm,
            EngineName::Qemu if virtualizes() => Self::Qemu(Accelerator::Kvm),
            EngineName::Auto | EngineName::Qemu => Self::Qemu(Accelerator::Tcg),
        }
    }
}

/// True if the processor itself virtualizes and KVM may be used. A KVM in software, on a processor that does not, runs small
/// guests and no Linux: it emulates too few instructions.
fn virtualizes() -> bool {
    let is_usable = || fs::OpenOptions::new().read(true).write(true).open("/dev/kvm").is_ok();
    has_flag(&fs::read_to_string("/proc/cpuinfo").unwrap_or_default()) && is_usable()
}

/// `vmx` of Intel or `svm` of AMD, among the flags in `/proc/cpuinfo`.
fn has_flag(cpuinfo: &str) -> bool {
    let flags = cpuinfo.lines().filter_map(|line| line.strip_prefix("flags")?.split_once(':'));
    flags.flat_map(|(_, flags)| flags.split_ascii_whitespace()).any(|flag| flag == "vmx" || flag == "svm")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kvm_is_taken_by_itself_where_the_processor_virtualizes_alone() {
        let of = |name, virtualizes| Engine::by(name, move || virtualizes);
        assert_eq!(of(EngineName::Auto, true), Engine::Kvm);
        assert_eq!(of(EngineName::Auto, false), Engine::Qemu(Accelerator::Tcg));
        assert_eq!(of(EngineName::Qemu, true), Engine::Qemu(Accelerator::Kvm));
        assert_eq!(of(EngineName::Qemu, false), Engine::Qemu(Accelerator::Tcg));
        // A KVM in software does for guests without an operating system.
        assert_eq!(of(EngineName::Kvm, false), Engine::Kvm);
    }

    #[test]
    fn a_word_of_the_flags_says_it_and_no_other() {
        assert!(has_flag("processor\t: 0\nflags\t\t: fpu vmx sse\n"));
        assert!(has_flag("flags\t\t: svm\n"));
        assert!(!has_flag("flags\t\t: fpu svm_lock\nbugs\t\t: vmx\nvmx flags\t: ept\n"));
    }
}
