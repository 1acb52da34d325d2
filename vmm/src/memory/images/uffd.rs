//! userfaultfd(2): an access to a page that is not there stops, and is reported here. The ioctls are raw calls: the
//! crate `userfaultfd` has neither minor faults nor `UFFDIO_CONTINUE`, and needs libclang to be built.
//!
//! A mapping of a memfd is watched in two modes. *Missing*: the memfd has no page there. *Minor*: it has one, but it is
//! not mapped here yet. Either way the page is mapped by [`Uffd::resume`] alone, never by the kernel on its own, so all
//! mapped pages are known. Kernel code stops as well, that of KVM and of system calls: the descriptor is opened without
//! `UFFD_USER_MODE_ONLY`, which takes a right.

use rustix::mm::UserfaultfdFlags;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use vmm_sys_util::{ioctl_io_nr, ioctl_ior_nr, ioctl_iowr_nr};

/// Constants and layouts of linux/userfaultfd.h.
const UFFDIO: u32 = 0xaa;
const API: u64 = 0xaa;
const EVENT_PAGEFAULT: u8 = 0x12;
/// A move of a watched mapping keeps it watched, and waits until its event is read.
const FEATURE_EVENT_REMAP: u64 = 1 << 2;
const FEATURE_MISSING_SHMEM: u64 = 1 << 5;
/// Linux 5.14.
const FEATURE_MINOR_SHMEM: u64 = 1 << 10;
const MODE_MISSING: u64 = 1;
const MODE_MINOR: u64 = 1 << 2;
/// Events that are read at once.
const EVENTS: usize = 32;

#[repr(C)]
#[derive(Debug, Default)]
struct ApiCall {
    api: u64,
    features: u64,
    ioctls: u64,
}

#[repr(C)]
#[derive(Debug, Default, Clone, Copy)]
struct Range {
    start: u64,
    bytes: u64,
}

#[repr(C)]
#[derive(Debug, Default)]
struct RangeCall {
    range: Range,
    mode: u64,
    /// Calls that are possible, of a registration; bytes that were mapped or an error, of a continuation.
    result: i64,
}

/// `struct uffd_msg`: its event is the first byte, and the address of a fault begins here.
const MESSAGE_BYTES: usize = 32;
const ADDRESS_AT: usize = 16;

ioctl_io_nr!(USERFAULTFD_IOC_NEW, UFFDIO, 0x00);
ioctl_iowr_nr!(UFFDIO_API, UFFDIO, 0x3f, ApiCall);
ioctl_iowr_nr!(UFFDIO_REGISTER, UFFDIO, 0x00, RangeCall);
ioctl_ior_nr!(UFFDIO_WAKE, UFFDIO, 0x02, Range);
ioctl_iowr_nr!(UFFDIO_CONTINUE, UFFDIO, 0x07, RangeCall);

/// Why faults cannot be watched.
#[derive(Debug, thiserror::Error)]
pub enum UffdError {
    /// This user may not do it.
    #[error(
        "No permission to watch page faults (userfaultfd): give this user access to /dev/userfaultfd, \
         or set vm.unprivileged_userfaultfd to 1"
    )]
    Forbidden(#[source] io::Error),
    /// Not in this kernel.
    #[error(
        "This kernel cannot watch page faults of shared memory (userfaultfd with minor faults, Linux 5.14)"
    )]
    Missing(#[source] io::Error),
}

/// An open userfaultfd.
#[derive(Debug)]
pub struct Uffd(OwnedFd);

impl Uffd {
    /// Opens one, by the system call or by its device.
    ///
    /// # Errors
    /// When this user may not do it, or the kernel lacks a feature.
    pub fn open() -> Result<Self, UffdError> {
        let flags = UserfaultfdFlags::CLOEXEC | UserfaultfdFlags::NONBLOCK;
        // SAFETY: nothing is watched yet.
        let fd = match unsafe { rustix::mm::userfaultfd(flags) } {
            Ok(fd) => fd,
            Err(refused) => Self::open_device().map_err(|_| match refused {
                rustix::io::Errno::NOSYS => UffdError::Missing(refused.into()),
                _ => UffdError::Forbidden(refused.into()),
            })?,
        };
        let uffd = Self(fd);
        let features = FEATURE_EVENT_REMAP | FEATURE_MISSING_SHMEM | FEATURE_MINOR_SHMEM;
        let mut call = ApiCall { api: API, features, ioctls: 0 };
        // SAFETY: the struct of that call.
        unsafe { uffd.call(UFFDIO_API(), &mut call) }.map_err(UffdError::Missing)?;
        Ok(uffd)
    }

    /// Opens one by its device, which takes the right to open a file and no more.
    fn open_device() -> io::Result<OwnedFd> {
        let device = File::options().read(true).write(true).open("/dev/userfaultfd")?;
        let flags = libc::O_CLOEXEC | libc::O_NONBLOCK;
        // SAFETY: the call takes flags and returns a descriptor.
        let fd = unsafe { libc::ioctl(device.as_raw_fd(), USERFAULTFD_IOC_NEW() as _, flags) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a fresh descriptor without another owner.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    /// An ioctl.
    ///
    /// # Safety
    /// `argument` has the layout that the request wants.
    unsafe fn call<T>(&self, request: libc::c_ulong, argument: &mut T) -> io::Result<()> {
        // SAFETY: a descriptor that is open, and a valid pointer to a struct of the request's layout by the caller's
        // promise.
        match unsafe { libc::ioctl(self.0.as_raw_fd(), request as _, &raw mut *argument) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Watches a mapping of a memfd from now on.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn watch(&self, at: u64, bytes: u64) -> io::Result<()> {
        let range = Range { start: at, bytes };
        let mut call = RangeCall { range, mode: MODE_MISSING | MODE_MINOR, result: 0 };
        // SAFETY: the struct of that call; no memory changes.
        unsafe { self.call(UFFDIO_REGISTER(), &mut call) }
    }

    /// Addresses of accesses that wait. Empty when there is nothing to read.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn waiting(&self) -> io::Result<Vec<u64>> {
        let mut messages = [[0; MESSAGE_BYTES]; EVENTS];
        let read = match rustix::io::read(&self.0, messages.as_flattened_mut()) {
            Err(rustix::io::Errno::AGAIN) => 0,
            result => result?,
        };
        let messages = messages[..read / MESSAGE_BYTES].iter();
        // Other events only have to be read.
        let faults = messages.filter(|message| message[0] == EVENT_PAGEFAULT);
        let address = |message: &[u8; MESSAGE_BYTES]| {
            u64::from_ne_bytes(message[ADDRESS_AT..][..8].try_into().expect("8 bytes"))
        };
        Ok(faults.map(address).collect())
    }

    /// Maps pages that the memfd has, and resumes the threads that wait for them. False if it does not have all of
    /// them.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn resume(&self, at: u64, bytes: u64) -> io::Result<bool> {
        const PAGE: u64 = protocol::bytes::FRAME_BYTES;
        let mut next = at;
        while next < at + bytes {
            let range = Range { start: next, bytes: at + bytes - next };
            let mut call = RangeCall { range, mode: 0, result: 0 };
            // SAFETY: the struct of that call. It maps the memfd's own pages, in a mapping that is watched and hence
            // only read through volatile accessors and by the kernel.
            let done = unsafe { self.call(UFFDIO_CONTINUE(), &mut call) };
            next += match (u64::try_from(call.result), done) {
                (Ok(mapped), Ok(())) => mapped.max(PAGE),
                (Ok(mapped), Err(_)) if mapped > 0 => mapped,
                (_, Err(error)) => match error.raw_os_error() {
                    Some(libc::EEXIST) => PAGE,
                    Some(libc::EAGAIN | libc::EINTR) => 0,
                    Some(libc::EFAULT) => return Ok(false),
                    _ => return Err(error),
                },
                (Err(_), Ok(())) => PAGE,
            };
        }
        // A thread whose fault came after its page was mapped is not woken by the calls above.
        let mut range = Range { start: at, bytes };
        // SAFETY: the struct of that call, which wakes and does nothing else.
        unsafe { self.call(UFFDIO_WAKE(), &mut range) }.ok();
        Ok(true)
    }
}

impl AsFd for Uffd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
