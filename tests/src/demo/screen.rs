//! What the guests hold, shown once a second: one table drawn over and over on a terminal, a line each time in a pipe.

use super::{MEMBERS, MIB, together_bytes};
use crate::http;
use anyhow::{Context, Result, ensure};
use balancer::objects::{ContainerObject, GuestObject};
use std::fmt::Write;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const INTERVAL: Duration = Duration::from_secs(1);
/// A bar's cell stands for so much.
const CELL_BYTES: u64 = 16 * MIB;

/// What was seen in total.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Seen {
    /// Samples of all guests.
    pub samples: u64,
    /// Most that all three held together, bytes.
    pub peak_bytes: u64,
}

/// Shows the guests until it is stopped.
pub(crate) struct Screen {
    shared: Arc<Mutex<Shared>>,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<Result<Seen>>>,
}

struct Shared {
    live: bool,
    started: Instant,
    /// Lines of the table that is on the terminal.
    drawn: usize,
}

impl Screen {
    /// Starts to show the guests of this balancer.
    pub(crate) fn start(api: PathBuf, live: bool) -> Self {
        let shared = Arc::new(Mutex::new(Shared { live, started: Instant::now(), drawn: 0 }));
        let (stop, stopped) = channel();
        let screen = Arc::clone(&shared);
        let thread = std::thread::spawn(move || watch(&api, &screen, &stopped));
        Self { shared, stop: Some(stop), thread: Some(thread) }
    }

    /// Says what happens next.
    pub(crate) fn say(&self, text: &str) {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let at = shared.started.elapsed().as_secs_f64();
        shared.print(&format!("\n[{at:5.1} s] {text}\n"), "");
    }

    /// Shows a command as a user types it, and what it printed.
    pub(crate) fn typed(&self, command: &str, printed: &str) {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let lines: Vec<String> =
            printed.lines().map(|line| format!("    {line}").trim_end().to_owned()).collect();
        shared.print(&format!("  $ {command}\n{}\n", lines.join("\n")), "");
    }

    /// Stops and returns what was seen.
    pub(crate) fn stop(mut self) -> Result<Seen> {
        drop(self.stop.take());
        let thread = self.thread.take().context("it runs until here")?;
        thread.join().map_err(|_| anyhow::anyhow!("The display broke"))?
    }
}

impl Shared {
    /// Prints text above the table, and the table again.
    fn print(&mut self, text: &str, table: &str) {
        let up = if self.drawn > 0 { format!("\x1b[{}A\x1b[J", self.drawn) } else { String::new() };
        print!("{up}{text}{table}");
        // The lines travel through pipes and a serial port: each must be whole.
        let _ = std::io::Write::flush(&mut std::io::stdout());
        self.drawn = if self.live { table.lines().count() } else { 0 };
    }
}

fn watch(api: &std::path::Path, shared: &Mutex<Shared>, stopped: &Receiver<()>) -> Result<Seen> {
    let mut seen = Seen::default();
    while stopped.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
        let guests: Vec<GuestObject> = http::request(api, "GET", "/v1/guests", None)?.read()?;
        let containers: Vec<ContainerObject> = http::request(api, "GET", "/v1/containers", None)?.read()?;
        let rows = MEMBERS
            .iter()
            .filter_map(|member| Row::of(member.name, &guests, &containers))
            .collect::<Vec<_>>();
        if rows.is_empty() {
            continue;
        }
        for guest in &guests {
            ensure!(guest.frames.untiled == 0, "A frame is in no state: {guest:?}");
        }
        let sum: u64 = rows.iter().map(|row| row.held).sum();
        seen.samples += 1;
        seen.peak_bytes = seen.peak_bytes.max(sum);
        let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
        let at = shared.started.elapsed().as_secs_f64();
        let text = if shared.live { table(&rows, sum) } else { line(at, &rows, sum) };
        shared.print("", &text);
    }
    Ok(seen)
}

/// A guest now, amounts in bytes.
#[derive(Debug)]
struct Row {
    name: &'static str,
    max: u64,
    target: u64,
    held: u64,
    used: Option<u64>,
}

impl Row {
    fn of(name: &'static str, guests: &[GuestObject], containers: &[ContainerObject]) -> Option<Self> {
        let guest = guests.iter().find(|guest| guest.name == name)?;
        let container = containers.iter().find(|container| container.path == guest.container)?;
        Some(Self {
            name,
            max: container.limits.max_bytes?,
            target: guest.target_bytes,
            held: guest.usage_bytes,
            used: guest.used_bytes,
        })
    }
}

fn line(at: f64, rows: &[Row], sum: u64) -> String {
    let mut text = format!("[{at:5.1} s]");
    for row in rows {
        let used = row.used.map_or("-".into(), |used| (used / MIB).to_string());
        let (name, held, max) = (row.name, row.held / MIB, row.max / MIB);
        write!(text, "  {name} holds {held}M of {max}M (uses {used}M)").expect("a string takes it");
    }
    writeln!(text, "  all {}M of {}M", sum / MIB, together_bytes() / MIB).expect("a string takes it");
    text
}

fn table(rows: &[Row], sum: u64) -> String {
    let mut text = format!(
        "  {:<6} {:>6} {:>7} {:>7} {:>7}   # held by the host, | the limit; one cell is {}M\n",
        "guest",
        "limit",
        "target",
        "held",
        "used",
        CELL_BYTES / MIB
    );
    for row in rows {
        let used = row.used.map_or("-".into(), |used| format!("{}M", used / MIB));
        writeln!(
            text,
            "  {:<6} {:>5}M {:>6}M {:>6}M {:>7}   {}",
            row.name,
            row.max / MIB,
            row.target / MIB,
            row.held / MIB,
            used,
            bar(row.held, row.max)
        )
        .expect("a string takes it");
    }
    writeln!(
        text,
        "  {:<6} {:>5}M {:>7} {:>6}M {:>7}   {}",
        "all",
        together_bytes() / MIB,
        "",
        sum / MIB,
        "",
        bar(sum, together_bytes())
    )
    .expect("a string takes it");
    text
}

/// `######..|`: held, and the limit.
fn bar(held: u64, max: u64) -> String {
    let cells = |bytes: u64| usize::try_from(bytes.div_ceil(CELL_BYTES)).unwrap_or(0).min(100);
    let (held, max) = (cells(held), cells(max));
    let mut bar: String = "#".repeat(held.min(max)) + &".".repeat(max.saturating_sub(held));
    bar.push('|');
    bar + &"#".repeat(held.saturating_sub(max))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_shows_what_is_held_beside_the_limit() {
        assert_eq!(bar(32 * MIB, 64 * MIB), "##..|");
        assert_eq!(bar(80 * MIB, 64 * MIB), "####|#");
        assert_eq!(bar(0, 0), "|");
    }
}
