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
//! Everything here is sampled: a figure has its age, and an error that comes from the tables of the guests. What does not depend on
//! them does not depend on their honesty either: who pays may be wrong, but the charges sum to what the kernel says is resident.
//!
//! | file | question it answers |
//! |---|---|
//! | `backing.rs` | what holds the pages of an image? A trait; `pagecache.rs` is the backing there is |
//! | `page_set.rs` | which pages? |
//! | `sample.rs` | what does the host hold, and who maps it? |
//! | `ledger.rs` | who pays for which page of one image? |
//! | `images.rs` | which images are there, and what does all of it cost whom? |
//! | `bindings.rs` | who pays for an image as a whole? |
//! | `library.rs` | may a guest have this image? |
//! | `report.rs` | what is saved? |

mod backing;
mod bindings;
mod error;
mod images;
mod ledger;
mod library;
mod page_set;
mod pagecache;
mod report;
mod sample;

pub use backing::{PoolBacking, Stamp};
pub use bindings::{BINDINGS_MAX, Bindings, Subject, SubjectError};
pub use error::PoolError;
pub use images::{IMAGES_OPEN_MAX, Key, Pool, PoolImage, Sharer};
pub use ledger::{ImageLedger, Seen};
pub use library::{Library, LibraryError, Opened};
pub use page_set::PageSet;
pub use pagecache::Pagecache;
pub use report::{
    BindingObject, PoolGuestObject, PoolImageObject, PoolObject, PoolPayerObject, PoolShortfall, SharerObject,
};
pub use sample::{Answer, Plan};
