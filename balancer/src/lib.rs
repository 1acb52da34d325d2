//! The balancer: one per host, it knows every guest and container, decides who may hold how much memory, and
//! answers over REST.
//!
//! | module | question it answers |
//! |---|---|
//! | [`tree`] | which containers are there, under which limits? (pure) |
//! | [`pool`] | what do guests share, and who pays for it? |
//! | [`policy`] | who may hold how much? (pure) |
//! | [`simulator`] | what does the policy do to thousands of guests, for hours? (pure) |
//! | [`accounting`] | who pays for a frame? (pure) |
//! | [`journal`] | what survives a killed balancer? |
//! | [`ksm`] | what does the kernel merge, and whose? |
//! | [`damon`] | what did a guest use lately, by the kernel's word? |
//! | [`guests`] | what is known of a guest, and how does it register? |
//! | [`host`] | what does the kernel say about the host? |
//! | [`events`] | what happened? |
//! | [`engine`] | how does an event become a target? |
//! | [`image`] | what do guests share, and where is it kept? |
//! | [`models`] | how do the accounting systems compare? |
//! | [`api`] | how do clients ask? |
//! | [`daemon`] | how does a balancer start and end? |
//! | [`client`] | how does a program speak to the API? |
//! | [`cli`] | what does the command line offer? |

pub mod accounting;
pub mod api;
pub mod cli;
pub mod client;
pub mod daemon;
pub mod damon;
pub mod engine;
pub mod events;
pub mod guests;
pub mod host;
pub mod image;
pub mod journal;
pub mod ksm;
pub mod models;
pub mod policy;
pub mod pool;
pub mod simulator;
pub mod tree;
