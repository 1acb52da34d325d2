//! The shares: a budget is divided in rounds, from the root of the container tree down to the guests.

pub(crate) mod fill;
pub(crate) mod forest;
pub(crate) mod node;
pub(crate) mod round;
