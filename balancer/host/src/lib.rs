//! Everything that asks the host's kernel, KVM and the frame table excepted.
//!
//! | module | question |
//! |---|---|
//! | [`proc`] | what does `/proc` say about a process: memory, faults, mappings, descriptors, threads? |
//! | [`kernel`] | how exact are those figures, and how much CPU time did this thread use? |
//! | [`page_cache`] | which pages of a file does the page cache hold, and how are they dropped? |
//! | [`meminfo`] | how much memory does the host have, and which part of the time do tasks stall for it? |
//! | [`psi`] | how does the kernel report a stall for memory at once? |
//! | [`ksm`] | which pages does the kernel merge, and of which processes? |
//! | [`damon`] | which part of its memory did a guest use lately? |
//! | [`peer`] | which process and which user is at the other end of a socket? |
//! | [`process`] | how is a process ended, limited, or tied to its parent? |
//! | [`signals`] | which signals are blocked, ignored, or read as events? |
//! | [`wait`] | which descriptor is ready? |
//!
//! Every function here is safe to call. What `rustix` does not have is a raw system call, in [`page_cache`],
//! [`process`] and [`signals`] alone.

#![deny(unsafe_code)]

pub mod damon;
pub mod kernel;
pub mod ksm;
pub mod meminfo;
pub mod page_cache;
pub mod peer;
pub mod proc;
pub mod process;
pub mod psi;
pub mod signals;
pub mod wait;
