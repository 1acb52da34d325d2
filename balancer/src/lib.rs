//! The balancer: one per host, it knows every guest and container, decides who may hold how much memory, and
//! answers over REST.
//!
//! | module | question it answers |
//! |---|---|
//! | [`tree`] | which containers are there, under which limits? (pure) |
//! | [`pool`] | what do guests share, and who pays for it? |
//! | [`journal`] | what survives a killed balancer? |
//! | [`events`] | what happened? |
//! | [`api`] | how do clients ask? |
//! | [`daemon`] | how does a balancer start and end? |
//! | [`client`] | how does a program speak to the API? |
//! | [`cli`] | what does the command line offer? |

#![deny(unsafe_code)]

pub mod api;
pub mod cli;
pub mod client;
pub mod daemon;
pub mod events;
pub mod guests;
pub mod journal;
pub mod pool;
mod readiness;
pub mod sessions;
pub mod state;
pub mod tree;
