//! The shared pool: file pages that guests share exist once, and somebody pays for them.
//!
//! ```text
//!   store --verify once--> library --descriptor--> guests: one read-only mapping each
//!                             |
//!                             v           residency (cachestat, mincore)
//!    bindings ----------> Pool: images <---------------------------------- page cache
//!                             |        <---------------------------------- frame tables of guests: who maps what
//!                             v
//!             a ledger per image and trust domain: the host's accounting system, fed with what changed
//!                             |
//!                             v
//!             charges by container: what nobody maps is the pool's own container's, /common
//! ```
//!
//! There are two backings. With `pagecache` everything here is sampled: a figure has its age, and an error that comes from the
//! tables of the guests. What does not depend on them does not depend on their honesty either: who pays may be wrong, but the
//! charges sum to what the kernel says is resident.
//! With `managed` the balancer fills memory itself and is asked for every granule: what is resident, who came first and who
//! holds it is known, and a budget is never exceeded.
//!
//! | file | question it answers |
//! |---|---|
//! | `backing.rs` | what holds the pages of an image? A trait; `pagecache.rs` and `managed.rs` are the backings |
//! | `granules.rs` | which parts of a managed image are in memory, and who holds them? |
//! | `admission.rs` | who gets a granule, and what goes for it? |
//! | `page_set.rs` | which pages? |
//! | `looks.rs` | what is to be looked at, and what follows from what was seen? |
//! | `sample.rs` | what does the host hold, and who maps it? |
//! | `ledger.rs` | who pays for which page of one image? |
//! | `image.rs` | what is known of an image in a trust domain, and of who maps it? |
//! | `images.rs` | which images are there, and who maps them? |
//! | `costs.rs` | what does all of it cost whom, and what of it can go? |
//! | `bindings.rs` | who pays for an image as a whole? |
//! | `library.rs` | may a guest have this image? |
//! | `report.rs` | what is saved? |

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
mod looks;
mod managed;
mod page_set;
mod pagecache;
mod sample;

pub use admission::{Asked, FILL_BURST, FILL_RATE, LetGo, UNMAP_DEADLINE};
pub use backing::{PoolBacking, Stamp};
pub use bindings::{BINDINGS_MAX, Bindings, Subject, SubjectError};
pub use error::PoolError;
pub use granules::{Granules, Place};
pub use image::{Backed, Key, PoolImage, Sharer};
pub use images::{IMAGES_OPEN_MAX, Pool};
pub use ledger::{ImageLedger, Seen};
pub use library::{Library, LibraryError, Opened};
pub use managed::{GRANULE_PAGES, Managed};
pub use page_set::PageSet;
pub use pagecache::Pagecache;
pub use sample::{Answer, Plan};
