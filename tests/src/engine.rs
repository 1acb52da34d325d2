//! Which engine the guests of a test run on, and what that changes for what a test may ask.
//!
//! Scenarios have one source. What an engine cannot do is named in `scenarios`; what costs more on one engine than on
//! the other is named here.

use std::fmt;

/// Environment variable that names the engine of guests whose command line names none. `vmm` knows it as well.
pub const ENGINE_VARIABLE: &str = "BALLAST_ENGINE";

/// An engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// `vmm` by itself.
    Kvm,
    /// QEMU under a `vmm`.
    Qemu,
}

const MIB: u64 = 1 << 20;

impl Engine {
    /// The one of this process: `kvm` unless the variable says otherwise.
    #[must_use]
    pub fn current() -> Self {
        match std::env::var(ENGINE_VARIABLE).as_deref() {
            Ok("qemu") => Self::Qemu,
            _ => Self::Kvm,
        }
    }

    /// A limit that leaves a guest as much as this one does on `kvm`. QEMU takes about 128 MiB next to guest RAM (the
    /// kernel's file, which it maps, its program and libraries, translated code), and 16 MiB are kept for it to grow.
    #[must_use]
    pub fn limit(self, bytes: u64) -> u64 {
        match self {
            Self::Kvm => bytes,
            Self::Qemu => bytes + 145 * MIB,
        }
    }

    /// The same as a word of the command line, MiB.
    #[must_use]
    pub fn limit_mib(self, mib: u64) -> String {
        format!("{}M", self.limit(mib * MIB) / MIB)
    }

    /// Anonymous memory that the processes of a guest hold next to guest RAM at most, frames.
    #[must_use]
    pub fn own_frames_max(self) -> u64 {
        match self {
            Self::Kvm => 1024,
            Self::Qemu => 24 * 1024,
        }
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kvm => "kvm",
            Self::Qemu => "qemu",
        })
    }
}
