//! What a guest finds in its memory when it starts: kernel, initrd, command line, zero page, ACPI tables.

pub mod acpi;
pub mod check;
pub mod cmdline;
pub mod kernel;
pub mod zero_page;
