//! Waiting for one of several descriptors (poll(2)).

use rustix::event::Timespec;
use std::io;
use std::time::Duration;

pub use rustix::event::{PollFd, PollFlags};

/// Waits until one of these is ready, or the time is over; without a time until one is ready. Returns how many are
/// ready: 0 as well if a signal came first, so the caller asks its own clock.
///
/// # Errors
/// When the kernel refuses.
pub fn ready(fds: &mut [PollFd<'_>], timeout: Option<Duration>) -> io::Result<usize> {
    // A time that the kernel cannot count is for ever.
    let timeout = timeout.and_then(|time| Timespec::try_from(time).ok());
    match rustix::event::poll(fds, timeout.as_ref()) {
        Err(rustix::io::Errno::INTR) => Ok(0),
        result => Ok(result?),
    }
}

/// True if this descriptor is ready, hung up, or failed.
#[must_use]
pub fn is_ready(fd: &PollFd<'_>) -> bool {
    !fd.revents().is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::time::Instant;

    #[test]
    fn the_descriptor_that_can_be_read_ends_the_wait_and_so_does_the_time() {
        let (empty, _kept) = std::io::pipe().unwrap();
        let (reader, mut writer) = std::io::pipe().unwrap();
        let mut fds = [PollFd::new(&empty, PollFlags::IN), PollFd::new(&reader, PollFlags::IN)];
        let start = Instant::now();
        assert_eq!(ready(&mut fds, Some(Duration::from_micros(300))).unwrap(), 0);
        assert!(start.elapsed() >= Duration::from_micros(300));
        writer.write_all(b"x").unwrap();
        assert_eq!(ready(&mut fds, Some(Duration::MAX)).unwrap(), 1);
        assert_eq!(fds.each_ref().map(is_ready), [false, true]);
    }
}
