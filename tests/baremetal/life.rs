//! A guest from its start to its end: boots, ends, refusals, and what it says of them.

use super::{ELF, alone, expect_code, finish, start};
use anyhow::{Result, ensure};
use e2e::terminal::Terminal;
use e2e::wait::Activity;
use e2e::{Host, wait};
use rustix::process::Signal;
use std::fs;
use std::process::Stdio;

pub fn boots() -> Result<()> {
    let (_host, mut guest) = alone("hello")?;
    guest.wait_for("hello")?;
    finish(&mut guest)
}

pub fn boots_with_all_cpus() -> Result<()> {
    let host = Host::without_balancer()?;
    let mut guest = start(&host, "guest", "hello", &["--balancer", "none", "--cpus", "16"])?;
    finish(&mut guest)
}

pub fn resets() -> Result<()> {
    expect_code(&mut alone("reset")?.1, 0)
}

pub fn crashes() -> Result<()> {
    let (_host, mut guest) = alone("crash")?;
    let status = guest.wait_end()?;
    // A software KVM may give up before it reports the triple fault.
    ensure!(matches!(status.code(), Some(3 | 4)), "{status}");
    ensure!(!guest.errors().is_empty(), "vmm says why");
    Ok(())
}

pub fn signals() -> Result<()> {
    for (signal, code) in [(Signal::TERM, 143), (Signal::INT, 130)] {
        let (host, mut guest) = alone("serve 1")?;
        guest.wait_for("touched=256")?;
        guest.signal(signal)?;
        expect_code(&mut guest, code)?;
        drop(host);
    }
    Ok(())
}

pub fn terminal() -> Result<()> {
    let host = Host::without_balancer()?;
    let flags = ["--engine=kvm", "--kernel", ELF, "--memory=128M", "--cmdline", "serve 1", "--balancer=none"];
    let mut terminal = Terminal::start(&host, &flags)?;
    terminal.wait_for("touched=256", 1)?;
    terminal.wait_for("Ctrl-A x ends the guest", 1)?;
    // Ctrl-C, Ctrl-Z, Ctrl-\ and one Ctrl-A: the guest answers each.
    for (number, key) in ["\x03", "\x1a", "\x1c", "\x01\x01"].into_iter().enumerate() {
        terminal.type_keys(key)?;
        terminal.wait_for("verified=256", number + 1)?;
    }
    terminal.type_keys("\x01x")?;
    let code = terminal.wait_end()?;
    ensure!(code == Some(130), "{code:?}");
    Ok(())
}

pub fn hang_ups() -> Result<()> {
    for (ignored, code) in [("", 129), ("trap '' HUP;", 143)] {
        let host = Host::without_balancer()?;
        let console = host.path("console");
        // A hang-up is not ignored to begin with, even if these tests were started by nohup.
        let mut vmm = std::process::Command::new("env")
            .args(["--default-signal=HUP", "sh", "-c", &format!("{ignored} exec \"$0\" \"$@\"")])
            .arg(host.vmm().get_program())
            .args(["--engine", "kvm", "--kernel", ELF, "--memory", "128M", "--cmdline", "serve 1"])
            .args(["--balancer", "none"])
            .arg("--console")
            .arg(format!("file={}", console.display()))
            .stdin(Stdio::null())
            .spawn()?;
        let read = || Ok(fs::read_to_string(&console).unwrap_or_default());
        wait::until("the guest runs", &Activity::of(vmm.id()).with_file(&console), read, |text| {
            text.contains("touched=256")
        })?;
        // Two signals that wait are delivered by their numbers: the hang-up comes first, unless it is ignored.
        for signal in [Signal::HUP, Signal::TERM] {
            e2e::guest::send(vmm.id(), signal)?;
        }
        let activity = Activity::of(vmm.id());
        let status = wait::until("vmm ends", &activity, || Ok(vmm.try_wait()?), Option::is_some)?;
        let found = status.and_then(|status| status.code());
        ensure!(found == Some(code), "{ignored:?}: {status:?}, expected {code}");
    }
    Ok(())
}

pub fn guest_killed() -> Result<()> {
    let host = Host::new()?;
    let mut guest = start(&host, "a", "serve 16", &["--container", "/web/a"])?;
    guest.wait_for("touched")?;
    guest.signal(Signal::KILL)?;
    guest.wait_end()?;
    wait::until(
        "guest and container are gone",
        &host,
        || {
            let status = |path| Ok::<_, anyhow::Error>(host.request("GET", path, None)?.status);
            Ok((status("/v1/guests/a")?, status("/v1/containers/web/a")?))
        },
        |seen| *seen == (404, 404),
    )?;
    Ok(())
}

pub fn same_name() -> Result<()> {
    let host = Host::new()?;
    let mut first = start(&host, "a", "serve 1", &[])?;
    first.wait_for("touched")?;
    let mut second = start(&host, "a", "serve 1", &[])?;
    expect_code(&mut second, 5)?;
    first.type_keys("q")?;
    Ok(())
}

/// Flags that cannot work, the exit code, and a word that the one-line error must have.
const BAD: &[(&[&str], i32, &str)] = &[
    (&["--kernel", "/etc/passwd"], 1, "no kernel"),
    (&["--kernel", "/dev/null"], 1, "regular file"),
    (&["--kernel", "/no/such/file"], 1, "/no/such/file"),
    (&["--kernel", ELF, "--initrd", "/no/such/initrd"], 1, "/no/such/initrd"),
    (&["--kernel", ELF, "--memory", "512M", "--container-limit", "16M"], 5, "at least"),
    (&["--kernel", ELF, "--container-limit", "min=2G,max=1G"], 2, "min_bytes"),
    (&["--kernel", ELF, "--container-limit", "0"], 2, "max_bytes"),
    (&["--kernel", ELF, "--container-limit", "-1"], 2, "container-limit"),
    (&["--kernel", ELF, "--container-limit", "1e30"], 2, "1e30"),
    (&["--kernel", ELF, "--container-limit", "lots"], 2, "lots"),
    (&["--kernel", ELF, "--container", "web"], 2, "web"),
    (&["--kernel", ELF, "--cpus", "17"], 2, "17"),
    (&["--kernel", ELF, "--memory", "1M"], 2, "16M"),
    (&["--kernel", ELF, "--nonsense"], 2, "--nonsense"),
    (&["--kernel", ELF, "--disk", "/no/such/disk"], 1, "/no/such/disk"),
    (&["--kernel", ELF, "--channel", "/dev/null"], 1, "/dev/null"),
    (&["--kernel", "/"], 1, "regular file"),
    (&["--kernel", "/dev/zero"], 1, "regular file"),
    (&["--kernel", ELF, "--initrd", "/"], 1, "regular file"),
    (&["--kernel", ELF, "--disk", "/dev/null"], 1, "block device"),
    (&["--kernel", ELF, "--disk", "/,ro"], 1, "block device"),
    (&["--kernel", ELF, "--memory", "-1"], 2, "-1"),
    (&["--kernel", ELF, "--cmdline", "\u{e9}"], 2, "command line"),
    (&["--spec", "/no/such/spec"], 2, "/no/such/spec"),
    (&[], 2, "--kernel"),
];

pub fn bad_input() -> Result<()> {
    let host = Host::without_balancer()?;
    let long = "a=1 ".repeat(600);
    let disk = host.path("disk.qcow2");
    std::fs::write(&disk, b"QFI\xfb\0\0\0\x03")?;
    let disk = disk.display().to_string();
    let read_only = format!("{disk},ro");
    let made: [(&[&str], i32, &str); 3] = [
        (&["--kernel", ELF, "--cmdline", &long], 2, "a guest keeps 2047"),
        (&["--kernel", ELF, "--disk", &disk], 1, "qemu-img convert -f qcow2 -O raw"),
        (&["--kernel", ELF, "--disk", &read_only], 1, "begins like a qcow2 image"),
    ];
    for (flags, code, word) in BAD.iter().chain(&made) {
        let output = host.vmm().args(["--balancer", "none"]).args(*flags).stdin(Stdio::null()).output()?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.code() == Some(*code),
            "{flags:?}: {}, expected {code}: {errors}",
            output.status
        );
        ensure!(errors.contains(word), "{flags:?}: {errors:?} does not say {word:?}");
    }
    ensure!(!host.run_dir().dir().exists(), "nothing is left behind");
    Ok(())
}

pub fn no_kvm() -> Result<()> {
    let host = Host::without_balancer()?;
    let vmm = host.vmm().get_program().to_owned();
    let hidden = "mount -t tmpfs none /dev && exec \"$@\"";
    let output = std::process::Command::new("unshare")
        .args(["--mount", "--map-root-user", "sh", "-c", hidden, "sh"])
        .arg(vmm)
        .args(["--engine", "kvm", "--kernel", ELF, "--balancer", "none"])
        .output();
    let Ok(output) = output else {
        skip::skip!(MountNamespace, "/dev/kvm cannot be hidden: unshare does not start");
        return Ok(());
    };
    let errors = String::from_utf8_lossy(&output.stderr);
    if errors.starts_with("unshare:") || errors.starts_with("mount:") {
        skip::skip!(MountNamespace, "/dev/kvm cannot be hidden: {errors}");
        return Ok(());
    }
    ensure!(
        output.status.code() == Some(1) && errors.contains("There is no /dev/kvm"),
        "{} {errors}",
        output.status
    );
    Ok(())
}

pub fn full_console() -> Result<()> {
    let (_host, mut guest) = {
        let host = Host::without_balancer()?;
        let guest = start(&host, "guest", "hello", &["--balancer", "none", "--console", "file=/dev/full"])?;
        (host, guest)
    };
    expect_code(&mut guest, 0)?;
    ensure!(
        guest.errors().contains("/dev/full") && guest.errors().contains("No space left"),
        "{}",
        guest.errors()
    );
    Ok(())
}
