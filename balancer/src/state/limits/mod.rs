//! Changes of limits, bindings and knobs, and their preview.

pub(in crate::state) mod bindings;
pub(in crate::state) mod change;
pub(in crate::state) mod policy;
pub(in crate::state) mod preview;
mod sweep;
