//! `workload --channel DEVICE` answers commands; `workload load MIB [SECONDS]` holds memory without any
//! channel; `workload exit-machine CODE` ends the outer machine. Called as `poweroff` or `reboot` it does that.

use std::env;
use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use workload::hold::Hold;
use workload::machine::{self, End};
use workload::{channel, oom};

const USAGE: &str = "usage: workload --channel DEVICE | load MIB [SECONDS] | exit-machine CODE";
/// Exit code for arguments that make no sense (as shells use it).
const BAD_USAGE: u8 = 2;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let called_as = words.first().and_then(|path| path.rsplit('/').next()).unwrap_or_default();
    let result = match (called_as, words.get(1..).unwrap_or_default()) {
        ("poweroff", _) => machine::end(End::PowerOff),
        ("reboot", _) => machine::end(End::Reboot),
        (_, ["--channel", device]) => serve(Path::new(device)),
        (_, ["load", mib]) => load(mib, "0"),
        (_, ["load", mib, seconds]) => load(mib, seconds),
        (_, ["exit-machine", code]) => parsed(code).and_then(machine::exit_outer),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, USAGE)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("workload: {error}");
            let bad_usage = error.kind() == io::ErrorKind::InvalidInput;
            if bad_usage { ExitCode::from(BAD_USAGE) } else { ExitCode::FAILURE }
        }
    }
}

fn serve(device: &Path) -> io::Result<()> {
    oom::shield()?;
    channel::serve_device(device)
}

/// Holds so many MiB for so many seconds; 0 seconds mean for ever.
fn load(mib: &str, seconds: &str) -> io::Result<()> {
    let (mib, seconds): (u64, u64) = (parsed(mib)?, parsed(seconds)?);
    let hold = Hold::pattern(mib.saturating_mul(1 << 20), mib)?;
    println!("BALLAST-LOAD holds {}", hold.memory().bytes());
    if seconds == 0 {
        loop {
            thread::park();
        }
    }
    thread::sleep(Duration::from_secs(seconds));
    let bytes = hold.memory().bytes();
    drop(hold);
    println!("BALLAST-LOAD freed {bytes}");
    Ok(())
}

fn parsed<T: std::str::FromStr>(word: &str) -> io::Result<T> {
    let problem =
        || io::Error::new(io::ErrorKind::InvalidInput, format!("{word:?} is not a number in range"));
    word.parse().map_err(|_| problem())
}
