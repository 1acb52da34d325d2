//! Where the serial console writes: a file or a pipe that may fail, which the guest must not notice and the user must.

use std::io::{self, Write};

/// A writer that tells once of a failure. What it could not write is lost; what comes later is tried again.
pub(super) struct ConsoleOutput<W> {
    out: W,
    name: String,
    told: bool,
}

impl<W: Write> ConsoleOutput<W> {
    pub(super) fn new(out: W, name: String) -> Self {
        Self { out, name, told: false }
    }

    fn tell<T>(&mut self, result: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &result
            && !std::mem::replace(&mut self.told, true)
        {
            tracing::warn!(
                "Cannot write the console's output to {}, what the guest says is lost: {error}",
                self.name
            );
        }
        result
    }
}

impl<W: Write> Write for ConsoleOutput<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let result = self.out.write(bytes);
        self.tell(result)
    }

    fn flush(&mut self) -> io::Result<()> {
        let result = self.out.flush();
        self.tell(result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_of_once_and_tried_again() {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let mut output = ConsoleOutput::new(full, "/dev/full".into());
        assert!(!output.told);
        for _ in 0..3 {
            assert_eq!(output.write(b"x").unwrap_err().raw_os_error(), Some(libc::ENOSPC));
            assert!(output.told);
        }
        output.out = std::fs::File::options().write(true).open("/dev/null").unwrap();
        assert_eq!(output.write(b"x").unwrap(), 1);
    }
}
