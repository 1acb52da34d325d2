//! What only the first program of a machine does: mounts, modules, power.

use std::ffi::{CString, c_ulong};
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;

/// The port of QEMU's isa-debug-exit device in the outer machine.
const DEBUG_EXIT_PORT: u16 = 0xf4;
/// The balloon driver, where the initramfs has it.
const BALLOON_MODULE: &str = "virtio_balloon";

/// Mounts `device` on `folder`, which is made when missing.
pub fn mount(device: &str, folder: &str, fstype: &str, read_only: bool) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let (device, folder, fstype) = (CString::new(device)?, CString::new(folder)?, CString::new(fstype)?);
    let flags: c_ulong = if read_only { libc::MS_RDONLY } else { 0 };
    // SAFETY: three NUL-terminated strings that outlive the call; no data.
    checked(unsafe {
        libc::mount(device.as_ptr(), folder.as_ptr(), fstype.as_ptr(), flags, std::ptr::null())
    })
}

/// Unmounts `folder`.
pub fn umount(folder: &str) -> io::Result<()> {
    let folder = CString::new(folder)?;
    // SAFETY: a NUL-terminated string that outlives the call.
    checked(unsafe { libc::umount(folder.as_ptr()) })
}

/// Everything written reaches the disks.
pub fn sync() {
    // SAFETY: no arguments, cannot fail.
    unsafe { libc::sync() }
}

/// Unloads the balloon driver: it gives every page back to the guest first.
pub fn unload_balloon() -> io::Result<()> {
    let name = CString::new(BALLOON_MODULE)?;
    // SAFETY: a NUL-terminated string that outlives the call.
    let result = unsafe { libc::syscall(libc::SYS_delete_module, name.as_ptr(), libc::O_NONBLOCK) };
    checked(result as i32)
}

/// Loads the balloon driver.
pub fn load_balloon() -> io::Result<()> {
    let module = File::open(format!("/lib/modules/{BALLOON_MODULE}.ko"))?;
    // SAFETY: an open file and an empty, NUL-terminated list of parameters.
    let result = unsafe { libc::syscall(libc::SYS_finit_module, module.as_raw_fd(), c"".as_ptr(), 0) };
    checked(result as i32)
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
        End::PowerOff => libc::LINUX_REBOOT_CMD_POWER_OFF,
        End::Reboot => libc::LINUX_REBOOT_CMD_RESTART,
    };
    // SAFETY: the disks are flushed; nothing of this program is needed afterwards.
    checked(unsafe { libc::reboot(command) })
}

/// Ends the outer machine at once: QEMU exits with `2 * code + 1`. Returns only without that device.
pub fn exit_outer(code: u8) -> io::Result<()> {
    // SAFETY: gives this process access to all ports; the only use is below.
    checked(unsafe { libc::iopl(3) })?;
    // SAFETY: `out` to a port touches no memory; iopl(3) allows it.
    unsafe {
        std::arch::asm!("out dx, al", in("dx") DEBUG_EXIT_PORT, in("al") code, options(nomem, nostack));
    }
    Ok(())
}

fn checked(result: i32) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
