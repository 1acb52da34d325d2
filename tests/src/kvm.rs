//! What KVM on this machine can do.

use std::fs;

/// Why bare-metal guests cannot run here, if they cannot.
#[must_use]
pub fn missing() -> Option<String> {
    fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .err()
        .map(|error| format!("/dev/kvm: {error}"))
}

/// True if the processor itself virtualizes and KVM may be used: only then do Linux guests run here. A software KVM
/// runs small guests and no Linux.
#[must_use]
pub fn virtualizes() -> bool {
    let flags = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    missing().is_none() && flags.split_whitespace().any(|word| word == "svm" || word == "vmx")
}
