//! Guests on a QEMU that their `vmm` starts.

use anyhow::{Context, Result, ensure};
use balancer::objects::GuestObject;
use e2e::guest::send;
use e2e::terminal::Terminal;
use e2e::wait::Activity;
use e2e::{Guest, Host, wait};
use guest_images::{Agent, ImageSet, KernelSeries};
use protocol::engine::Engine;
use protocol::frames::ErrorSource;
use rustix::fs::OFlags;
use rustix::process::Signal;
use serde_json::json;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

pub const MIB: u64 = 1 << 20;

/// A guest with 6.1.
pub fn linux(host: &Host, name: &str, program: Option<&Path>, flags: &[&str]) -> Result<Guest> {
    let images = ImageSet::of_user()?.ensure(KernelSeries::V6_1)?;
    let (kernel, initrd) = (images.vmlinux.display().to_string(), images.initramfs.display().to_string());
    let mut all = vec!["--engine", "qemu", "--kernel", &kernel, "--initrd", &initrd];
    all.extend(["--cmdline", "console=ttyS0 quiet reboot=k panic=-1"]);
    all.extend(flags);
    match program {
        None => host.guest(name, &all),
        Some(program) => Guest::start_with(host, name, &all, &[("BALLAST_QEMU", program)]),
    }
}

/// One of 512M in `/a`.
fn start(host: &Host, program: Option<&Path>, flags: &[&str]) -> Result<Guest> {
    linux(host, "a", program, &[&["--memory", "512M", "--container", "/a"], flags].concat())
}

/// True once what the guest may hold is what it was asked to, less than its RAM.
fn settled(guest: &GuestObject) -> bool {
    guest.actual_bytes.abs_diff(guest.target_bytes) <= 2 * MIB && guest.actual_bytes < 400 * MIB
}

pub fn holds() -> Result<()> {
    holds_with(None)
}

pub fn holds_on_old_qemu() -> Result<()> {
    holds_with(Some(&ImageSet::of_user()?.old_qemu()?))
}

fn holds_with(program: Option<&Path>) -> Result<()> {
    let host = Host::new()?;
    let channel = host.path("a.channel").display().to_string();
    let mut guest = start(&host, program, &["--container-limit", "256M", "--channel", &channel])?;
    guest.wait_for("BALLAST-GUEST ready")?;
    wait::until("the limit is in force", &host, || host.guest_object("a"), settled)?;
    let mut agent = Agent::connect(Path::new(&channel), guest.activity().clone())?;
    // The limit leaves little more than the kernel and this next to QEMU.
    agent.alloc("heap", 24 * MIB, 5)?;
    for _ in 0..4 {
        let (object, resident) = (host.guest_object("a")?, guest.resident_bytes()?);
        ensure!(resident <= 256 * MIB, "{} MiB are held", resident / MIB);
        ensure!(object.usage_bytes <= 256 * MIB, "{object:?}");
        ensure!(object.engine == Engine::Qemu && object.stuck.is_none() && object.trusted, "{object:?}");
        host.ticks("a", 1)?;
    }
    // It has what it wrote, its own statistics are there, and the table says what is known and what is not.
    ensure!(agent.verify("heap")?.intact);
    let object = host.guest_object("a")?;
    let available = object.statistics.as_ref().and_then(|read| read.available_memory_bytes);
    ensure!(available > Some(0), "{object:?}");
    let frames = host.frames("a")?;
    let totals = &frames.totals;
    ensure!(totals.private * 4096 >= 24 * MIB, "{frames:?}");
    ensure!(
        totals.unknown > 0 && totals.ballooned == 0 && totals.error_source == ErrorSource::Faults,
        "{frames:?}"
    );
    let known: u64 = frames.sources.iter().take(2).map(|source| source.frames).sum();
    ensure!(known == totals.frames, "{frames:?}");
    host.assert_near_kernel(&guest)?;
    let ps = String::from_utf8(host.balancer(&["ps"])?.stdout)?;
    ensure!(ps.contains("max 256M") && ps.contains("is unknown"), "{ps}");
    agent.power_off()?;
    let status = guest.wait_end()?;
    ensure!(status.code() == Some(0), "{status}");
    ensure!(!Path::new(&channel).exists(), "the channel's socket is left");
    Ok(())
}

pub fn holds_alone() -> Result<()> {
    let host = Host::without_balancer()?;
    let channel = host.path("a.channel").display().to_string();
    let flags = ["--balancer", "none", "--container-limit", "256M", "--channel", &channel];
    let mut guest = start(&host, None, &flags)?;
    guest.wait_for("BALLAST-GUEST ready")?;
    // What it touched while it booted goes, and nothing comes.
    let look = || guest.resident_bytes();
    wait::until("what the guest holds is inside the limit", &host, look, |bytes| *bytes <= 256 * MIB)?;
    // It works, again and again, and comes back to the same memory.
    let mut agent = Agent::connect(Path::new(&channel), guest.activity().clone())?;
    agent.alloc("heap", 24 * MIB, 1)?;
    for seed in 2..12 {
        agent.rewrite("heap", seed)?;
        ensure!(agent.verify("heap")?.intact);
        let bytes = guest.resident_bytes()?;
        ensure!(bytes <= 256 * MIB, "{} MiB are held", bytes / MIB);
    }
    Ok(())
}

fn is_there(pid: u32) -> bool {
    // A zombie that its new parent did not fetch yet is none.
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

/// A guest that is up, its QEMU, and the channel's socket.
fn up(host: &Host) -> Result<(Guest, u32)> {
    let mut guest = start(host, None, &["--container-limit", "400M"])?;
    guest.wait_for("BALLAST-GUEST ready")?;
    wait::until("its balloon is served", &host, || host.guest_object("a"), settled)?;
    let machine = guest.machine_pid().context("its QEMU")?;
    let object = host.guest_object("a")?;
    ensure!(object.machine_pid == Some(machine.cast_signed()), "{object:?}");
    Ok((guest, machine))
}

fn forgotten(host: &Host) -> Result<()> {
    let status = |path| Ok::<_, anyhow::Error>(host.request("GET", path, None)?.status);
    let look = || Ok((status("/v1/guests/a")?, status("/v1/containers/a")?));
    wait::until("guest and container are gone", &host, look, |seen| *seen == (404, 404))?;
    Ok(())
}

pub fn machine_killed() -> Result<()> {
    let host = Host::new()?;
    let (mut guest, machine) = up(&host)?;
    send(machine, Signal::KILL)?;
    let status = guest.wait_end()?;
    ensure!(status.code() == Some(4), "{status}");
    ensure!(guest.errors().contains("QEMU was ended by signal 9"), "{}", guest.errors());
    forgotten(&host)?;
    let events = String::from_utf8(host.balancer(&["events"])?.stdout)?;
    ensure!(events.contains("QEMU was ended by signal 9"), "{events}");
    Ok(())
}

pub fn vmm_killed() -> Result<()> {
    let host = Host::new()?;
    let (mut guest, machine) = up(&host)?;
    let before = left_behind(&host)?;
    guest.signal(Signal::KILL)?;
    guest.wait_end()?;
    wait::until("its QEMU is gone", &host, || Ok(is_there(machine)), |there| !there)?;
    forgotten(&host)?;
    ensure!(left_behind(&host)? == before, "files are left: {:?}", left_behind(&host)?);
    Ok(())
}

/// Names in the host's folder, where a QEMU could leave something.
fn left_behind(host: &Host) -> Result<Vec<String>> {
    let mut names: Vec<String> = std::fs::read_dir(host.dir())?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_>>()?;
    names.sort();
    Ok(names)
}

pub fn stops() -> Result<()> {
    let host = Host::new()?;
    let (mut guest, machine) = up(&host)?;
    send(machine, Signal::STOP)?;
    let stuck =
        wait::until("it is reported as stuck", &host, || host.guest_object("a"), |g| g.stuck.is_some())?;
    ensure!(stuck.stuck.as_ref().is_some_and(|text| text.contains("did not answer")), "{stuck:?}");
    // The balancer answers as ever, the guest's vmm listens, and its table is what it was.
    host.set_max("/a", 330 * MIB)?;
    host.frames("a")?;
    let object = host.guest_object("a")?;
    ensure!(object.stuck.is_some(), "all of this was answered while QEMU stood still: {object:?}");
    let before = object.actual_bytes;
    let ps = String::from_utf8(host.balancer(&["ps"])?.stdout)?;
    ensure!(ps.contains("a is stuck for"), "{ps}");
    send(machine, Signal::CONT)?;
    let follows = |g: &GuestObject| g.stuck.is_none() && settled(g) && g.actual_bytes < before;
    wait::until("it answers and follows", &host, || host.guest_object("a"), follows)?;
    let events = String::from_utf8(host.balancer(&["events"])?.stdout)?;
    ensure!(events.contains("guest_stuck") && events.contains("guest_answers"), "{events}");
    // One that never answers again is ended with its vmm.
    send(machine, Signal::STOP)?;
    guest.signal(Signal::TERM)?;
    let status = guest.wait_end()?;
    ensure!(status.code() == Some(143) && !is_there(machine), "{status}");
    Ok(())
}

pub fn start_ends_by_signal() -> Result<()> {
    let host = Host::new()?;
    let program = host.path("never");
    std::fs::write(&program, "#!/bin/sh\nexec sleep 1000\n")?;
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755))?;
    let mut guest = start(&host, Some(&program), &[])?;
    let look = || Ok(guest.machine_pid());
    let machine = wait::until("its QEMU is there", &host, look, Option::is_some)?.context("its QEMU")?;
    guest.signal(Signal::TERM)?;
    let status = guest.wait_end()?;
    ensure!(status.code() == Some(143) && !is_there(machine), "{status}, {}", guest.errors());
    Ok(())
}

pub fn machine_killed_while_it_waits() -> Result<()> {
    let host = Host::new()?;
    let answer = host.request("PATCH", "/v1/policy", Some(&json!({ "reserve_bytes": 64u64 << 40 })))?;
    ensure!(answer.status == 200, "{answer:?}");
    let mut guest = start(&host, None, &["--wait"])?;
    let waiting = || Ok(host.host_object()?.waiting.len());
    wait::until("it waits", &host, waiting, |count| *count == 1)?;
    send(guest.machine_pid().context("its QEMU")?, Signal::KILL)?;
    let status = guest.wait_end()?;
    ensure!(status.code() == Some(4), "{status}");
    ensure!(guest.errors().contains("QEMU was ended by signal 9"), "{}", guest.errors());
    wait::until("no guest waits", &host, waiting, |count| *count == 0)?;
    Ok(())
}

pub fn input_waits_again() -> Result<()> {
    let host = Host::new()?;
    let images = ImageSet::of_user()?.ensure(KernelSeries::V6_1)?;
    let (input, _typing) = std::io::pipe()?;
    let waits = || Ok(!rustix::fs::fcntl_getfl(&input)?.contains(OFlags::NONBLOCK));
    let mut vmm = host
        .vmm()
        .args(["--engine", "qemu", "--memory", "128M", "--balancer", "none", "--kernel"])
        .arg(&images.vmlinux)
        .stdin(input.try_clone()?)
        .stdout(Stdio::null())
        .spawn()?;
    // As QEMU wants it.
    wait::until("QEMU is up", &Activity::of(vmm.id()), waits, |waits| !waits)?;
    send(vmm.id(), Signal::TERM)?;
    let activity = Activity::of(vmm.id());
    let status = wait::until("vmm ends", &activity, || Ok(vmm.try_wait()?), Option::is_some)?;
    ensure!(status.is_some_and(|status| status.code() == Some(143)) && waits()?, "{status:?}");
    Ok(())
}

pub fn no_driver() -> Result<()> {
    let host = Host::new()?;
    let images = ImageSet::of_user()?.ensure(KernelSeries::V6_1)?;
    let kernel = images.vmlinux.display().to_string();
    // Without an initramfs the kernel finds no root and stays where it is: virtio_balloon is a module.
    let flags = ["--engine", "qemu", "--kernel", &kernel, "--memory", "256M", "--container", "/a"];
    let mut all = flags.to_vec();
    all.extend(["--container-limit", "250M", "--cmdline", "console=ttyS0 panic=0"]);
    let mut guest = host.guest("a", &all)?;
    guest.wait_for("Kernel panic")?;
    // Statistics are asked for at each tick: they would be there.
    host.ticks("a", 4)?;
    let object = host.guest_object("a")?;
    ensure!(!object.balloon.driver_ready && object.statistics.is_none(), "{object:?}");
    ensure!(object.target_bytes < object.actual_bytes, "{object:?}");
    ensure!(object.usage_bytes >= host.frames("a")?.totals.private * 4096);
    host.assert_near_kernel(&guest)
}

pub fn terminal() -> Result<()> {
    let host = Host::without_balancer()?;
    let images = ImageSet::of_user()?.ensure(KernelSeries::V6_1)?;
    let (kernel, initrd) = (images.vmlinux.display().to_string(), images.initramfs.display().to_string());
    let cmdline = "console=ttyS0 quiet reboot=k panic=-1 ballast.shell";
    let flags =
        ["--engine=qemu", "--kernel", &kernel, "--initrd", &initrd, "--memory=256M", "--cmdline", cmdline];
    let mut terminal = Terminal::start(&host, &[&flags[..], &["--balancer=none"]].concat())?;
    terminal.wait_for("BALLAST-GUEST ready", 1)?;
    terminal.type_keys("echo begin-$((40 + 2)); sleep 100000\n")?;
    terminal.wait_for("begin-42", 1)?;
    terminal.type_keys("\x03")?;
    terminal.type_keys("echo alive-$((40 + 2))\n")?;
    terminal.wait_for("alive-42", 1)?;
    terminal.type_keys("\x01x")?;
    let code = terminal.wait_end()?;
    ensure!(code == Some(130), "{code:?}");
    Ok(())
}

pub fn refuses() -> Result<()> {
    let host = Host::new()?;
    let images = ImageSet::of_user()?.ensure(KernelSeries::V6_1)?;
    let kernel = images.vmlinux.display().to_string();
    let (long, disk) = ("a=1 ".repeat(600), host.path("disk.vmdk"));
    std::fs::write(&disk, "# Disk DescriptorFile\nversion=1\n")?;
    let disk = disk.display().to_string();
    let cases: [(&[&str], i32, &str); 7] = [
        (&["--kernel", &kernel, "--cmdline", &long], 2, "a guest keeps 2047"),
        (&["--kernel", &kernel, "--disk", &disk], 1, "begins like a VMDK image"),
        (&["--kernel", &kernel, "--merge"], 2, "The engine qemu does not support --merge"),
        (&["--kernel", &kernel, "--root", "/no/x.erofs"], 1, "Cannot use /no/x.erofs as image"),
        (&["--kernel", "/dev/null"], 1, "Cannot read kernel /dev/null"),
        (&["--kernel", env!("BALLAST_BAREMETAL")], 1, "QEMU ended with exit code 1"),
        (&["--kernel", &kernel, "--container-limit", "20M"], 5, "this guest needs at least"),
    ];
    for (flags, code, words) in cases {
        let mut guest = host.guest("a", &[&["--engine", "qemu", "--memory", "128M"], flags].concat())?;
        let status = guest.wait_end()?;
        ensure!(
            status.code() == Some(code) && guest.errors().contains(words),
            "{flags:?}: {status}, {}",
            guest.errors()
        );
    }
    // More RAM than the host has is not a reason to refuse.
    let meminfo = std::fs::read_to_string("/proc/meminfo")?;
    let total_kib = meminfo.split_ascii_whitespace().nth(1).and_then(|word| word.parse::<u64>().ok());
    let twice = format!("{}M", total_kib.context("MemTotal")? / 1024 * 2);
    let large = ["--engine", "qemu", "--kernel", &kernel, "--memory", &twice, "--container-limit", "80M"];
    let mut guest = host.guest("a", &large)?;
    let status = guest.wait_end()?;
    ensure!(
        status.code() == Some(5) && guest.errors().contains("this guest needs at least"),
        "{status}, {}",
        guest.errors()
    );
    let flags = ["--engine", "qemu", "--kernel", &kernel];
    let mut guest = Guest::start_with(&host, "a", &flags, &[("BALLAST_QEMU", Path::new("/no/such/qemu"))])?;
    ensure!(
        guest.wait_end()?.code() == Some(1) && guest.errors().contains("Cannot start /no/such/qemu"),
        "{}",
        guest.errors()
    );
    // A balancer runs only if a guest started one.
    let events = host.events().unwrap_or_default();
    ensure!(!events.iter().any(|event| event.kind == "guest_registered"), "{events:?}");
    Ok(())
}
