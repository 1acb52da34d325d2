//! The host: what it has for guests, how much page cache of disks may stay, and what happens when memory runs out.

pub(crate) mod budget;
pub(crate) mod cache;
pub(crate) mod starve;
