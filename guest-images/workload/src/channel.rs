//! The console port: set raw, read line by line.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::termios::{OptionalActions, tcdrain, tcgetattr, tcsetattr};

use crate::command::parse;
use crate::machine;
use crate::reply;
use crate::session::Session;

/// A longer line is not a command.
const LINE_BYTES_MAX: u64 = 4096;
/// How long the port may take to appear after its driver was loaded.
const APPEARS_WITHIN: Duration = Duration::from_secs(60);

/// Answers requests that come over the device at `path` until the other side is gone.
pub fn serve_device(path: &Path) -> io::Result<()> {
    let device = open(path)?;
    set_raw(&device)?;
    let mut output = device.try_clone()?;
    serve(BufReader::new(&device), &mut output, || {
        // Waits until what was written has left the guest. The machine ends in any case.
        let _ = tcdrain(&device);
    })
}

/// Answers requests from `input` on `output`. `drain` waits until the output was delivered.
pub fn serve(mut input: impl BufRead, output: &mut impl Write, drain: impl Fn()) -> io::Result<()> {
    let mut session = Session::default();
    let mut line = Vec::new();
    loop {
        line.clear();
        if input.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&line);
        let text = text.trim();
        if text.is_empty() {
            continue;
        }
        let (id, (outcome, end)) = match parse(text) {
            Ok((id, command)) => (id, session.execute(&command)),
            Err((id, problem)) => (id, (Err(problem), None)),
        };
        output.write_all(reply::line(id, &outcome).as_bytes())?;
        output.flush()?;
        if let Some(end) = end {
            drain();
            machine::end(end)?;
        }
    }
}

/// Opens a console port, which may take a while to appear.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    let deadline = Instant::now() + APPEARS_WITHIN;
    loop {
        match OpenOptions::new().read(true).write(true).open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(20));
            }
            opened => return opened,
        }
    }
}

/// No echo, no line editing, no translation: what a terminal would do to people's input.
pub(crate) fn set_raw(device: &File) -> io::Result<()> {
    let mut terminal = tcgetattr(device)?;
    terminal.make_raw();
    Ok(tcsetattr(device, OptionalActions::Now, &terminal)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(input: &[u8]) -> Vec<String> {
        let mut output = Vec::new();
        serve(input, &mut output, || ()).unwrap();
        String::from_utf8(output).unwrap().lines().map(String::from).collect()
    }

    #[test]
    fn each_line_gets_one_answer() {
        let answers = answers(b"\n1 ping\n\r\n2 nonsense\n3 idle 0");
        assert_eq!(answers.len(), 3);
        assert!(answers[0].starts_with("{\"id\":1,\"ok\":true"));
        assert!(answers[1].starts_with("{\"id\":2,\"ok\":false"));
        assert_eq!(answers[2], "{\"id\":3,\"ok\":true}");
    }

    #[test]
    fn noise_is_answered_and_never_fatal() {
        let mut noise: Vec<u8> = (0..=255).collect();
        noise.extend([b'x'; 10_000]);
        noise.extend(b"\n9 ping\n");
        let answers = answers(&noise);
        assert!(answers.last().unwrap().starts_with("{\"id\":9,\"ok\":true"));
        assert!(answers[..answers.len() - 1].iter().all(|line| line.contains("\"ok\":false")));
    }
}
