//! How long it takes from a stall of the host to targets: the kernel's trigger, the decision, the messages.
//!
//! Memory stalls are made by a program in a small memory cgroup, which reads a file larger than that: they count for
//! the host as any others do. `cargo test --release -p balancer --test daemon -- --ignored --nocapture stall`

use crate::support::{Daemon, Vmm, about, run_dir};
use protocol::message::ToVmm;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const GUESTS: usize = 200;
const STEPS: usize = 15;
/// As the balancer asks for it: the second, which the kernel checks every 2 s, where the first is not allowed (no
/// `CAP_SYS_RESOURCE`).
const TRIGGERS: [&str; 2] = ["some 50000 500000\0", "some 200000 2000000\0"];
const FILE: &str = "/proc/pressure/memory";
/// After this long without a stall the reserve is as usual again, and a tick has seen it. The kernel may report a stall
/// 2 s late.
const QUIET: Duration = Duration::from_millis(11_000);

/// A memory cgroup of 16 MiB.
struct Small(PathBuf);

impl Small {
    fn new() -> Option<Self> {
        for (root, limit) in
            [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")]
        {
            let dir = PathBuf::from(root).join(format!("ballast-stall-{}", std::process::id()));
            if fs::create_dir(&dir).is_err() {
                continue;
            }
            let group = Self(dir);
            if fs::write(group.0.join(limit), "16M").is_ok() {
                return Some(group);
            }
        }
        None
    }

    /// Stalls until it is killed.
    fn stall(&self, file: &str) -> Child {
        let script = format!(
            "echo $$ > {}/cgroup.procs; dd if=/dev/zero of={file} bs=1M count=96 2> /dev/null; \
             while :; do cat {file} {file}; done",
            self.0.display()
        );
        let mut command = Command::new("sh");
        command.args(["-c", &script]).stdout(Stdio::null()).process_group(0);
        command.spawn().unwrap()
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        for _ in 0..50 {
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// The kernel's trigger, seen by this process for itself.
fn trigger() -> Option<(File, &'static str)> {
    TRIGGERS.into_iter().find_map(|text| {
        let mut file = OpenOptions::new().read(true).write(true).open(FILE).ok()?;
        file.write_all(text.as_bytes()).ok()?;
        Some((file, text))
    })
}

/// When it next fires.
fn fired(trigger: &File) -> Instant {
    let mut fd = libc::pollfd { fd: trigger.as_raw_fd(), events: libc::POLLPRI, revents: 0 };
    // SAFETY: one open descriptor, and the length says so.
    let count = unsafe { libc::poll(&raw mut fd, 1, 20_000) };
    assert_eq!(count, 1, "the host does not stall");
    Instant::now()
}

#[tokio::test]
#[ignore = "makes the host stall for memory, for three minutes"]
async fn from_a_stall_of_the_host_to_the_targets_of_200_guests() {
    let Some(group) = Small::new() else {
        skip::skip!(MemoryCgroup, "no memory cgroup can be made");
        return;
    };
    let Some((_, text)) = trigger() else {
        skip::skip!(Psi, "{FILE} does not take a trigger");
        return;
    };
    println!("trigger: {}", text.trim_end_matches('\0'));
    let (dir, run_dir) = run_dir();
    let daemon = Daemon::start_with(&run_dir, &["--interval-ms", "1000"]).await;
    let (heard_by, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let mut guests = Vec::new();
    for index in 0..GUESTS {
        let (vmm, _) =
            Vmm::register(&run_dir, about(&format!("g{index}"), &format!("/g/{index}"), None)).await;
        let heard_by = heard_by.clone();
        guests.push(tokio::spawn(async move {
            loop {
                if let ToVmm::Target { reason, .. } = vmm.hear().await {
                    heard_by.send((Instant::now(), reason)).unwrap();
                }
            }
        }));
    }
    let file = dir.path().join("read").display().to_string();
    let (mut delays, mut lasts) = (Vec::new(), Vec::new());
    for step in 0..STEPS {
        tokio::time::sleep(QUIET).await;
        while heard.try_recv().is_ok() {}
        let mut child = group.stall(&file);
        let at = tokio::task::spawn_blocking(|| fired(&trigger().unwrap().0)).await.unwrap();
        let mut of_step = Vec::new();
        // Targets that come with the next tick, whatever caused them, are not what is measured, but count as well.
        while of_step.len() < GUESTS {
            let next = tokio::time::timeout(Duration::from_millis(900), heard.recv()).await;
            let Ok(Some((when, _))) = next else { break };
            of_step.push(when.saturating_duration_since(at));
        }
        // SAFETY: the group of a child that was not waited for yet.
        unsafe { libc::kill(-i32::try_from(child.id()).unwrap(), libc::SIGKILL) };
        child.wait().unwrap();
        let last = of_step.iter().max().copied();
        println!("step {step}: {} targets, the last after {last:?}", of_step.len());
        delays.extend(of_step);
        lasts.extend(last);
    }
    guests.iter().for_each(tokio::task::JoinHandle::abort);
    drop(daemon);
    delays.sort();
    lasts.sort();
    let at = |all: &[Duration], percent: usize| all[(all.len() * percent / 100).min(all.len() - 1)];
    println!(
        "from the trigger to a target heard, {} targets of {GUESTS} guests in {} steps: median {:?}, \
         99th percentile {:?}, most {:?}; to the last of a step: median {:?}",
        delays.len(),
        lasts.len(),
        at(&delays, 50),
        at(&delays, 99),
        at(&delays, 100),
        at(&lasts, 50),
    );
    // How fast is printed, not asserted: that every stall became targets is.
    assert_eq!(lasts.len(), STEPS, "a stall without a target");
}
