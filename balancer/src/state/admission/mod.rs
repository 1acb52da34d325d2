//! Which guests are admitted, and which wait.

pub(in crate::state) mod admit;
pub(in crate::state) mod footprint;
pub(in crate::state) mod objects;
pub(in crate::state) mod room;
pub(in crate::state) mod waiting;
