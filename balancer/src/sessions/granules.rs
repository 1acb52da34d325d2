//! The second connection of a guest with managed images: it asks for granules and is asked to unmap them.
//!
//! ```text
//!   packets --> AskGranules: a queue of bounded length --> one after the other: admission, filling, answer
//!          \--> Unmapped: at once, as room for another guest's granule may depend on it
//! ```

use super::images;
use super::session::{receive, refuse, send};
use crate::guests::GuestSeq;
use crate::pool::Asked;
use crate::state::Balancer;
use protocol::image::GRANULES_ASKED_MAX;
use protocol::message::{self, FromVmm, ServePool};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_seqpacket::UnixSeqpacket;

/// Questions of a guest that wait: more than it has processors and devices that could.
const ASKS_MAX: usize = 256;
/// Messages that wait for it to take them: an answer to each question, and requests to unmap.
const OUTBOX: usize = 1024;
/// A guest that waits for room asks again after this, whether or not something changed.
const WAIT: Duration = Duration::from_millis(100);

/// Serves a guest granules until either side hangs up.
pub(super) async fn run(balancer: Arc<Balancer>, socket: UnixSeqpacket, (asked, pid): (ServePool, i32)) {
    let (outbox, mut inbox) = mpsc::channel(OUTBOX);
    let (guest, images) = match balancer.serve_pool(&asked, pid, outbox) {
        Ok(served) => served,
        Err(reason) => return refuse(&socket, reason).await,
    };
    let (asks, mut asked) = mpsc::channel(ASKS_MAX);
    let reason = tokio::select! {
        reason = async {
            if let Err(reason) = images::send_all(&socket, images).await { return reason; }
            loop {
                if let Err(reason) = receive_message(&balancer, &socket, guest, &asks).await { return reason; }
            }
        } => reason,
        reason = async {
            while let Some((image, granule)) = asked.recv().await {
                if let Err(reason) = granule_for(&balancer, guest, image, granule).await { return reason; }
            }
            "its questions ended".to_owned()
        } => reason,
        reason = async {
            while let Some(message) = inbox.recv().await {
                if let Err(reason) = send(&socket, &message).await { return reason; }
            }
            "the guest is gone, or has another connection".to_owned()
        } => reason,
    };
    // A closed outbox shows the balancer that no other connection came after this one.
    drop(inbox);
    balancer.serve_pool_ended(guest, &reason);
}

async fn receive_message(
    balancer: &Balancer,
    socket: &UnixSeqpacket,
    guest: GuestSeq,
    asks: &mpsc::Sender<(u16, u64)>,
) -> Result<(), String> {
    let packet = receive(socket).await?.ok_or("its vmm hung up")?;
    match message::decode::<FromVmm>(&packet.bytes).map_err(|error| error.to_string())? {
        FromVmm::AskGranules { image, first, count } => {
            if count == 0 || count > GRANULES_ASKED_MAX {
                return Err(format!(
                    "it asked for {count} granules at once, but must ask for 1 to {GRANULES_ASKED_MAX}"
                ));
            }
            let end = first.checked_add(count).ok_or("it asked for granules that cannot be")?;
            for granule in first..end {
                asks.try_send((image, granule))
                    .map_err(|_| format!("more than {ASKS_MAX} questions wait"))?;
            }
            Ok(())
        }
        other => balancer.receive_of_pool(guest, &other),
    }
}

/// Admission, filling, waiting: until the answer is sent that the granule is there, or why not.
async fn granule_for(
    balancer: &Arc<Balancer>,
    guest: GuestSeq,
    image: u16,
    granule: u64,
) -> Result<(), String> {
    loop {
        // Before the question, so that no change is missed.
        let changed = balancer.granules_changed();
        match balancer.ask_granule(guest, image, granule)? {
            (Asked::There, _) => return Ok(()),
            (Asked::Fill(backing), key) => {
                let balancer = Arc::clone(balancer);
                // On its own, so that a guest that hangs up leaves no granule half filled in the books.
                let filling = tokio::spawn(async move {
                    let source = Arc::clone(&backing);
                    let fill = move || match source.as_managed() {
                        Some(managed) => managed.fill(crate::pool::GranuleIndex(granule)),
                        None => Err(std::io::ErrorKind::Unsupported.into()),
                    };
                    let done = tokio::task::spawn_blocking(fill).await;
                    let done = done.unwrap_or_else(|error| Err(std::io::Error::other(error)));
                    balancer.granule_filled((guest, image), (&key, granule), &backing, done)
                });
                return filling.await.map_err(|error| error.to_string())?;
            }
            (Asked::Later(wait), _) => sleep(wait).await,
            _ => drop(timeout(WAIT, changed).await),
        }
    }
}
