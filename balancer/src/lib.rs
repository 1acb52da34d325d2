//! The balancer: one per host. It knows every guest and container, decides how much memory each guest may hold, and
//! answers over REST.
//!
//! The rooms in their order: each uses only rooms above it in this table.
//!
//! | room | question it answers |
//! |---|---|
//! | [`objects`] | what do clients send and receive? |
//! | [`events`] | what happened? |
//! | [`tree`] | which containers are there, under which limits? (pure) |
//! | [`pool`] | what do guests share, and which container is charged for it? |
//! | [`journal`] | what survives a killed balancer? |
//! | [`guests`] | what is known of one guest? |
//! | [`state`] | what is the state of all of it, and what changes it? |
//! | [`sessions`] | how does a guest register, and what does its connection carry? |
//! | [`api`] | how do clients ask? |
//! | [`daemon`] | how does a balancer start and end? |
//! | [`client`] | how does a program use the API? |
//! | [`cli`] | what does the command line offer? |

#![deny(unsafe_code)]

pub mod api;
pub mod cli;
pub mod client;
pub mod daemon;
pub mod events;
pub mod guests;
pub mod journal;
pub mod objects;
pub mod pool;
mod readiness;
pub mod sessions;
pub mod state;
pub mod tree;
