//! EROFS, as far as images need it: written by hand, and read by hand to check it.
//!
//! Why not `mkfs.erofs`: its versions lay the same tree out differently, so that the digest would depend on the
//! machine; the one of Debian 12 (1.5) reads no tars, and sets no owners from them without root; and `balancer` is a
//! static program that needs no other. The format is small when nothing is compressed. It is described in Linux,
//! `fs/erofs/erofs_fs.h` and `Documentation/filesystems/erofs.rst`; these files follow Linux 6.1, the oldest that
//! guests have.
//!
//! ```text
//!   0      1024        1152                       block                block                        2 MiB
//!   | zero | super block | inodes, with attributes, | folders of a block | regular files, each begins | zeros |
//!   |      | 128 bytes   | short folders, links     | and more           | at a block: DAX serves it  |       |
//! ```
//!
//! * Every regular file is `FLAT_PLAIN`: Linux sets `S_DAX` for nothing else, silently (`fs/erofs/inode.c`). Folders
//!   and symbolic links are read through the guest's page cache in any case, so their ends lie behind their inodes
//!   (`FLAT_INLINE`) where they fit.
//! * All times are 0, as with `mkfs.erofs -T0`: a time says when a file came to a machine, not what the file is. A
//!   guest that builds software on an image sees files of 1970, which is older than whatever it writes.
//! * The volume's UUID is derived from the metadata (names, sizes, modes, places), because overlayfs gives stable inode
//!   numbers over several layers only if their UUIDs are there and differ.
//! * Files with equal contents do not share blocks: that would need their digests before their places, so a third
//!   reading of the source.

pub mod directory;
pub mod format;
pub mod plan;
pub mod read;
pub mod xattr;

pub use plan::{Place, Plan};
pub use read::Reader;

#[cfg(test)]
#[path = "erofs_test.rs"]
mod tests;
