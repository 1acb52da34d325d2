//! Known faults of the lab. The emulated machine around the guests dies now and then, and what was left to run is run
//! in a new one. That must not hide a fault of ours: only a death that looks like one of the known ones is repeated.
//! Each of them is recorded, so that `make test` counts and names it.

use guest_images::Error;

/// What a kernel prints when it finds itself broken, and what our programs print when they panic.
const TRACES: [&str; 9] = [
    "panicked at",
    "Kernel panic",
    "BUG:",
    "Oops",
    "Call Trace",
    "general protection fault",
    "segfault at",
    "Out of memory",
    "WARNING: CPU",
];

/// An oops of Linux 6.12 at boot with more than one emulated CPU, before anything of ours runs: its function.
const OOPS_AT_BOOT: &str = "bitmap_intersects";

/// A way in which the lab's machine dies without a fault of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The emulated CPU reset the machine: QEMU ends at once and with success, and the kernel did not print a word.
    TripleFault,
    /// The emulated machine lost an interrupt and sleeps: the kernel does not even print its sign of life.
    Hang,
    /// The kernel of the machine died while it booted, in a function that the emulator is known to break.
    OopsAtBoot,
}

impl Fault {
    /// The name in the summary.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::TripleFault => "the machine reset without a word (triple fault on the emulated CPU)",
            Self::Hang => "the machine hung (an interrupt was lost by the emulator)",
            Self::OopsAtBoot => "the kernel died at boot in bitmap_intersects (emulated topology)",
        }
    }

    /// The known fault that an error of the lab shows; `None` for every other error, which is a failure.
    ///
    /// `printed` is what the command in the machine printed.
    #[must_use]
    pub fn of(error: &anyhow::Error, printed: &str) -> Option<Self> {
        match error.downcast_ref::<Error>()? {
            Error::OuterDied { status, tail } if status.success() => Self::of_death(tail, printed),
            Error::OuterSilent { tail, .. } => {
                (!has_trace(tail) && !has_trace(printed)).then_some(Self::Hang)
            }
            // A machine that was busy until its deadline, a QEMU that was killed or crashed, a missing program.
            _ => None,
        }
    }

    fn of_death(tail: &str, printed: &str) -> Option<Self> {
        if printed.is_empty() && tail.contains(OOPS_AT_BOOT) {
            return Some(Self::OopsAtBoot);
        }
        (!has_trace(tail) && !has_trace(printed)).then_some(Self::TripleFault)
    }
}

fn has_trace(text: &str) -> bool {
    TRACES.iter().any(|trace| text.contains(trace))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;
    use std::time::Duration;

    fn died(code: i32, tail: &str) -> anyhow::Error {
        Error::OuterDied { status: ExitStatus::from_raw(code), tail: tail.into() }.into()
    }

    #[test]
    fn a_machine_that_resets_without_a_word_is_a_fault_of_the_lab() {
        assert_eq!(Fault::of(&died(0, "console:\nalive 42.1"), "RESULT\ta\tok\t1"), Some(Fault::TripleFault));
    }

    #[test]
    fn a_kernel_that_prints_a_trace_is_not() {
        for trace in [
            "Kernel panic - not syncing: Fatal exception in interrupt",
            "BUG: unable to handle page fault for address: 0000\nRIP: 0010:kvm_mmu_notifier_release",
            "RIP: svm_vcpu_run\nCall Trace:\n bitmap_intersects",
        ] {
            assert_eq!(Fault::of(&died(0, trace), "RESULT\ta\tok\t1"), None, "{trace}");
        }
        assert_eq!(Fault::of(&died(0, ""), "thread 'main' panicked at vmm/src/main.rs:3"), None);
    }

    #[test]
    fn an_emulator_that_is_killed_is_not() {
        for status in [libc::SIGKILL, libc::SIGSEGV, 1 << 8] {
            assert_eq!(Fault::of(&died(status, ""), ""), None, "{status}");
        }
    }

    #[test]
    fn the_known_oops_at_boot_is_a_fault_of_the_lab_before_anything_of_ours_runs() {
        let oops = "BUG: kernel NULL pointer\nRIP: 0010:__bitmap_intersects+0x12\nKernel panic - not syncing";
        assert_eq!(Fault::of(&died(0, oops), ""), Some(Fault::OopsAtBoot));
        assert_eq!(Fault::of(&died(0, oops), "RESULT\ta\tok\t1"), None);
    }

    #[test]
    fn a_machine_that_is_silent_is_a_fault_of_the_lab_and_one_that_is_busy_is_not() {
        let after = Duration::from_secs(90);
        let silent = |tail: &str| Error::OuterSilent { after, tail: tail.into() }.into();
        assert_eq!(Fault::of(&silent("RIP=ffffffff81000000 HLT=1"), ""), Some(Fault::Hang));
        assert_eq!(Fault::of(&silent("BUG: soft lockup - CPU#0 stuck for 26s! [vmm:77]"), ""), None);
        assert_eq!(Fault::of(&Error::OuterTimeout { after, tail: String::new() }.into(), ""), None);
    }

    #[test]
    fn an_error_of_another_kind_is_a_failure() {
        assert_eq!(Fault::of(&anyhow::anyhow!("no images"), ""), None);
    }
}
