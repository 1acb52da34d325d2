//! The end of a balancer that nobody needs.

use crate::engine::Engine;
use std::sync::Arc;
use std::time::Duration;

/// After the last guest left, in case the next one is on its way.
const AFTER_LAST: Duration = Duration::from_secs(2);
/// After the start, for the first one to come.
const BEFORE_FIRST: Duration = Duration::from_secs(30);

/// Waits until there has been no guest for long enough; for ever if that is not `wanted`.
pub(super) async fn wait(engine: Arc<Engine>, wanted: bool) {
    loop {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let (idle, ever) = engine.idle();
        if wanted && idle >= if ever { AFTER_LAST } else { BEFORE_FIRST } {
            return;
        }
    }
}
