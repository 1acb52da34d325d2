//! The pool: its pages, limits and views.

pub(in crate::state) mod granules;
pub(in crate::state) mod limits;
pub(in crate::state) mod merge;
pub(in crate::state) mod pages;
pub(in crate::state) mod views;
