//! Which container is charged for what.

pub(in crate::state) mod charge;
pub(in crate::state) mod reconcile;
pub(in crate::state) mod scan;
pub(in crate::state) mod sources;
pub(in crate::state) mod trust;
pub(in crate::state) mod usage;
