//! Images: immutable file systems that guests share, each named by its SHA-256.
//!
//! ```text
//!   folder -----\                                    temporary file        images/<hex>.erofs
//!   tar ---------> source --> tree --> plan --> write ---> digest, check ---> store --> domains/<domain>/<hex>.erofs
//!   OCI layout -/  (names, modes)   (places)  (contents)                                (opened by guests)
//! ```
//!
//! A source is read twice: for its tree, which is kept in memory, then for the contents, which are streamed to the
//! places that the plan gave them. So a tar, compressed or not, needs no unpacked copy, and memory grows with the
//! number of files only.
//!
//! The same tree gives the same bytes on every machine: order, times, identities and hard links are normalized
//! ([`erofs`]). Times and attributes that belong to the machine and not to the tree, such as labels of SELinux, are
//! left out ([`tree::is_kept`]).

#![forbid(unsafe_code)]

pub mod build;
pub mod check;
pub mod erofs;
mod error;
#[cfg(any(test, feature = "testing"))]
pub mod fuzz;
pub mod source;
mod sparse;
pub mod store;
#[cfg(test)]
mod testing;
pub mod tree;
mod watch;

pub use build::{build, build_tree};
pub use check::{CheckError, Report, check, digest};
pub use error::BuildError;
pub use store::{Listed, Listing, Manifest, Opened, Store, StoreError};
pub use watch::{Phase, Progress, Watch};

/// Longest image: the most that a guest's address space has room for.
pub const IMAGE_BYTES_MAX: u64 = 1 << 40;
/// Most files, folders and other entries of an image. Bounds the memory that a hostile archive can take.
pub const ENTRIES_MAX: usize = 1 << 21;
