//! The shared pool: file pages that guests share exist once, and a container is charged for each of them.
//!
//! ```text
//!   store --verify once--> library --descriptor--> guests: one read-only mapping each
//!                             |
//!                             v           residency (cachestat, mincore)
//!    bindings ----------> Pool: images <---------------------------------- page cache
//!                             |        <------------------------------ frame tables of guests: which pages each maps
//!                             v
//!             a ledger per image and trust domain: the host's accounting system, fed with changes
//!                             |
//!                             v
//!             charges by container: pages that no guest maps are charged to the pool's own container, /common
//! ```
//!
//! There are two backings. With `pagecache` every figure is sampled: it has an age, and an error that comes from the
//! tables of the guests. A dishonest table can have the wrong container charged, but the charges always sum to the
//! memory that the kernel reports as resident. With `managed` the balancer fills memory itself and is asked for every
//! granule: residency, the first user and the holders are known at every moment, and a budget is never exceeded.
//! `admission` says who needs that.
//!
//! | file | question it answers |
//! |---|---|
//! | `backing.rs` | what holds the pages of an image? A trait; `pagecache.rs` and `managed.rs` implement it |
//! | `granules.rs` | which parts of a managed image are in memory, and which guests hold them? |
//! | `admission/` | which guest gets a granule, and which granule is evicted for it? |
//! | `numbers.rs` | which numbers must not be mixed? |
//! | `page_set.rs` | how is a set of pages stored? |
//! | `sampling.rs` | what is to be sampled, and what follows from a sample? |
//! | `sample.rs` | which pages are resident, and which guests map them? |
//! | `ledger.rs` | which container is charged for which page of one image? |
//! | `image.rs` | what is known of an image in a trust domain, and of the guests that map it? |
//! | `images.rs` | which images are there, and which guests map them? |
//! | `costs.rs` | what is each container charged, and which part of it can be evicted? |
//! | `bindings.rs` | which container is charged for an image as a whole? |
//! | `library.rs` | may a guest have this image? |

mod admission;
mod backing;
mod bindings;
mod costs;
mod error;
mod granules;
mod image;
mod images;
mod ledger;
mod library;
mod managed;
mod numbers;
mod page_set;
mod pagecache;
mod sample;
mod sampling;

pub use admission::{Asked, Eviction, FILL_BURST, FILL_RATE, UNMAP_DEADLINE};
pub use backing::{PoolBacking, Stamp};
pub use bindings::{BINDINGS_MAX, Bindings, Subject, SubjectError};
pub use error::PoolError;
pub use granules::{GranuleState, Granules};
pub use image::{Backed, Key, PoolImage, Sharer};
pub use images::{IMAGES_OPEN_MAX, Pool};
pub use ledger::{ImageLedger, Seen};
pub use library::{Library, LibraryError, Opened};
pub use managed::{GRANULE_PAGES, Managed};
pub use numbers::{GranuleIndex, GuestSeq};
pub use page_set::PageSet;
pub use pagecache::Pagecache;
pub use sample::{Answer, Sampling};
