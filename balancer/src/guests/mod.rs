//! The guests: what is known of each, and the socket at which they register.

mod figures;
mod guest;
mod server;
mod session;

pub use figures::{Figures, KernelSample};
pub use guest::{Guest, Sampled};
pub use server::{GuestServer, serve};
