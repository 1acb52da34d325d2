//! Decisions at each tick and after each change, and what guests report.

pub(in crate::state) mod adjust;
pub(in crate::state) mod disk_cache;
mod grant;
mod moments;
mod pause;
mod receive;
mod requests;
