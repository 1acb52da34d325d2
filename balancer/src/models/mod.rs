//! `balancer models`: the four accounting systems, measured against each other.
//!
//! ```text
//!   trace (seed, attack, file) --> host: may it happen? --> steps --> each system --> charges by window
//!                              \-> truth: who used what, frame by frame -------------> difference
//! ```
//!
//! Nine criteria, those of the Linux memory-management wiki's comparison of memory containers (2007), each with measured
//! figures. The same seed gives the same figures but for times, whose names end in `_ns`.

mod attacks;
mod cost;
mod figure;
mod generate;
mod host;
mod lines;
mod measure;
mod replay;
mod report;
mod table;
mod trace;
mod truth;

pub use attacks::Attack;
pub use figure::figure;
pub use generate::{mixed, sharing};
pub use replay::Difference;
pub use report::{Report, SystemReport};
pub use table::{into_markers, into_markers_of, markdown, text};
pub use trace::{Trace, TraceError};
pub use truth::Truth;

#[cfg(test)]
#[path = "models_test.rs"]
mod tests;
