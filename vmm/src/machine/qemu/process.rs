//! Which process a monitor belongs to.
//!
//! `SO_PEERCRED` names the process that called `listen`: QEMU, or the launcher (e.g. libvirt) that passed it the
//! socket. So the peer is a guess, and the proof is RAM: the host addresses that the monitor reports are mapped in
//! QEMU's process and, if the kernel randomizes addresses, in no other process.

use super::ram::{Mapped, RamLocation};
use host::peer::Peer;
use host::proc::{Folder, Stat, processes};
use std::io;
use std::os::unix::net::UnixStream;

/// Why the process is not known.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// The kernel does not report the peer.
    #[error("The kernel does not report which process listens at the monitor")]
    Peer(#[source] io::Error),
    /// No process fits.
    #[error(
        "No process of QEMU has this guest's RAM (process {peer} listens at the monitor): is QEMU in another \
         namespace, or does it belong to another user?"
    )]
    None {
        /// The process that listens.
        peer: i32,
    },
    /// Several fit.
    #[error("Processes {0:?} may all have this guest's RAM")]
    Several(Vec<i32>),
}

/// Finds the process of the machine at the other end.
///
/// # Errors
/// When no process fits, or several do.
pub(super) fn find(stream: &UnixStream, ram: &RamLocation) -> Result<i32, ProcessError> {
    let peer = peer(stream).map_err(ProcessError::Peer)?;
    if fits(peer, ram) {
        return Ok(peer);
    }
    let others: Vec<i32> = processes().filter(|pid| fits(*pid, ram)).collect();
    match others.as_slice() {
        [pid] => Ok(*pid),
        [] => Err(ProcessError::None { peer }),
        several => Err(ProcessError::Several(several.to_vec())),
    }
}

/// True if it is a QEMU that has the RAM. If RAM is made of several backends its addresses are not known, and the
/// name of the program has to be enough.
fn fits(pid: i32, ram: &RamLocation) -> bool {
    is_qemu(pid) && (ram.slots.is_err() || ram.mapped_in(pid).is_ok_and(|mapped| mapped != Mapped::No))
}

/// True if the process is a QEMU, by the name of its program.
fn is_qemu(pid: i32) -> bool {
    let name = Folder::of(pid)
        .program()
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    name.starts_with("qemu-system-") || name.starts_with("qemu-kvm") || name == "kvm"
}

/// When a process started, clock ticks since the host did (proc_pid_stat(5), field 22); `None` if there is none.
pub(super) fn started_ticks(pid: i32) -> Option<u64> {
    Some(Folder::of(pid).read::<Stat>().ok()?.started_ticks)
}

/// The process that made the socket listen.
fn peer(stream: &UnixStream) -> io::Result<i32> {
    Ok(Peer::of(stream)?.pid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::frames::Region;

    #[test]
    fn a_process_started_before_its_child() {
        let own = started_ticks(i32::try_from(std::process::id()).unwrap()).unwrap();
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let of_child = started_ticks(i32::try_from(child.id()).unwrap()).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(own > 0 && own <= of_child && started_ticks(i32::MAX).is_none());
    }

    #[test]
    fn the_peer_is_the_process_that_made_the_socket_and_this_test_is_not_a_qemu() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        assert_eq!(peer(&ours).unwrap(), own);
        let ram = RamLocation { bytes: 2 << 20, slots: Ok(vec![(Region::ram(0, 512), 0x1000)]) };
        assert!(!is_qemu(own) && !is_qemu(i32::MAX));
        assert!(matches!(find(&ours, &ram), Err(ProcessError::None { peer }) if peer == own));
    }
}
