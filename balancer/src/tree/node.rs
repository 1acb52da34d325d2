//! One container.

use protocol::limits::Limits;
use serde::{Deserialize, Serialize};

/// A container: its limits, and how long it lives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its limits.
    pub limits: Limits,
    /// Made on behalf of a guest or of a container inside it: removed when nothing is inside any more.
    pub transient: bool,
    /// Its id in frame tables, stable while it lives.
    pub owner: u16,
}
