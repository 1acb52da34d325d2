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

use host::peer::{Peer, own_uid};
use protocol::message::{self, FromVmm, MESSAGE_BYTES_MAX, Register, ToVmm};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
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
        let (peer, own) = (Peer::of(&self.0)?, own_uid());
        if peer.uid == own {
            return Ok(());
        }
        Err(io::Error::new(
            ErrorKind::PermissionDenied,
            format!("user {} listens there, not user {own}", peer.uid),
        ))
    }

    fn connect(path: &Path) -> io::Result<Self> {
        let too_long = |_| io::Error::new(ErrorKind::InvalidInput, "the path of the socket is too long");
        let address = SocketAddrUnix::new(path).map_err(too_long)?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let fd = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        rustix::net::connect(&fd, &address)?;
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

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Link {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
