//! Stalls of the host for memory, as an event: see [`host::psi`].

use crate::readiness;
use crate::state::Balancer;
use std::sync::Arc;
use tokio::io::Interest;

/// Reports each stall to the balancer, for ever. Returns where the kernel offers no trigger: then the next tick reads
/// the pressure.
pub(super) async fn watch(balancer: Arc<Balancer>) {
    let trigger = match host::psi::trigger()
        .and_then(|file| readiness::watch(file.into(), Interest::PRIORITY))
    {
        Ok(trigger) => trigger,
        Err(error) => {
            tracing::info!(%error, "the kernel offers no pressure trigger; memory pressure is read at each tick");
            return;
        }
    };
    loop {
        match trigger.ready(Interest::PRIORITY).await {
            Ok(mut event) => {
                // At most once per window.
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
