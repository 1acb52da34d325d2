//! What the host's kernel is asked outside KVM.
//!
//! | module | question |
//! |---|---|
//! | [`meminfo`] | how much memory has the host, and does anything stall for it? |
//! | [`ksm`] | which pages does the kernel merge, and of which processes? |
//! | [`damon`] | what did a guest use lately? |

pub mod damon;
pub mod ksm;
pub mod meminfo;
