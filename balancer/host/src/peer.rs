//! Which process and which user is at the other end of a Unix socket, and which user this process is.

use std::io;
use std::os::fd::AsFd;

/// The other end of a Unix socket (`SO_PEERCRED`, unix(7)): for a socket that was connected, the process that called
/// `listen`; for a pair, the process that made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// The process.
    pub pid: i32,
    /// Its user when the connection was made.
    pub uid: u32,
}

impl Peer {
    /// Asks the kernel.
    ///
    /// # Errors
    /// When this is not a Unix socket.
    pub fn of(socket: impl AsFd) -> io::Result<Self> {
        let peer = rustix::net::sockopt::socket_peercred(socket)?;
        Ok(Self { pid: peer.pid.as_raw_nonzero().get(), uid: peer.uid.as_raw() })
    }
}

/// The user of this process.
#[must_use]
pub fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peer_of_a_pair_is_the_process_that_made_it() {
        let (ours, _theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let peer = Peer::of(&ours).unwrap();
        assert_eq!((peer.pid, peer.uid), (std::process::id().cast_signed(), own_uid()));
        assert!(Peer::of(std::fs::File::open("/dev/null").unwrap()).is_err());
    }
}
