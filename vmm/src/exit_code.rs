//! The exit codes of `vmm`. They are part of its interface: `vmm --help` lists them.

use crate::vcpu::End;

/// The guest powered itself off or rebooted.
pub const OK: u8 = 0;
/// The host cannot run the guest: no KVM, a missing file, no memory.
pub const HOST: u8 = 1;
/// The command line or the spec file is wrong.
pub const USAGE: u8 = 2;
/// The guest crashed.
pub const CRASH: u8 = 3;
/// KVM or QEMU could not go on.
pub const KVM: u8 = 4;
/// The balancer refused the guest.
pub const REFUSED: u8 = 5;

/// The guest stored into its read-only images again and again.
pub const IMAGE_STORES: u8 = 6;

/// The exit codes in `vmm --help`.
pub const HELP: &str = "Exit codes:
  0  the guest powered itself off, or asked for a reset
  1  the host cannot run the guest: no KVM, no QEMU, a missing file, not enough memory
  2  the command line or the spec file is wrong
  3  the guest crashed (triple fault; with --engine qemu a kernel panic that the guest reports)
  4  KVM could not go on, or QEMU ended and the guest did not cause it
  5  the balancer refused to start the guest: its name is taken, a limit is out of bounds,
     memory is missing for it
  6  the guest was ended because it stored into its read-only images (--root) again and again
  128+N  ended by signal N: 130 for Ctrl-C and Ctrl-A x, 143 for SIGTERM";

/// The exit code for an end.
#[must_use]
pub fn of(end: &End) -> u8 {
    match end {
        End::PowerOff | End::Reset => OK,
        End::Crash => CRASH,
        End::Kvm(_) | End::Machine(_) => KVM,
        End::ImageStores(_) => IMAGE_STORES,
        End::Signal(number) => u8::try_from(128 + number).unwrap_or(HOST),
    }
}
