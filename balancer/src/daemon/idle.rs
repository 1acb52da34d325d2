//! The end of a balancer that no guest needs.

use crate::state::Balancer;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// After the last guest left, in case the next one is on its way.
const AFTER_LAST: Duration = Duration::from_secs(2);
/// After the start, for the first one to come.
const BEFORE_FIRST: Duration = Duration::from_secs(30);

/// Waits until there has been no guest for long enough.
pub(super) async fn wait(balancer: Arc<Balancer>) {
    // Guests that come and go are events.
    let mut events = balancer.watch_events();
    loop {
        let (idle, ever) = balancer.idle();
        let wanted = if ever { AFTER_LAST } else { BEFORE_FIRST };
        if idle >= wanted {
            return;
        }
        // The balancer outlives this wait, so its channel stays open.
        let _ = timeout(wanted - idle, events.changed()).await;
    }
}
