//! One connection of a `vmm`, from the registration to the hang-up.

pub(super) use protocol::error_chain::chain;

use super::{images, merge};
use crate::guests::GuestSeq;
use crate::state::{Admission, Balancer, Candidate, Refusal};
use protocol::frames::FrameReader;
use protocol::message::{
    self, FromVmm, MESSAGE_BYTES_MAX, OpenImages, PROTOCOL_VERSION, Register, ServePool, ToVmm,
};
use protocol::path::ContainerPath;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_seqpacket::UnixSeqpacket;
use tokio_seqpacket::ancillary::OwnedAncillaryMessage;

/// A `vmm` that connects and sends nothing is cut off after this.
const REGISTER_DEADLINE: Duration = Duration::from_secs(5);
/// A `vmm` that does not take a message for this time is cut off; it registers again if it lives.
pub(super) const SEND_DEADLINE: Duration = Duration::from_secs(10);
/// Messages that wait for a `vmm` to take them.
const OUTBOX: usize = 64;
/// Room for the descriptors that may come with a message: one is expected, a few more are received to be closed.
const ANCILLARY_BYTES: usize = 64;

/// A packet and the descriptor that came with it.
pub(super) struct Packet {
    pub(super) bytes: Vec<u8>,
    fd: Option<OwnedFd>,
}

/// What a connection brought: the registration, its process, its frame table.
pub(super) type Admitted = (Register, i32, FrameReader);

/// What a connection is for, by its first message.
pub(super) enum First {
    /// A guest is there.
    Register(Box<Admitted>),
    /// A guest is to be built.
    OpenImages(OpenImages),
    /// A guest that is there wants to be served granules, from this process.
    ServePool(ServePool, i32),
}

/// Waits for the first message. `None` for a connection that hung up or was refused.
pub(super) async fn admit(socket: UnixSeqpacket) -> Option<(First, UnixSeqpacket)> {
    match first_message(&socket).await {
        Ok(first) => Some((first?, socket)),
        Err(reason) => {
            refuse(&socket, reason).await;
            None
        }
    }
}

/// Serves one connection until either side hangs up.
pub(super) async fn run(balancer: Arc<Balancer>, socket: UnixSeqpacket, (about, pid, frames): Admitted) {
    let (outbox, mut inbox) = mpsc::channel(OUTBOX);
    if let Err(reason) = images::find_again(&balancer, &about).await {
        return refuse(&socket, reason).await;
    }
    if let Err(reason) = merge::check(&balancer, &about, pid).await {
        return refuse(&socket, reason).await;
    }
    let candidate = Candidate { about, pid, frames: Arc::new(frames), outbox };
    let admission = match balancer.register(&candidate, None) {
        Ok(admission) => admission,
        Err(Refusal::NoRoom { at, reason }) if candidate.about.wait => {
            match wait(&balancer, &socket, &candidate, (at, reason)).await {
                Ok(Some(admission)) => admission,
                Ok(None) => return,
                Err(reason) => return refuse(&socket, reason).await,
            }
        }
        Err(refusal) => return refuse(&socket, refusal.reason()).await,
    };
    // Its outbox ends with the session of the guest, which has one of its own.
    drop(candidate);
    let reason = tokio::select! {
        reason = listen(&balancer, &socket, admission.seq) => reason,
        reason = async {
            let first = ToVmm::Registered {
                protocol_version: PROTOCOL_VERSION,
                owner: admission.owner,
                target_bytes: admission.target_bytes,
            };
            if let Err(reason) = send(&socket, &first).await { return reason; }
            while let Some(message) = inbox.recv().await {
                if let Err(reason) = send(&socket, &message).await { return reason; }
            }
            "it registered again".to_owned()
        } => reason,
    };
    balancer.hang_up(admission.seq, &reason);
}

/// Waits until there is memory for a guest. `None` if it hung up before.
async fn wait(
    balancer: &Arc<Balancer>,
    socket: &UnixSeqpacket,
    candidate: &Candidate,
    (at, reason): (ContainerPath, String),
) -> Result<Option<Admission>, String> {
    let mut room = balancer.watch_room();
    let ticket = balancer.wait(&candidate.about, at, &reason)?;
    if let Err(error) = send(socket, &ToVmm::Waiting { reason }).await {
        tracing::debug!(error, "a guest that was to wait is gone");
        return Ok(None);
    }
    loop {
        tokio::select! {
            changed = room.changed() => {
                changed.map_err(|_| "The balancer ends".to_owned())?;
                match balancer.register(candidate, Some(ticket.number())) {
                    Ok(admission) => return Ok(Some(admission)),
                    Err(Refusal::NoRoom { .. }) => {}
                    Err(Refusal::Never(reason)) => return Err(reason),
                }
            }
            packet = receive(socket) => match packet? {
                None => return Ok(None),
                Some(_) => return Err("A guest that waits must not send messages".to_owned()),
            },
        }
    }
}

/// What a connection must bring: the same user, this version, and with a registration a frame table. `None` for one
/// that hangs up at once.
async fn first_message(socket: &UnixSeqpacket) -> Result<Option<First>, String> {
    let peer = socket.peer_cred().map_err(|error| format!("The kernel does not say who you are: {error}"))?;
    let own = host::peer::own_uid();
    if peer.uid() != own {
        return Err(format!("You are user {}, this balancer serves user {own} alone", peer.uid()));
    }
    let pid = peer.pid().ok_or("The kernel does not say which process you are")?;
    let packet = timeout(REGISTER_DEADLINE, receive(socket))
        .await
        .map_err(|_| format!("No registration within {} s", REGISTER_DEADLINE.as_secs()))??;
    let Some(packet) = packet else { return Ok(None) };
    check_version(&packet.bytes)?;
    let about = match message::decode(&packet.bytes).map_err(|error| chain(&error))? {
        FromVmm::Register(about) => about,
        FromVmm::OpenImages(asked) => return Ok(Some(First::OpenImages(asked))),
        FromVmm::ServePool(asked) => return Ok(Some(First::ServePool(asked, pid))),
        _ => return Err("The first message must be a registration, or ask for images or granules".into()),
    };
    let fd = packet.fd.ok_or("The registration came without a frame table")?;
    let frames = FrameReader::open(fd.as_fd()).map_err(|error| chain(&error))?;
    Ok(Some(First::Register(Box::new((about, pid, frames)))))
}

/// Another version may have other fields: its number is checked before the rest.
fn check_version(packet: &[u8]) -> Result<(), String> {
    #[derive(serde::Deserialize)]
    struct Version {
        protocol_version: Option<u32>,
    }
    match serde_json::from_slice::<Version>(packet) {
        Ok(Version { protocol_version: Some(found) }) if found != PROTOCOL_VERSION => Err(format!(
            "You speak version {found} of the protocol, this balancer speaks version {PROTOCOL_VERSION}"
        )),
        _ => Ok(()),
    }
}

async fn listen(balancer: &Balancer, socket: &UnixSeqpacket, guest: GuestSeq) -> String {
    loop {
        let packet = match receive(socket).await {
            Ok(Some(packet)) => packet,
            Ok(None) => return "its vmm hung up".into(),
            Err(reason) => return reason,
        };
        match message::decode::<FromVmm>(&packet.bytes) {
            Ok(FromVmm::Register(_)) => return "it registered twice on one connection".into(),
            Ok(FromVmm::Ended { reason }) => return reason,
            Ok(message) => balancer.receive(guest, message),
            Err(error) => return chain(&error),
        }
    }
}

/// The next packet; `None` at the hang-up.
pub(super) async fn receive(socket: &UnixSeqpacket) -> Result<Option<Packet>, String> {
    // One byte more than is allowed, so that a packet that is too long differs from one that just fits.
    let mut bytes = vec![0; MESSAGE_BYTES_MAX + 1];
    let mut ancillary = [0; ANCILLARY_BYTES];
    let (info, reader) =
        socket.recv_with_ancillary(&mut bytes, &mut ancillary).await.map_err(|error| error.to_string())?;
    let fd = reader.into_messages().find_map(|message| match message {
        OwnedAncillaryMessage::FileDescriptors(mut fds) => fds.next(),
        _ => None,
    });
    if info.bytes_read() == 0 {
        return Ok(None);
    }
    if info.truncated() {
        return Err(message::MessageError::TooLong.to_string());
    }
    bytes.truncate(info.bytes_read());
    Ok(Some(Packet { bytes, fd }))
}

pub(super) async fn send(socket: &UnixSeqpacket, message: &ToVmm) -> Result<(), String> {
    let bytes = message::encode(message).map_err(|error| chain(&error))?;
    match timeout(SEND_DEADLINE, socket.send(&bytes)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(format!("its vmm hung up: {error}")),
        Err(_) => Err(format!("its vmm took no message for {} s", SEND_DEADLINE.as_secs())),
    }
}

pub(super) async fn refuse(socket: &UnixSeqpacket, reason: String) {
    tracing::warn!(reason, "a guest is refused");
    // The other side may be gone already.
    if let Err(error) = send(socket, &ToVmm::Refused { reason }).await {
        tracing::debug!(error, "the refusal was not received");
    }
}
