//! One guest: what it needs, whether it is short of memory, whether it does what it is asked, and what it may hold by
//! the containers that it charges.

pub(crate) mod ceiling;
pub(crate) mod health;
pub(crate) mod needs;
pub(crate) mod stress;
