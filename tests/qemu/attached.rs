//! Guests that another program started.

use crate::hand::Hand;
use anyhow::{Context, Result, ensure};
use balancer::objects::{ContainerObject, FramesObject, GuestObject};
use e2e::{Host, wait};
use guest_images::{Agent, ImageSet, KernelSeries};
use policy::Health;
use rustix::process::Signal;
use serde_json::json;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
const MIB: u64 = 1 << 20;
const BALLOON: [&str; 2] = ["-device", "virtio-balloon-pci,id=b,free-page-reporting=on"];
const INTERVAL: &str = "guest-stats-polling-interval";

fn attach(host: &Host, hand: &Hand, arguments: &[&str]) -> Result<String> {
    let qmp = hand.qmp.display().to_string();
    let output =
        host.balancer(&[&["attach", "--qmp", &qmp, "--container", "/legacy/hand"], arguments].concat())?;
    ensure!(output.status.success(), "{output:?}");
    Ok(String::from_utf8(output.stdout)?)
}

fn is_settled(guest: &GuestObject) -> bool {
    guest.actual_bytes.abs_diff(guest.target_bytes) <= 2 * MIB
}

pub fn lives() -> Result<()> {
    lives_on(None)
}

pub fn lives_on_old_qemu() -> Result<()> {
    lives_on(Some(&ImageSet::of_user()?.old_qemu()?))
}

fn lives_on(program: Option<&Path>) -> Result<()> {
    let host = Host::new()?;
    let mut hand = Hand::start(&host, program, 150, &BALLOON)?;
    hand.ask("qom-set", &json!({ "path": "/machine/peripheral/b", "property": INTERVAL, "value": 7 }))?;
    let told = attach(&host, &hand, &["--limit", "800M"])?;
    ensure!(told.contains("hand: in /legacy/hand, 512M of RAM on QEMU process"), "{told}");
    ensure!(told.lines().count() == 1, "nothing is missing: {told}");
    let guest = || host.guest_object("hand");
    let object = wait::until("its statistics are there", &host, guest, |g| g.statistics.is_some())?;
    ensure!(object.machine_pid == Some(hand.pid().cast_signed()) && object.attached, "{object:?}");

    // What is known is by frame, and tiles; the load is in it.
    let look = || host.frames("hand");
    let loaded = |frames: &FramesObject| frames.totals.private * 4096 >= 150 * MIB;
    let frames = wait::until("its load is in the table", &host, look, loaded)?;
    ensure!(frames.totals.unknown > 0, "{frames:?}");

    // Resized.
    let resized = object.overhead_bytes + 360 * MIB;
    host.set_max("/legacy/hand", resized)?;
    let small = |g: &GuestObject| is_settled(g) && g.actual_bytes < 420 * MIB;
    wait::until("it releases memory", &host, guest, small)?;
    host.frames("hand")?;

    // Pressure: a guest of our own next to it needs what both share.
    let images = ImageSet::of_user()?.ensure(KernelSeries::V6_1)?;
    let (kernel, initrd) = (images.vmlinux.display().to_string(), images.initramfs.display().to_string());
    let channel = host.path("own.channel").display().to_string();
    let mut own = host.guest(
        "own",
        &[
            "--engine",
            "qemu",
            "--kernel",
            &kernel,
            "--initrd",
            &initrd,
            "--memory",
            "512M",
            "--container",
            "/legacy/own",
            "--cmdline",
            "console=ttyS0 quiet reboot=k panic=-1",
            "--channel",
            &channel,
        ],
    )?;
    own.wait_for("BALLAST-GUEST ready")?;
    let mut agent = Agent::connect(Path::new(&channel), own.activity().clone())?;
    let overhead: u64 = ["hand", "own"]
        .iter()
        .map(|name| Ok(host.guest_object(name)?.overhead_bytes))
        .sum::<Result<u64>>()?;
    let max = overhead + 640 * MIB;
    host.set_max("/legacy", max)?;
    agent.alloc("heap", 160 * MIB, 3)?;
    let legacy = || host.container("/legacy");
    let inside = |container: &ContainerObject| container.usage_bytes <= max;
    wait::until("both are inside the limit that they share", &host, legacy, inside)?;
    ensure!(agent.verify("heap")?.intact);
    for name in ["hand", "own"] {
        let object = host.guest_object(name)?;
        ensure!(object.target_bytes < 512 * MIB, "{object:?}");
    }
    let squeezed = host.guest_object("own")?.target_bytes;

    // Detached: it is as it was found, and what it held is free for the other.
    let output = host.balancer(&["detach", "hand"])?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success() && text.contains("as it was found"), "{output:?}");
    ensure!(host.request("GET", "/v1/guests/hand", None)?.status == 404);
    let interval = hand.ask("qom-get", &json!({ "path": "/machine/peripheral/b", "property": INTERVAL }))?;
    ensure!(interval == 7, "{interval}");
    let balloon = || hand.ask("query-balloon", &json!({}));
    wait::until("its balloon is empty again", &host, balloon, |b| b["actual"] == 512 * MIB)?;
    let grown = |g: &GuestObject| g.target_bytes > squeezed;
    wait::until("the other one may hold more", &host, || host.guest_object("own"), grown)?;
    ensure!(hand.runs()?);
    Ok(())
}

pub fn without_balloon() -> Result<()> {
    let host = Host::new()?;
    let mut hand = Hand::start(&host, None, 60, &[])?;
    let told = attach(&host, &hand, &["--name", "plain", "--limit", "300M"])?;
    ensure!(told.contains("It has no balloon") && told.lines().count() == 2, "{told}");
    let object = host.guest_object("plain")?;
    ensure!(object.health == Health::WithoutBalloon && object.ram_unseen.is_none(), "{object:?}");
    ensure!(!object.balloon.driver_ready && object.actual_bytes == 512 * MIB, "{object:?}");
    ensure!(host.frames("plain")?.totals.private * 4096 >= 60 * MIB);
    // It cannot be made to give; what it holds is charged.
    let usage = host.container("/legacy/hand")?.usage_bytes;
    ensure!(usage >= 100 * MIB, "{usage}");
    let said =
        |arguments: &[&str]| Ok::<_, anyhow::Error>(String::from_utf8(host.balancer(arguments)?.stdout)?);
    for (arguments, words) in [
        (&["ps"][..], "plain has no balloon"),
        (&["events"], "It has no balloon: it holds"),
        (&["explain", "plain"], "It has no balloon: it cannot be made to release memory"),
    ] {
        let text = said(arguments)?;
        ensure!(text.contains(words), "{arguments:?}: {text}");
    }
    // Its limit is below what it holds.
    let exceeded = || said(&["explain", "plain"]);
    host.set_max("/legacy/hand", usage - 20 * MIB)?;
    wait::until("its limit is known to be without force", &host, exceeded, |text| {
        text.contains("/legacy/hand uses") && text.contains("cannot be enforced on it")
    })?;
    ensure!(host.balancer(&["detach", "plain"])?.status.success() && hand.runs()?);
    Ok(())
}

pub fn in_a_file() -> Result<()> {
    let host = Host::new()?;
    let file = "memory-backend-memfd,id=ram,size=512M,share=on";
    let backed = ["-object", file, "-machine", "memory-backend=ram"];
    let mut hand = Hand::start(&host, None, 60, &[&backed[..], &BALLOON].concat())?;
    let told = attach(&host, &hand, &[])?;
    ensure!(told.contains("the host holds is unknown: it is not private anonymous memory (rw-s"), "{told}");
    let (object, frames) = (host.guest_object("hand")?, host.frames("hand")?);
    let why = object.ram_unseen.as_deref().context("why it is not seen")?;
    ensure!(why.contains("memfd") && frames.ram_unseen.as_deref() == Some(why), "{frames:?}");
    let ps = String::from_utf8(host.balancer(&["ps"])?.stdout)?;
    ensure!(ps.contains(why) && !ps.contains("without host memory"), "{ps}");
    // What it holds is counted in any case.
    ensure!(object.resident_bytes >= Some(60 * MIB), "{object:?}");
    ensure!(host.balancer(&["detach", "hand", "--json"])?.status.success() && hand.runs()?);
    Ok(())
}

pub fn helper_killed() -> Result<()> {
    let mut host = Host::new()?;
    let mut hand = Hand::start(&host, None, 60, &BALLOON)?;
    attach(&host, &hand, &[])?;
    let helper = pid(&host)?;
    // A balancer that dies loses nothing.
    host.kill_balancer();
    host.start_balancer()?;
    wait::until("the guest is back", &host, || Ok(host.guest_object("hand").is_ok()), |there| *there)?;
    ensure!(pid(&host)? == helper);
    signal(helper, Signal::KILL)?;
    wait::until("the guest is gone", &host, || Ok(host.guest_object("hand").is_err()), |gone| *gone)?;
    ensure!(hand.runs()?);
    attach(&host, &hand, &[])?;
    ensure!(pid(&host)? != helper);
    // SIGTERM leaves the guest as detaching does.
    signal(pid(&host)?, Signal::TERM)?;
    wait::until("the guest is gone", &host, || Ok(host.guest_object("hand").is_err()), |gone| *gone)?;
    let free = || Ok(hand.ask("query-balloon", &json!({})).is_ok());
    wait::until("its monitor is free", &host, free, |free| *free)?;
    // And one whose QEMU ends is gone.
    attach(&host, &hand, &[])?;
    drop(hand);
    wait::until("the guest is gone", &host, || Ok(host.guest_object("hand").is_err()), |gone| *gone)?;
    Ok(())
}

pub fn stuck() -> Result<()> {
    let host = Host::new()?;
    let hand = Hand::start(&host, None, 1, &BALLOON)?;
    attach(&host, &hand, &["--limit", "400M"])?;
    let guest = || host.guest_object("hand");
    let is_small = |g: &GuestObject| is_settled(g) && g.actual_bytes < 400 * MIB;
    wait::until("it releases memory", &host, guest, is_small)?;
    signal(hand.pid(), Signal::STOP)?;
    wait::until("it is reported as stuck", &host, guest, |g| g.stuck.is_some())?;
    let output = host.balancer(&["detach", "hand"])?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(1) && text.contains("stays attached"), "{output:?}");
    signal(hand.pid(), Signal::CONT)?;
    wait::until("it answers", &host, guest, |g| g.stuck.is_none())?;
    // What QEMU itself takes was measured meanwhile, and the target follows.
    wait::until("it holds its limit as before", &host, guest, is_small)?;
    let output = host.balancer(&["detach", "hand"])?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success() && text.contains("detached, as it was found"), "{output:?}");
    let balloon = hand.ask("query-balloon", &json!({}))?;
    ensure!(balloon["actual"] == 512 * MIB, "{balloon}");
    Ok(())
}

pub fn found_first() -> Result<()> {
    let host = Host::new()?;
    let hand = Hand::start(&host, None, 1, &BALLOON)?;
    hand.ask("qom-set", &json!({ "path": "/machine/peripheral/b", "property": INTERVAL, "value": 7 }))?;
    let guest = || host.guest_object("hand");
    let is_small = |g: &GuestObject| is_settled(g) && g.actual_bytes < 400 * MIB;
    let detach = || {
        let output = host.balancer(&["detach", "hand"])?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(output.status.success() && text.contains("detached, as it was found"), "{output:?}");
        Ok(())
    };
    // Detached, and attached again at once: not while its balloon moves.
    attach(&host, &hand, &["--limit", "400M"])?;
    wait::until("it releases memory", &host, guest, is_small)?;
    detach()?;
    attach(&host, &hand, &["--limit", "400M"])?;
    wait::until("it releases memory", &host, guest, is_small)?;
    // Its helper is killed, and the next one knows.
    signal(pid(&host)?, Signal::KILL)?;
    wait::until("the guest is gone", &host, || Ok(guest().is_err()), |gone| *gone)?;
    let balloon = hand.ask("query-balloon", &json!({}))?;
    ensure!(balloon["actual"].as_u64() < Some(400 * MIB), "{balloon}");
    attach(&host, &hand, &["--limit", "400M"])?;
    detach()?;
    let balloon = hand.ask("query-balloon", &json!({}))?;
    ensure!(balloon["actual"] == 512 * MIB, "{balloon}");
    let interval = hand.ask("qom-get", &json!({ "path": "/machine/peripheral/b", "property": INTERVAL }))?;
    ensure!(interval == 7, "{interval}");
    let kept = std::fs::read_dir(host.run_dir().dir())?.flatten();
    let kept = kept.filter(|entry| entry.file_name().to_string_lossy().starts_with("found-")).count();
    ensure!(kept == 0, "{kept} files are left");
    Ok(())
}

/// The process of the helper of the guest.
fn pid(host: &Host) -> Result<u32> {
    Ok(host.guest_object("hand")?.pid.cast_unsigned())
}

/// A signal to a process that was just reported as running.
fn signal(pid: u32, signal: Signal) -> Result<()> {
    e2e::guest::send(pid, signal)
}

pub fn refuses() -> Result<()> {
    let host = Host::new()?;
    let hand = Hand::start(&host, None, 1, &BALLOON)?;
    let refused = |qmp: &Path, words: &str| -> Result<()> {
        let output = host.balancer(&["attach", "--name", "x", "--qmp", &qmp.display().to_string()])?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.code() == Some(1) && text.contains(words), "{words}: {output:?}");
        Ok(())
    };
    refused(Path::new("/no/such.qmp"), "Cannot reach the monitor")?;
    let silent = host.path("silent.qmp");
    let _listener = UnixListener::bind(&silent)?;
    refused(&silent, "did not greet within 5 s")?;
    // The monitor serves one client, which is this one.
    let client = UnixStream::connect(&hand.qmp)?;
    refused(&hand.qmp, "another client has it")?;
    drop(client);
    // A program that speaks like a monitor, and has no guest.
    let liar = host.path("liar.qmp");
    let listener = UnixListener::bind(&liar)?;
    let thread = std::thread::spawn(move || {
        use std::io::{Read, Write};
        let (mut stream, _) = listener.accept()?;
        stream.write_all(
            b"{\"QMP\": {}}\n{\"return\": {}, \"id\": 1}\n\
              {\"return\": {\"base-memory\": 1099511627776}, \"id\": 2}\n{\"return\": [], \"id\": 3}\n",
        )?;
        stream.write_all(
            b"{\"return\": \"Host virtual address for 0x0 (pc.ram) is 0x7f0000000000\", \"id\": 4}\n",
        )?;
        stream.write_all(
            b"{\"return\": \"\", \"id\": 5}\n\
              {\"return\": \"Host virtual address for 0x100000000 (pc.ram) is 0x7f0080000000\", \"id\": 6}\n",
        )?;
        // Until the helper closes its end.
        stream.read_to_end(&mut Vec::new())
    });
    refused(&liar, "No process of QEMU has this guest's RAM")?;
    thread.join().map_err(|_| anyhow::anyhow!("the liar panicked"))??;
    ensure!(host.get::<Vec<GuestObject>>("/v1/guests")?.is_empty());
    let output = host.balancer(&["detach", "x"])?;
    ensure!(output.status.code() == Some(1));
    Ok(())
}
