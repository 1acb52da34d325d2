//! What the balancer and the `vmm` share.
//!
//! | module | question it answers |
//! |---|---|
//! | [`bytes`] | how are `512M` and `1.5G` read and written? |
//! | [`patch`] | how does a change tell a field that is `null` from one that is absent? |
//! | [`path`] | what is a container's path? |
//! | [`limits`] | what are `min`, `low`, `high`, `max` and `weight`, and which objects of the kernel are counted? |
//! | [`disk`] | what does the host's page cache hold of a guest's disks? |
//! | [`image`] | which image of the shared pool is meant, and where does a guest have it? |
//! | [`engine`] | which hypervisor runs a guest? |
//! | [`frames`] | in which state is each guest frame, and who owns it? |
//! | [`engine`] | which hypervisor runs a guest? |
//! | [`message`] | which messages do the two processes exchange? |
//! | [`place`] | where are the sockets and the journal? |
//! | [`private`] | does that folder belong to this user alone? |
//! | [`token_bucket`] | how often may something happen? |
//! | [`sync`], [`time`], [`error_chain`] | how is a mutex locked, a duration counted, an error shown? |
//!
//! Nothing here decides anything: the policy is in `balancer`, the mechanism in `vmm`.

#![deny(unsafe_code)]

pub mod bytes;
pub mod disk;
pub mod domain;
pub mod engine;
pub mod error_chain;
pub mod frames;
pub mod image;
pub mod limits;
pub mod message;
pub mod patch;
pub mod path;
pub mod private;
pub mod run_dir;
pub mod sync;
pub mod time;
pub mod token_bucket;

pub use limits::objects;
