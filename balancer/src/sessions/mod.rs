//! Sessions: the socket at which guests register, and one connection per guest until it ends.

mod attach;
mod granules;
mod images;
mod merge;
mod server;
mod session;
mod working_set;

pub use attach::{Attach, VMM_VARIABLE, attach, detach, name_of as attach_name};
pub use merge::watch as watch_merge;
pub use server::{GuestPlaces, GuestServer, serve};
pub use working_set::watch as watch_working_sets;
