//! The atomics of the table. The model checker puts its own in their place.

pub(super) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
