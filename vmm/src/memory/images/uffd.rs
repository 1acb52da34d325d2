//! userfaultfd(2): accesses to pages that are not there stop, and are told of here. Raw calls: the crate of that name has
//! neither minor faults nor `UFFDIO_CONTINUE`, and needs libclang to be built.
//!
//! A mapping of a memfd is watched in two modes. *Missing*: the memfd has no page there. *Minor*: it has one, but nobody mapped
//! it here yet. Either way the page is mapped by [`Uffd::resume`] alone, never by the kernel on its own, so that what is mapped is known.
//! Kernel code stops as well, KVM's and that of system calls: without `UFFD_USER_MODE_ONLY`, which takes a right.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
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

#[repr(C)]
#[derive(Debug, Default, Clone, Copy)]
struct Message {
    event: u8,
    _reserved: [u8; 7],
    flags: u64,
    address: u64,
    _rest: u64,
}

ioctl_io_nr!(USERFAULTFD_IOC_NEW, UFFDIO, 0x00);
ioctl_iowr_nr!(UFFDIO_API, UFFDIO, 0x3f, ApiCall);
ioctl_iowr_nr!(UFFDIO_REGISTER, UFFDIO, 0x00, RangeCall);
ioctl_ior_nr!(UFFDIO_WAKE, UFFDIO, 0x02, Range);
ioctl_iowr_nr!(UFFDIO_CONTINUE, UFFDIO, 0x07, RangeCall);

/// Why faults cannot be watched.
#[derive(Debug, thiserror::Error)]
pub enum UffdError {
    /// No right to do it.
    #[error(
        "No permission to watch page faults (userfaultfd): give this user access to /dev/userfaultfd, or set vm.unprivileged_userfaultfd to 1"
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
    /// When there is no right to do it, or it cannot do what is needed.
    pub fn open() -> Result<Self, UffdError> {
        let flags = libc::O_CLOEXEC | libc::O_NONBLOCK;
        // SAFETY: plain system calls; the results are checked and owned at once.
        let fd = unsafe {
            let mut fd = libc::syscall(libc::SYS_userfaultfd, flags) as RawFd;
            let refused = io::Error::last_os_error();
            if fd < 0 {
                let device = libc::open(c"/dev/userfaultfd".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC);
                if device >= 0 {
                    fd = libc::ioctl(device, USERFAULTFD_IOC_NEW() as _, flags);
                    libc::close(device);
                }
            }
            if fd < 0 {
                return Err(match refused.raw_os_error() {
                    Some(libc::ENOSYS) => UffdError::Missing(refused),
                    _ => UffdError::Forbidden(refused),
                });
            }
            OwnedFd::from_raw_fd(fd)
        };
        let features = FEATURE_EVENT_REMAP | FEATURE_MISSING_SHMEM | FEATURE_MINOR_SHMEM;
        let mut call = ApiCall { api: API, features, ioctls: 0 };
        // SAFETY: a descriptor that we own and the struct that the call wants.
        if unsafe { libc::ioctl(fd.as_raw_fd(), UFFDIO_API() as _, &raw mut call) } != 0 {
            return Err(UffdError::Missing(io::Error::last_os_error()));
        }
        Ok(Self(fd))
    }

    /// Watches a mapping of a memfd from now on.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn watch(&self, at: u64, bytes: u64) -> io::Result<()> {
        let range = Range { start: at, bytes };
        let mut call = RangeCall { range, mode: MODE_MISSING | MODE_MINOR, result: 0 };
        // SAFETY: a descriptor that we own and the struct that the call wants; no memory changes.
        match unsafe { libc::ioctl(self.as_raw_fd(), UFFDIO_REGISTER() as _, &raw mut call) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Addresses where somebody waits. Empty when there is nothing to read.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn waiting(&self) -> io::Result<Vec<u64>> {
        let mut messages = [Message::default(); EVENTS];
        // SAFETY: a buffer of that length, of plain integers.
        let read =
            unsafe { libc::read(self.as_raw_fd(), messages.as_mut_ptr().cast(), size_of_val(&messages)) };
        let Ok(read) = usize::try_from(read) else {
            let error = io::Error::last_os_error();
            return if error.kind() == io::ErrorKind::WouldBlock { Ok(vec![]) } else { Err(error) };
        };
        let faults = messages[..read / size_of::<Message>()].iter();
        // Other events only wanted to be read.
        Ok(faults.filter(|message| message.event == EVENT_PAGEFAULT).map(|message| message.address).collect())
    }

    /// Maps pages that the memfd has, and lets run on who waits for them. False if it does not have all of them.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn resume(&self, at: u64, bytes: u64) -> io::Result<bool> {
        const PAGE: u64 = protocol::bytes::FRAME_BYTES;
        let mut next = at;
        while next < at + bytes {
            let range = Range { start: next, bytes: at + bytes - next };
            let mut call = RangeCall { range, mode: 0, result: 0 };
            // SAFETY: a descriptor that we own and the struct that the call wants. What is mapped is the memfd's own pages, in a
            // mapping that is watched and hence read through volatile accessors and by the kernel alone.
            let done = unsafe { libc::ioctl(self.as_raw_fd(), UFFDIO_CONTINUE() as _, &raw mut call) } == 0;
            let error = io::Error::last_os_error();
            next += match u64::try_from(call.result) {
                Ok(mapped) if done || mapped > 0 => mapped.max(PAGE),
                _ => match error.raw_os_error() {
                    Some(libc::EEXIST) => PAGE,
                    Some(libc::EAGAIN | libc::EINTR) => 0,
                    Some(libc::EFAULT) => return Ok(false),
                    _ => return Err(error),
                },
            };
        }
        // Who came while its page was mapped already waits for nothing else.
        let mut range = Range { start: at, bytes };
        // SAFETY: as above; it wakes and does nothing else.
        unsafe { libc::ioctl(self.as_raw_fd(), UFFDIO_WAKE() as _, &raw mut range) };
        Ok(true)
    }
}

impl AsRawFd for Uffd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
