//! Running a guest out of memory on purpose, in a process that the OOM killer takes first.

use std::fs;
use std::io;

use crate::pattern;
use crate::region::Region;
use crate::reply::Reply;

/// The kernel's least and most killable (Documentation/filesystems/proc.rst, 3.1).
const NEVER: &str = "-1000";
const FIRST: &str = "1000";
/// The child's exit code when the kernel refused to map so much.
const REFUSED: i32 = 2;

/// Makes this process one that the OOM killer leaves alone: it holds what the test checks.
pub fn shield() -> io::Result<()> {
    fs::write("/proc/self/oom_score_adj", NEVER)
}

/// Lets a child fill `bytes` of memory and returns how it ended.
pub fn provoke(bytes: u64) -> io::Result<Reply> {
    // SAFETY: this program has one thread, so the child may do everything; it ends in `_exit`.
    let child = unsafe { libc::fork() };
    if child < 0 {
        return Err(io::Error::last_os_error());
    }
    if child == 0 {
        let code = consume(bytes);
        // SAFETY: ends the child without running the parent's exit handlers a second time.
        unsafe { libc::_exit(code) };
    }
    let mut status = 0;
    // SAFETY: `status` is a valid place to write to.
    while unsafe { libc::waitpid(child, &mut status, 0) } < 0 {
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    let signal = if libc::WIFSIGNALED(status) { libc::WTERMSIG(status) as u64 } else { 0 };
    let refused = libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == REFUSED;
    Ok(Reply::new().flag("survived", status == 0).flag("refused", refused).number("signal", signal))
}

fn consume(bytes: u64) -> i32 {
    // Without the right to be killed first the parent would be at risk: rather report a failure.
    if fs::write("/proc/self/oom_score_adj", FIRST).is_err() {
        return 1;
    }
    match Region::anonymous(bytes) {
        Ok(mut memory) => {
            pattern::fill(bytes, 0, memory.content_mut());
            0
        }
        Err(_) => REFUSED,
    }
}
