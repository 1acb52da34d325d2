//! Where the serial console writes: a file or a pipe that may fail, which the guest must not notice and the user must.

use std::io::{self, Write};

/// A writer that logs its first failure. What it could not write is lost; it tries again with what comes later.
pub(super) struct ConsoleOutput<W> {
    out: W,
    name: String,
    is_logged: bool,
}

impl<W: Write> ConsoleOutput<W> {
    pub(super) fn new(out: W, name: String) -> Self {
        Self { out, name, is_logged: false }
    }

    fn log<T>(&mut self, result: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &result
            && !std::mem::replace(&mut self.is_logged, true)
        {
            tracing::warn!(
                "Cannot write the console's output to {}, the output of the guest is lost: {error}",
                self.name
            );
        }
        result
    }
}

impl<W: Write> Write for ConsoleOutput<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let result = self.out.write(bytes);
        self.log(result)
    }

    fn flush(&mut self) -> io::Result<()> {
        let result = self.out.flush();
        self.log(result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_logged_once_and_the_next_write_is_tried() {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let mut output = ConsoleOutput::new(full, "/dev/full".into());
        assert!(!output.is_logged);
        for _ in 0..3 {
            assert_eq!(output.write(b"x").unwrap_err().raw_os_error(), Some(libc::ENOSPC));
            assert!(output.is_logged);
        }
        output.out = std::fs::File::options().write(true).open("/dev/null").unwrap();
        assert_eq!(output.write(b"x").unwrap(), 1);
    }
}
