//! Many processes on one image, without guests and without KVM: what one more of them costs the host.
//!
//! The test starts itself as each of the processes, which map the image as a `vmm` does and read every byte of it as a
//! device would. The image is built by `balancer image build`.

use anyhow::{Context, Result, ensure};
use e2e::host::program;
use libtest_mimic::{Arguments, Failed, Trial};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use vm_memory::{Bytes, GuestAddress};
use vmm::memory::{Images, Ram, images};

#[path = "../vmm/tests/support/cgroup.rs"]
#[allow(clippy::unwrap_used, reason = "tests")]
mod cgroup;

const MIB: u64 = 1 << 20;
const PROCESSES: usize = 32;
/// What is generated; the image is a little larger.
const CONTENT_BYTES: u64 = 208 * MIB;
/// What one more process may cost: this part of the image.
const SHARE_MAX: f64 = 0.02;
/// First argument of a process that maps an image, before the image.
const AS_PROCESS: &str = "map-an-image";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [word, image] = &words[..]
        && word == AS_PROCESS
    {
        return match be_a_process(Path::new(image)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error:#}");
                ExitCode::FAILURE
            }
        };
    }
    let name = "32 processes on one image of 200 MiB: one more costs the host at most 2 % of it";
    let test = move || skip::named(name, one_more_costs_next_to_nothing).map_err(Failed::from);
    libtest_mimic::run(&Arguments::from_args(), vec![Trial::test(name, test)]).exit_code()
}

/// Maps the image, reads it, says what it read, and stays until its input ends.
fn be_a_process(image: &Path) -> Result<()> {
    let ram = Ram::new(2 * MIB)?;
    images::install()?;
    let mapped = Images::map(vec![images::open_path(image)?], ram.end())?;
    let memory = mapped.beside(ram.guest())?;
    let (mut buffer, mut sum) = (vec![0u8; 1 << 20], 0u64);
    for at in (0..mapped.bytes()).step_by(buffer.len()) {
        memory.read_slice(&mut buffer, GuestAddress(ram.end() + at))?;
        for word in buffer.chunks_exact(8) {
            sum = sum.rotate_left(5) ^ u64::from_le_bytes(word.try_into().expect("chunks of 8"));
        }
    }
    println!("{sum:016x}");
    std::io::stdout().flush()?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// A process with the image mapped and read; it ends with this.
struct Process(Child);

impl Process {
    fn start(image: &Path) -> Result<(Self, String)> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg(AS_PROCESS)
            .arg(image)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let output = child.stdout.take().context("it was piped")?;
        let process = Self(child);
        let mut sum = String::new();
        BufReader::new(output).read_line(&mut sum)?;
        ensure!(sum.len() == 17, "a process ended early: {sum:?}");
        Ok((process, sum))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Bytes of one process, or of all of them.
#[derive(Debug, Default, Clone, Copy)]
struct Costs {
    /// Of the image: mapped, its part of what is mapped by many, and not shared with anybody.
    rss: u64,
    pss: u64,
    private_dirty: u64,
    /// Page tables of the process.
    page_tables: u64,
    mappings: u64,
}

fn costs(pid: u32, image: &Path) -> Result<Costs> {
    let mut costs = Costs::default();
    let mut inside = false;
    let kib = |line: &str| line.split_ascii_whitespace().nth(1).and_then(|word| word.parse::<u64>().ok());
    for line in fs::read_to_string(format!("/proc/{pid}/smaps"))?.lines() {
        let first = line.split_ascii_whitespace().next().unwrap_or_default();
        if first.contains('-') && !first.ends_with(':') {
            inside = line.ends_with(&image.display().to_string());
            costs.mappings += u64::from(inside);
        }
        let figure = match first {
            "Rss:" => &mut costs.rss,
            "Pss:" => &mut costs.pss,
            "Private_Dirty:" => &mut costs.private_dirty,
            _ => continue,
        };
        if inside {
            *figure += kib(line).context("a figure of smaps")? * 1024;
        }
    }
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with("VmPTE:")).context("VmPTE")?;
    costs.page_tables = kib(line).context("VmPTE")? * 1024;
    Ok(costs)
}

fn sum(processes: &[Process], image: &Path) -> Result<Costs> {
    processes.iter().try_fold(Costs::default(), |sum, process| {
        let one = costs(process.0.id(), image)?;
        ensure!(one.mappings == 1 && one.private_dirty == 0, "one mapping, nothing of its own: {one:?}");
        Ok(Costs {
            rss: sum.rss + one.rss,
            pss: sum.pss + one.pss,
            page_tables: sum.page_tables + one.page_tables,
            ..sum
        })
    })
}

/// An image of generated files, none like another, made by the program that users have.
fn build(dir: &Path) -> Result<PathBuf> {
    let (tree, store) = (dir.join("tree"), dir.join("store"));
    fs::create_dir(&tree)?;
    let mut word = 0x9e37_79b9_7f4a_7c15u64;
    for index in 0..CONTENT_BYTES / (2 * MIB) {
        let mut bytes = Vec::with_capacity(2 << 20);
        while bytes.len() < 2 << 20 {
            // xorshift64: nothing in it can be merged or compressed.
            word ^= word << 13;
            word ^= word >> 7;
            word ^= word << 17;
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        File::create(tree.join(format!("{index:03}")))?.write_all(&bytes)?;
    }
    let output = Command::new(program("balancer"))
        .args(["image", "build", "--store"])
        .arg(&store)
        .arg(&tree)
        .output()?;
    let told = String::from_utf8(output.stdout)?;
    ensure!(output.status.success(), "balancer image build: {}", String::from_utf8_lossy(&output.stderr));
    let hex = told.trim().strip_prefix("sha256:").context("the digest of an image")?;
    Ok(store.join(format!("images/{hex}.erofs")))
}

fn one_more_costs_next_to_nothing() -> Result<()> {
    let dir = tempfile::Builder::new().prefix("ballast-").tempdir()?;
    let image = build(dir.path())?;
    let bytes = fs::metadata(&image)?.len();
    ensure!(bytes >= 200 * MIB, "{bytes}");
    // From here on this process and those that it starts are charged apart, where there is a memory cgroup.
    let group = cgroup::Group::enter();
    let charged = || group.as_ref().map(cgroup::Group::usage_bytes);

    let (first, content) = Process::start(&image)?;
    let mut processes = vec![first];
    let (alone, charge_alone) = (sum(&processes, &image)?, charged());
    ensure!(alone.rss == bytes && alone.pss == bytes, "one process has all of it mapped: {alone:?}");
    while processes.len() < PROCESSES {
        let (process, found) = Process::start(&image)?;
        ensure!(found == content, "process {} read other bytes", processes.len());
        processes.push(process);
    }
    let (together, charge) = (sum(&processes, &image)?, charged());
    ensure!(together.rss == bytes * PROCESSES as u64, "all have all of it mapped: {together:?}");

    let more = (PROCESSES - 1) as f64;
    let part = |after: u64, before: u64| after.saturating_sub(before) as f64 / more / bytes as f64;
    // The kernel rounds each process's part to KiB.
    let (pages, tables) = (part(together.pss, alone.pss), part(together.page_tables, alone.page_tables));
    println!("An image of {} MiB, each more of {PROCESSES} processes, all of it read:", bytes / MIB);
    println!("  pages of the image {:.4} %, page tables {:.4} % of it", pages * 100.0, tables * 100.0);
    ensure!(pages + tables <= SHARE_MAX, "{together:?} {alone:?}");
    match charge_alone.zip(charge) {
        Some((before, after)) => {
            let all = part(after, before);
            println!("  all that it is charged, its stacks and heap too: {:.4} % of it", all * 100.0);
            ensure!(all <= SHARE_MAX, "{before} {after}");
        }
        None => skip::skip!(MemoryCgroup, "the charge of the memory cgroup is not compared"),
    }
    Ok(())
}
