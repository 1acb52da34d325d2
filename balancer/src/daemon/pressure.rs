//! Stalls of the host for memory, as an event of the kernel: a trigger on its pressure file (`Documentation/accounting/psi.rst`,
//! "Monitoring for pressure thresholds").

use crate::state::Balancer;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

const FILE: &str = "/proc/pressure/memory";
/// Stalls of some tasks, and the window in which they count, microseconds. The kernel looks ten times a window; who may not (no
/// `CAP_SYS_RESOURCE`) may have windows of whole multiples of 2 s.
const TRIGGERS: [&str; 2] = ["some 50000 500000\0", "some 200000 2000000\0"];

/// Tells the balancer of each stall, for ever. Returns where the kernel offers no trigger: then pressure is seen at the next turn.
pub(super) async fn watch(balancer: Arc<Balancer>) {
    let trigger = match TRIGGERS.iter().map(|text| open(text)).find(Result::is_ok) {
        Some(Ok(trigger)) => trigger,
        _ => {
            tracing::info!("the kernel offers no pressure trigger; memory pressure is looked at each turn");
            return;
        }
    };
    loop {
        match trigger.ready(Interest::PRIORITY).await {
            Ok(mut event) => {
                // The kernel says so once per window at most.
                event.clear_ready();
                balancer.stalled();
            }
            Err(error) => {
                tracing::warn!(%error, "the pressure trigger is gone");
                return;
            }
        }
    }
}

fn open(trigger: &str) -> io::Result<AsyncFd<File>> {
    let mut file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(FILE)?;
    file.write_all(trigger.as_bytes())?;
    // SAFETY: the file is owned by what is returned, keeps its descriptor while it lives and is nowhere else.
    unsafe { AsyncFd::register_with_interest(file, Interest::PRIORITY) }.map_err(io::Error::from)
}
