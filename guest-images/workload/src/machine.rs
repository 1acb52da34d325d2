//! What only the first program of a machine does: mounts, modules, power.

use std::ffi::CStr;
use std::fs::{self, File};
use std::io;

use rustix::mount::{MountFlags, UnmountFlags};
use rustix::system::RebootCommand;

/// The port of QEMU's isa-debug-exit device in the outer machine.
const DEBUG_EXIT_PORT: u16 = 0xf4;
/// The balloon driver, where the initramfs has it.
const BALLOON_MODULE: &CStr = c"virtio_balloon";

/// Mounts `device` on `folder`, which is made when missing.
pub fn mount(device: &str, folder: &str, fstype: &str, read_only: bool) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let flags = if read_only { MountFlags::RDONLY } else { MountFlags::empty() };
    Ok(rustix::mount::mount(device, folder, fstype, flags, None)?)
}

/// Unmounts `folder`.
pub fn umount(folder: &str) -> io::Result<()> {
    Ok(rustix::mount::unmount(folder, UnmountFlags::empty())?)
}

/// Everything written reaches the disks.
pub fn sync() {
    rustix::fs::sync();
}

/// Unloads the balloon driver, which deflates its balloon first.
pub fn unload_balloon() -> io::Result<()> {
    Ok(rustix::system::delete_module(BALLOON_MODULE, libc::O_NONBLOCK)?)
}

/// Loads the balloon driver.
pub fn load_balloon() -> io::Result<()> {
    let module = File::open(format!("/lib/modules/{}.ko", BALLOON_MODULE.to_string_lossy()))?;
    Ok(rustix::system::finit_module(module, c"", 0)?)
}

/// How a machine ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// ACPI power-off.
    PowerOff,
    /// Reset, by the way that `reboot=` on the kernel's command line names.
    Reboot,
}

/// Flushes the disks and ends the machine. Returns only when the kernel refuses.
pub fn end(end: End) -> io::Result<()> {
    sync();
    let command = match end {
        End::PowerOff => RebootCommand::PowerOff,
        End::Reboot => RebootCommand::Restart,
    };
    Ok(rustix::system::reboot(command)?)
}

/// Ends the outer machine at once: QEMU exits with `2 * code + 1`. Returns only without that device.
pub fn exit_outer(code: u8) -> io::Result<()> {
    // SAFETY: gives this process access to all ports; the only use is below.
    if unsafe { libc::iopl(3) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `out` to a port touches no memory; iopl(3) allows it.
    unsafe {
        std::arch::asm!("out dx, al", in("dx") DEBUG_EXIT_PORT, in("al") code, options(nomem, nostack));
    }
    Ok(())
}
