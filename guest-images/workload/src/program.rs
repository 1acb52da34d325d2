//! Programs of the root that is made of images, or of the initramfs where there is none.
//!
//! Each runs under a shell and in a session of its own, so that it can be ended with all that it started. What it
//! prints comes through a pipe that is only read while the host waits: the end of a longer output is kept, and a
//! program that prints more than a pipe holds (64 KiB) meanwhile blocks.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, kill_process_group, setsid};

use crate::reply::Reply;

/// Where the init script mounts the root.
const ROOT: &str = "/root";
/// There once it did.
const ROOT_SHELL: &str = "/root/bin/sh";
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin:/usr/lib/postgresql/15/bin";
/// Output kept; an answer must stay below what the host takes for a line.
const OUTPUT_BYTES_MAX: usize = 16 << 10;
/// How long a program may stay silent before its end is looked for again, ms.
const LOOK_EVERY_MS: u64 = 50;
/// How long a program that was killed may take to end.
const ENDS_WITHIN: Duration = Duration::from_secs(60);

/// A program that was started.
#[derive(Debug)]
pub struct Program {
    child: Child,
    output: File,
    printed: Vec<u8>,
    cut_bytes: u64,
}

impl Program {
    /// Starts `command` under a shell.
    pub fn start(command: &str) -> io::Result<Program> {
        let (reader, writer) = pipe()?;
        let in_root = fs::exists(ROOT_SHELL).unwrap_or(false);
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", command]).env_clear().env("PATH", PATH).env("HOME", "/").env("LC_ALL", "C.UTF-8");
        shell.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
        // SAFETY: this program has one thread, so that the child may do everything before it becomes the shell.
        unsafe { shell.pre_exec(move || prepare(in_root)) };
        let child = shell.spawn()?;
        Ok(Program { child, output: reader.into(), printed: Vec::new(), cut_bytes: 0 })
    }

    /// Waits for its end, `within` at most. `None`: it runs on.
    pub fn wait(&mut self, within: Duration) -> io::Result<Option<ExitStatus>> {
        let end = Instant::now() + within;
        loop {
            let ended = self.child.try_wait()?;
            // After the look: what a program printed before it ended is there. What it left running may hold the pipe
            // open for ever.
            self.read_what_is_there()?;
            if ended.is_some() || Instant::now() >= end {
                return Ok(ended);
            }
            let left = end.saturating_duration_since(Instant::now()).as_millis() as u64;
            self.sleep(left.min(LOOK_EVERY_MS))?;
        }
    }

    /// Ends it with all that it started.
    pub fn kill(&mut self) -> io::Result<Option<ExitStatus>> {
        if self.child.try_wait()?.is_none() {
            // A child that was not waited for yet keeps its id, which names its session.
            kill_process_group(Pid::from_child(&self.child), Signal::KILL)?;
        }
        self.wait(ENDS_WITHIN)
    }

    /// `ended`, `code` (128 + signal as in a shell), `output` (its end), `cut_bytes` (what came before).
    pub fn reply(&self, status: Option<ExitStatus>) -> Reply {
        let code = status
            .map_or(0, |status| status.code().or(status.signal().map(|signal| 128 + signal)).unwrap_or(0));
        Reply::new()
            .flag("ended", status.is_some())
            .number("code", code as u64)
            .text("output", &String::from_utf8_lossy(&self.printed))
            .number("cut_bytes", self.cut_bytes)
    }

    /// Waits until something is printed or so much time has passed.
    fn sleep(&self, ms: u64) -> io::Result<()> {
        let timeout = Timespec { tv_sec: 0, tv_nsec: ms as i64 * 1_000_000 };
        let mut output = [PollFd::new(&self.output, PollFlags::IN)];
        poll(&mut output, Some(&timeout))?;
        let happened = output[0].revents();
        if !happened.is_empty() && !happened.contains(PollFlags::IN) {
            // No process has the pipe open any more and the program lives: the poll returned at once.
            std::thread::sleep(Duration::from_millis(ms));
        }
        Ok(())
    }

    fn read_what_is_there(&mut self) -> io::Result<()> {
        let mut buffer = [0; 4096];
        // Bounded: a program that prints without end must not keep the agent from its deadline.
        for _ in 0..64 {
            match self.output.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => self.keep(&buffer[..n]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn keep(&mut self, printed: &[u8]) {
        self.printed.extend_from_slice(printed);
        let surplus = self.printed.len().saturating_sub(OUTPUT_BYTES_MAX);
        self.printed.drain(..surplus);
        self.cut_bytes += surplus as u64;
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // A program that ended, or cannot be ended: nothing is left to do about it.
        let _ = self.kill();
    }
}

/// Runs `command` to its end; one that takes longer than `within` is ended, which is an error.
pub fn run(command: &str, within: Duration) -> Result<Reply, String> {
    let failed = |error: io::Error| format!("run: {error}");
    let mut program = Program::start(command).map_err(failed)?;
    match program.wait(within).map_err(failed)? {
        Some(status) => Ok(program.reply(Some(status))),
        None => {
            program.kill().map_err(failed)?;
            let printed = String::from_utf8_lossy(&program.printed).into_owned();
            Err(format!("run: ended after {} ms; it printed: {printed}", within.as_millis()))
        }
    }
}

/// In the child: a session of its own, mortal, and inside of the root.
fn prepare(in_root: bool) -> io::Result<()> {
    setsid()?;
    // The agent is shielded from the OOM killer, and what it starts would be as well. Not allowed to unprivileged
    // tests.
    let _ = fs::write("/proc/self/oom_score_adj", "0");
    if in_root {
        std::os::unix::fs::chroot(ROOT)?;
    }
    std::env::set_current_dir("/")
}

/// A pipe whose reading end does not wait.
fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
    // The flag belongs to this end; the writing end keeps waiting.
    fcntl_setfl(&reader, OFlags::NONBLOCK)?;
    Ok((reader, writer))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reply::line;

    /// More than any command here takes.
    const LONG: Duration = Duration::from_secs(600);

    fn said(outcome: &Result<Reply, String>) -> String {
        line(1, outcome)
    }

    #[test]
    fn output_and_code_come_back() {
        let said = said(&run("echo out; echo err >&2; exit 7", LONG));
        assert!(
            said.contains("\"ended\":true,\"code\":7,\"output\":\"out\\u000aerr\\u000a\",\"cut_bytes\":0"),
            "{said}"
        );
        assert!(super::tests::said(&run("kill -9 $$", LONG)).contains("\"code\":137"));
    }

    #[test]
    fn the_end_of_a_long_output_is_kept() {
        let said = said(&run("seq 1 20000", LONG));
        assert!(said.contains("19999\\u000a20000\\u000a\""), "{}", said.len());
        assert!(said.contains("\"cut_bytes\":92510"), "{}", &said[said.len() - 60..]);
    }

    #[test]
    fn a_program_that_takes_too_long_is_ended_with_all_that_it_started() {
        let began = Instant::now();
        let error = run("echo begun; sleep 100 | sleep 100", Duration::from_millis(200)).unwrap_err();
        assert!(error.contains("ended after 200 ms; it printed: begun"), "{error}");
        assert!(began.elapsed() < Duration::from_secs(100), "the programs ended by themselves");
    }

    #[test]
    fn a_program_in_the_background_does_not_delay_the_answer() {
        let began = Instant::now();
        assert!(said(&run("sleep 60 & echo $!", LONG)).contains("\"code\":0"));
        assert!(began.elapsed() < Duration::from_secs(60), "the program ended by itself");
    }

    #[test]
    fn a_started_program_is_waited_for_in_turns() {
        let mut program = Program::start("echo one; sleep 1; echo two").unwrap();
        let early = program.wait(Duration::from_millis(100)).unwrap();
        assert!(line(1, &Ok(program.reply(early))).contains("\"ended\":false"));
        let late = program.wait(LONG).unwrap();
        assert!(line(1, &Ok(program.reply(late))).contains("\"output\":\"one\\u000atwo\\u000a\""));
    }
}
