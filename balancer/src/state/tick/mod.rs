//! What happens at each tick and when a guest answers.

pub(in crate::state) mod adjust;
pub(in crate::state) mod attach;
pub(in crate::state) mod disk_cache;
pub(in crate::state) mod grant;
pub(in crate::state) mod receive;
pub(in crate::state) mod sample;
