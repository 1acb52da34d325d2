//! The connection to the balancer: a seqpacket socket, messages of `protocol::message`.

mod granules;
mod images;
mod persistent;
mod reregister;
mod start;
mod wait;

pub use granules::serve_pool;
pub use images::{Granted, open_images};
pub use persistent::{PersistentLink, Received, Registration};
pub use start::{BALANCER_VARIABLE, StartError, ensure_running};
pub use wait::{Interrupts, NotAdmitted, enter};

use protocol::message::{self, FromVmm, MESSAGE_BYTES_MAX, Register, ToVmm};
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::{Duration, Instant};
use vmm_sys_util::sock_ctrl_msg::ScmSocket;

/// How long the balancer may take to answer a registration.
pub const ANSWER_DEADLINE: Duration = Duration::from_secs(10);
/// Pause before a full queue is tried again.
const QUEUE_PAUSE: Duration = Duration::from_millis(10);

/// An open connection. The standard library has no seqpacket type; its datagram type does the same system calls.
#[derive(Debug)]
pub struct Link(UnixDatagram);

impl Link {
    /// Connects, passes the frame table and waits for the answer.
    ///
    /// # Errors
    /// When no answer comes in time.
    pub fn register(socket: &Path, register: &Register, table: BorrowedFd<'_>) -> io::Result<(Self, ToVmm)> {
        let deadline = Instant::now() + ANSWER_DEADLINE;
        let link = loop {
            match Self::ask(socket, register, table) {
                // Many guests start at once and the balancer's queue is full.
                Err(error) if error.kind() == ErrorKind::WouldBlock && Instant::now() < deadline => {
                    std::thread::sleep(QUEUE_PAUSE);
                }
                result => break result?,
            }
        };
        link.0.set_nonblocking(false)?;
        link.0.set_read_timeout(Some(ANSWER_DEADLINE))?;
        let answer = link.receive().map_err(|error| silent(error, ANSWER_DEADLINE))?;
        let answer = answer.ok_or_else(|| {
            io::Error::new(ErrorKind::ConnectionReset, "the balancer closed the connection")
        })?;
        link.0.set_nonblocking(true)?;
        Ok((link, answer))
    }

    /// Connects and passes the frame table. The answer comes as a message. Never blocks.
    ///
    /// # Errors
    /// When no process listens, the listener is of another user, or its queue is full.
    pub fn ask(socket: &Path, register: &Register, table: BorrowedFd<'_>) -> io::Result<Self> {
        let link = Self::connect(socket)?;
        let packet = message::encode(&FromVmm::Register(register.clone())).map_err(io::Error::other)?;
        link.0.send_with_fd(packet.as_slice(), table.as_raw_fd()).map_err(io::Error::from)?;
        Ok(link)
    }

    /// Checks that the listener is of the same user: any process may listen at the socket, and the frame table is for
    /// a balancer of this user only.
    fn check_peer(&self) -> io::Result<()> {
        let mut peer = libc::ucred { pid: 0, uid: 0, gid: 0 };
        let mut length = libc::socklen_t::try_from(size_of_val(&peer)).expect("12 bytes");
        // SAFETY: a buffer of that length, filled by the kernel for a socket that we own.
        let result = unsafe {
            libc::getsockopt(
                self.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERCRED,
                (&raw mut peer).cast(),
                &raw mut length,
            )
        };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: geteuid has no preconditions and cannot fail.
        let own = unsafe { libc::geteuid() };
        if peer.uid == own {
            return Ok(());
        }
        Err(io::Error::new(
            ErrorKind::PermissionDenied,
            format!("user {} listens there, not user {own}", peer.uid),
        ))
    }

    fn connect(path: &Path) -> io::Result<Self> {
        // SAFETY: plain system calls; the result is checked and owned at once.
        let fd = unsafe {
            let fd = libc::socket(
                libc::AF_UNIX,
                libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK,
                0,
            );
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(fd)
        };
        // SAFETY: all zero is a valid, empty address.
        let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
        address.sun_family = libc::AF_UNIX as libc::sa_family_t;
        let bytes = path.as_os_str().as_bytes();
        if bytes.len() >= address.sun_path.len() {
            return Err(io::Error::new(ErrorKind::InvalidInput, "the path of the socket is too long"));
        }
        for (slot, byte) in address.sun_path.iter_mut().zip(bytes) {
            *slot = byte.cast_signed();
        }
        let length = libc::socklen_t::try_from(size_of_val(&address)).expect("110 bytes");
        // SAFETY: a valid address of that length.
        if unsafe { libc::connect(fd.as_raw_fd(), (&raw const address).cast(), length) } != 0 {
            return Err(io::Error::last_os_error());
        }
        let link = Self(UnixDatagram::from(fd));
        link.check_peer()?;
        Ok(link)
    }

    /// The next message; `None` when the balancer closed the connection.
    ///
    /// # Errors
    /// `WouldBlock` when there is none, `InvalidData` when the packet is not a message.
    pub fn receive(&self) -> io::Result<Option<ToVmm>> {
        let mut packet = vec![0; MESSAGE_BYTES_MAX + 1];
        match self.0.recv(&mut packet)? {
            0 => Ok(None),
            count => message::decode(&packet[..count])
                .map(Some)
                .map_err(|e| io::Error::new(ErrorKind::InvalidData, e)),
        }
    }

    /// Sends a message. It is lost if the balancer does not read: the next one carries newer figures.
    ///
    /// # Errors
    /// When the balancer is gone.
    pub fn send(&self, message: &FromVmm) -> io::Result<()> {
        self.try_send(message).map(drop)
    }

    /// Sends a message. False if the balancer does not read, and the message is lost.
    ///
    /// # Errors
    /// When the balancer is gone.
    pub fn try_send(&self, message: &FromVmm) -> io::Result<bool> {
        let packet = message::encode(message).map_err(io::Error::other)?;
        match self.0.send(&packet) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
            other => other.map(|_| true),
        }
    }
}

/// The balancer's message is not an answer.
fn wrong(text: String) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, text)
}

/// A time-out with its meaning as text.
fn silent(error: io::Error, deadline: Duration) -> io::Error {
    match error.kind() {
        ErrorKind::WouldBlock => {
            io::Error::new(ErrorKind::TimedOut, format!("no answer within {} s", deadline.as_secs()))
        }
        _ => error,
    }
}

impl AsRawFd for Link {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
