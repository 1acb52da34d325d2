//! The VMM with guests that have no operating system: milliseconds each, on any `/dev/kvm`, a software one included.

#[path = "baremetal/disk_cache.rs"]
mod disk_cache;
#[path = "baremetal/images.rs"]
mod images;
#[path = "baremetal/managed.rs"]
mod managed;
#[path = "baremetal/merge.rs"]
mod merge;
#[path = "baremetal/tenants.rs"]
mod tenants;

use anyhow::{Context, Result, ensure};
use e2e::host::assert_tiles;
use e2e::{Guest, Host, evidence, kvm, wait};
use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::{Value, json};
use std::fs;
use std::process::{ExitCode, Stdio};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);
const MIB: u64 = 1 << 20;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let missing = kvm::missing();
    if let Some(why) = &missing {
        println!("SKIPPED all tests with bare-metal guests: {why}");
    }
    let trials = TESTS
        .iter()
        .map(|(name, test)| {
            Trial::test(*name, move || evidence::with(test).map_err(Failed::from))
                .with_ignored_flag(missing.is_some())
        })
        .collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

type Test = (&'static str, fn() -> Result<()>);

const TESTS: &[Test] = &[
    ("a guest boots, speaks and powers itself off", boots),
    ("a guest boots with as many cpus as there can be", boots_with_all_cpus),
    ("a guest asks for a reset", resets),
    ("a guest crashes and vmm says so", crashes),
    ("sigterm and ctrl-c end a guest that spins", signals),
    ("a hang-up ends a guest, but not one that nohup started", hang_ups),
    ("inflate gives memory back and keeps every other byte", inflates),
    ("free page reporting gives a block back", reports),
    ("a limit over rest becomes the guest's target and host memory follows", limit_moves_memory),
    ("a killed balancer comes back with every limit while the guest runs on", balancer_killed),
    ("a killed guest leaves nothing behind", guest_killed),
    ("a second guest of the same name is refused", same_name),
    ("two guests share the limit of their parent", parent_limit),
    ("a guest serves two tenants in turn and charges follow", tenants::serves),
    ("a moved guest takes its charges along or leaves them", tenants::moves),
    ("a move that breaks a limit is refused with the shortfall", tenants::refused_moves),
    ("a guest beyond a limit on objects is refused, and one inside is counted", object_limits),
    ("vmm starts a balancer that ends with its last guest", balancer_started),
    ("a guest reads an image's bytes, behind more than 3 GiB of RAM too", images::reads),
    ("i8 guests that share an image hold it once, each with one mapping and one descriptor", images::shares),
    ("i2 stores into an image are dropped and counted, and the other guest reads old bytes", images::stores),
    ("i2 a storm of stores into an image ends its guest alone", images::storms),
    ("i3 no device writes into an image, and all of them read from it", images::devices),
    ("i4 balloon and reporting refuse frames of an image", images::ballooned),
    ("i1 an image that is cut short while it is used takes nobody down", images::cut),
    ("i6 what is no image is refused by name and bound", images::refused),
    ("a guest boots with as many images as there can be", images::sixteen),
    (
        "guests of one domain are merged on demand, nobody else with them, and their tables stay true",
        merge::merges,
    ),
    ("a managed image is filled where it is touched, exactly, and two guests hold it once", managed::exact),
    ("a managed image that does not fit is evicted and read again with the same bytes", managed::evicts),
    ("a guest that thrashes a managed pool takes nothing from another domain", managed::thrashes),
    ("many guests that fill a managed pool take nothing from another domain", managed::fills_through_many),
    (
        "a guest on a managed image runs on without its balancer, and waits for what it lacks",
        managed::survives,
    ),
    ("figures that are sampled are within their published bound of exact ones", managed::sampled_and_exact),
    ("a hostile balloon driver is counted, answered and harmless", hostile_balloon),
    ("a hostile transport driver harms nobody", hostile_transport),
    ("a hostile block driver harms nobody", hostile_block),
    ("a disk keeps what was written and flushed", disk),
    (
        "page cache of a disk is charged, and dropped before the guest is asked",
        disk_cache::charged_and_dropped,
    ),
    ("a shared disk's page cache is charged once", disk_cache::shared),
    ("a read-only disk refuses writes", disk_read_only),
    ("two guests cannot write to one disk", disk_in_use),
    ("bad input ends with a clear error and the right exit code", bad_input),
    ("a balancer that cannot be is told of at once", no_balancer),
    ("a balancer's folder of somebody else is not trusted", foreign_folder),
    ("a balancer that hangs does not hold up its guest", hanging_balancer),
    ("without kvm there is no guest", no_kvm),
    ("a full disk behind the console is told of", full_console),
];

const ELF: &str = env!("BALLAST_BAREMETAL");

fn start(host: &Host, name: &str, scenario: &str, flags: &[&str]) -> Result<Guest> {
    let mut all = vec!["--kernel", ELF, "--memory", "128M", "--cmdline", scenario];
    all.extend(flags);
    host.guest(name, &all)
}

fn alone(scenario: &str) -> Result<(Host, Guest)> {
    let host = Host::without_balancer()?;
    let guest = start(&host, "guest", scenario, &["--balancer", "none"])?;
    Ok((host, guest))
}

fn expect_code(guest: &mut Guest, code: i32) -> Result<()> {
    let status = guest.wait_end(SOON)?;
    ensure!(
        status.code() == Some(code),
        "{status}, expected {code}\n{}\n{}",
        guest.console(),
        guest.errors()
    );
    Ok(())
}

fn finish(guest: &mut Guest) -> Result<()> {
    guest.wait_for("done", SOON)?;
    expect_code(guest, 0)
}

fn boots() -> Result<()> {
    let (_host, mut guest) = alone("hello")?;
    guest.wait_for("hello", SOON)?;
    finish(&mut guest)
}

fn boots_with_all_cpus() -> Result<()> {
    let host = Host::without_balancer()?;
    let mut guest = start(&host, "guest", "hello", &["--balancer", "none", "--cpus", "16"])?;
    finish(&mut guest)
}

fn resets() -> Result<()> {
    expect_code(&mut alone("reset")?.1, 0)
}

fn crashes() -> Result<()> {
    let (_host, mut guest) = alone("crash")?;
    let status = guest.wait_end(SOON)?;
    // A software KVM may give up before it reports the triple fault.
    ensure!(matches!(status.code(), Some(3 | 4)), "{status}");
    ensure!(!guest.errors().is_empty(), "vmm says why");
    Ok(())
}

fn signals() -> Result<()> {
    for (signal, code) in [(libc::SIGTERM, 143), (libc::SIGINT, 130)] {
        let (host, mut guest) = alone("serve 1")?;
        guest.wait_for("touched=256", SOON)?;
        guest.signal(signal);
        expect_code(&mut guest, code)?;
        drop(host);
    }
    Ok(())
}

fn hang_ups() -> Result<()> {
    for (ignored, code) in [("", 129), ("trap '' HUP;", 143)] {
        let host = Host::without_balancer()?;
        let console = host.path("console");
        let mut vmm = std::process::Command::new("sh")
            .args(["-c", &format!("{ignored} exec \"$0\" \"$@\"")])
            .arg(host.vmm().get_program())
            .args(["--engine", "kvm", "--kernel", ELF, "--memory", "128M", "--cmdline", "serve 1"])
            .args(["--balancer", "none"])
            .arg("--console")
            .arg(format!("file={}", console.display()))
            .stdin(Stdio::null())
            .spawn()?;
        let read = || Ok(fs::read_to_string(&console).unwrap_or_default());
        wait::until("the guest runs", SOON, read, |text| text.contains("touched=256"))?;
        for signal in [libc::SIGHUP, libc::SIGTERM] {
            // SAFETY: a signal to a child that was not waited for yet.
            unsafe { libc::kill(i32::try_from(vmm.id())?, signal) };
            // Time enough for a hang-up to come before the other.
            std::thread::sleep(Duration::from_millis(300));
        }
        let status = vmm.wait()?;
        ensure!(status.code() == Some(code), "{ignored:?}: {status}, expected {code}");
    }
    Ok(())
}

fn number(value: &Value) -> Result<u64> {
    value.as_u64().with_context(|| format!("{value} is no number"))
}

fn totals(host: &Host, guest: &str) -> Result<Value> {
    let frames = host.frames(guest)?;
    Ok(frames.get("totals").unwrap_or(&frames).clone())
}

fn inflates() -> Result<()> {
    let host = Host::new()?;
    let mut guest = start(&host, "a", "balloon", &["--container", "/web/a"])?;
    guest.wait_for("ballooned=1024", SOON)?;
    let frames = totals(&host, "a")?;
    ensure!(frames["ballooned"] == 1024, "{frames}");
    guest.type_keys("k")?;
    finish(&mut guest)
}

fn reports() -> Result<()> {
    let host = Host::new()?;
    let mut guest = start(&host, "a", "report", &[])?;
    guest.wait_for("reported=512", SOON)?;
    let frames = totals(&host, "a")?;
    ensure!(frames["reported"] == 512, "{frames}");
    guest.type_keys("k")?;
    finish(&mut guest)
}

/// Resident memory of guest RAM: the kernel's count of anonymous memory, less what `vmm` itself takes.
fn settled(guest: &Guest, what: &str, holds: impl Fn(u64) -> bool) -> Result<u64> {
    wait::until(what, SOON, || guest.resident_bytes(), |bytes| holds(*bytes))
}

fn limit_moves_memory() -> Result<()> {
    let host = Host::new()?;
    let mut guest = start(&host, "a", "serve 80", &["--container", "/web/a", "--container-limit", "160M"])?;
    guest.wait_for("touched=20480", SOON)?;
    let before = settled(&guest, "80 MiB are held", |bytes| bytes >= 80 * MIB)?;
    host.set_max("/web/a", 70 * MIB)?;
    let held = |frames: &Value| Ok::<u64, anyhow::Error>(number(&frames["private"])? * 4096);
    host.assert_near_kernel(&guest)?;
    let small = wait::until(
        "the guest gives memory back",
        SOON,
        || host.frames("a"),
        |f| held(f.get("totals").unwrap_or(f)).is_ok_and(|bytes| bytes <= 70 * MIB),
    )?;
    assert_tiles(&small)?;
    // Both figures are read when nothing moves any more.
    wait::until(
        "the guest holds its target",
        SOON,
        || host.get("/v1/guests/a"),
        |guest| guest["actual_bytes"] == guest["target_bytes"],
    )?;
    let after = guest.resident_bytes()?;
    let ballooned = number(&totals(&host, "a")?["ballooned"])? * 4096;
    ensure!(
        before - after >= ballooned * 9 / 10,
        "resident memory fell by {} of {ballooned} bytes",
        before - after
    );
    // More than its RAM and its vmm need: the balloon lets everything go.
    host.set_max("/web/a", 256 * MIB)?;
    settled(&guest, "the memory comes back", |bytes| bytes >= after + ballooned * 9 / 10)?;
    guest.type_keys("q")?;
    guest.wait_for("verified=20480", SOON)?;
    finish(&mut guest)
}

fn balancer_killed() -> Result<()> {
    let mut host = Host::new()?;
    let mut guest = start(&host, "a", "serve 16", &["--container", "/web/a", "--container-limit", "100M"])?;
    guest.wait_for("touched", SOON)?;
    host.set_max("/web/a", 90 * MIB)?;
    host.kill_balancer();
    host.start_balancer()?;
    wait::until("the guest registers again", SOON, || Ok(host.get("/v1/guests/a").is_ok()), |there| *there)?;
    let container = host.get("/v1/containers/web/a")?;
    ensure!(container["max_bytes"] == 90 * MIB, "{container}");
    assert_tiles(&host.frames("a")?)?;
    guest.type_keys("q")?;
    finish(&mut guest)
}

fn guest_killed() -> Result<()> {
    let host = Host::new()?;
    let mut guest = start(&host, "a", "serve 16", &["--container", "/web/a"])?;
    guest.wait_for("touched", SOON)?;
    guest.signal(libc::SIGKILL);
    guest.wait_end(SOON)?;
    wait::until(
        "guest and container are gone",
        SOON,
        || {
            let status = |path| Ok::<_, anyhow::Error>(host.request("GET", path, None)?.status);
            Ok((status("/v1/guests/a")?, status("/v1/containers/web/a")?))
        },
        |seen| *seen == (404, 404),
    )?;
    Ok(())
}

fn same_name() -> Result<()> {
    let host = Host::new()?;
    let mut first = start(&host, "a", "serve 1", &[])?;
    first.wait_for("touched", SOON)?;
    let mut second = start(&host, "a", "serve 1", &[])?;
    expect_code(&mut second, 5)?;
    first.type_keys("q")?;
    Ok(())
}

fn object_limits() -> Result<()> {
    let host = Host::new()?;
    let limit = |limit| ["--cpus", "2", "--container", "/web/a", "--container-limit", limit];
    for refused in ["256M,max-vcpus=1", "max-guests=0", "max-devices=1", "max-fds=3", "max-threads=4"] {
        let mut guest = start(&host, "a", "serve 1", &limit(refused))?;
        expect_code(&mut guest, 5)?;
    }
    let mut guest =
        start(&host, "a", "serve 1", &limit("256M,max-vcpus=2,max-guests=1,max-devices=2,max-threads=6"))?;
    guest.wait_for("touched", SOON)?;
    let web = host.get("/v1/containers/web")?;
    let used = |kind: &str| web["objects"][kind]["used"].as_u64();
    ensure!((used("vcpus"), used("guests"), used("devices")) == (Some(2), Some(1), Some(2)), "{web:#}");
    // What it told at its launch is what it has, but for what is open for a moment only.
    let count =
        |what: &str| Ok::<_, std::io::Error>(fs::read_dir(format!("/proc/{}/{what}", guest.pid()))?.count());
    for (kind, counted, spare) in [("fds", count("fd")? as u64, 4), ("threads", count("task")? as u64, 1)] {
        let used = used(kind).context("no figure")?;
        ensure!((counted..=counted + spare).contains(&used), "{kind}: told {used}, counted {counted}");
    }
    guest.type_keys("q")?;
    Ok(())
}

fn parent_limit() -> Result<()> {
    let host = Host::new()?;
    let answer = host.request("PUT", "/v1/containers/web", Some(&json!({ "max_bytes": 160 * MIB })))?;
    ensure!(answer.status < 300, "{answer:?}");
    let mut guests = Vec::new();
    for name in ["a", "b"] {
        let mut guest = start(&host, name, "serve 80", &["--container", &format!("/web/{name}")])?;
        guest.wait_for("touched", SOON)?;
        guests.push(guest);
    }
    wait::until(
        "both fit into the parent's limit",
        SOON,
        || {
            host.frames("a")?;
            Ok(guests.iter().map(|guest| guest.resident_bytes().unwrap_or(u64::MAX)).sum::<u64>())
        },
        |sum| *sum <= 160 * MIB,
    )?;
    for guest in &mut guests {
        guest.type_keys("q")?;
        finish(guest)?;
    }
    Ok(())
}

fn balancer_started() -> Result<()> {
    let host = Host::without_balancer()?;
    let mut guest = start(&host, "a", "serve 1", &[])?;
    guest.wait_for("touched", SOON)?;
    ensure!(host.get("/v1/guests/a")?["name"] == "a");
    guest.type_keys("q")?;
    finish(&mut guest)?;
    wait::until("the balancer ends", SOON, || Ok(host.place().api_socket().exists()), |there| !there)?;
    Ok(())
}

fn hostile_balloon() -> Result<()> {
    let host = Host::new()?;
    let mut guest = start(&host, "a", "hostile-balloon", &[])?;
    guest.wait_for("ballooned=8", SOON)?;
    let frames = totals(&host, "a")?;
    ensure!(frames["ballooned"] == 8, "{frames}");
    guest.type_keys("k")?;
    finish(&mut guest)
}

fn hostile_transport() -> Result<()> {
    let (_host, mut guest) = alone("hostile-transport")?;
    guest.wait_for("survived", SOON)?;
    finish(&mut guest)
}

fn image(host: &Host) -> Result<String> {
    let path = host.path("disk.img");
    fs::write(&path, vec![0u8; 1 << 20])?;
    Ok(path.display().to_string())
}

fn with_disk(host: &Host, scenario: &str, disk: &str) -> Result<Guest> {
    start(host, "guest", scenario, &["--balancer", "none", "--disk", disk])
}

fn hostile_block() -> Result<()> {
    let host = Host::without_balancer()?;
    let disk = image(&host)?;
    finish(&mut with_disk(&host, "hostile-block", &disk)?)
}

fn disk() -> Result<()> {
    let host = Host::without_balancer()?;
    let disk = image(&host)?;
    finish(&mut with_disk(&host, "block", &disk)?)?;
    let bytes = fs::read(&disk)?;
    ensure!(bytes[4096..8192].iter().all(|byte| *byte == 0x42), "what the guest wrote is not in the image");
    ensure!(bytes[..4096].iter().chain(&bytes[8192..]).all(|byte| *byte == 0), "other bytes changed");
    Ok(())
}

fn disk_read_only() -> Result<()> {
    let host = Host::without_balancer()?;
    let disk = image(&host)?;
    finish(&mut with_disk(&host, "block-read-only", &format!("{disk},ro"))?)?;
    ensure!(fs::read(&disk)?.iter().all(|byte| *byte == 0));
    Ok(())
}

fn disk_in_use() -> Result<()> {
    let host = Host::without_balancer()?;
    let disk = image(&host)?;
    let mut first = with_disk(&host, "serve 1", &disk)?;
    first.wait_for("touched", SOON)?;
    let mut second = start(&host, "second", "serve 1", &["--balancer", "none", "--disk", &disk])?;
    expect_code(&mut second, 1)?;
    ensure!(second.errors().contains("in use"), "{}", second.errors());
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

fn no_balancer() -> Result<()> {
    let host = Host::without_balancer()?;
    for (program, words) in [("/no/such/balancer", "/no/such/balancer"), ("/bin/false", "exit status: 1")] {
        let output = host
            .vmm()
            .args(["--kernel", ELF, "--cmdline", "hello"])
            .env("BALLAST_BALANCER", program)
            .stdin(Stdio::null())
            .output()?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.code() == Some(1) && errors.contains(words),
            "{program}: {} {errors}",
            output.status
        );
        ensure!(errors.lines().count() == 1, "one line: {errors}");
    }
    Ok(())
}

fn foreign_folder() -> Result<()> {
    // SAFETY: geteuid has no preconditions and cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        println!("SKIPPED a folder of somebody else: only root can give one away");
        return Ok(());
    }
    let host = Host::without_balancer()?;
    fs::create_dir(host.place().dir())?;
    std::os::unix::fs::chown(host.place().dir(), Some(1), None)?;
    let mut guest = start(&host, "a", "hello", &[])?;
    expect_code(&mut guest, 1)?;
    ensure!(guest.errors().contains("belongs to user 1"), "{}", guest.errors());
    ensure!(fs::read_dir(host.place().dir())?.next().is_none(), "nothing is put into it");
    Ok(())
}

/// The guest's devices are served by the thread that speaks to the balancer.
fn hanging_balancer() -> Result<()> {
    let mut host = Host::new()?;
    let mut guest = start(&host, "a", "serve 1", &[])?;
    guest.wait_for("touched", SOON)?;
    host.kill_balancer();
    host.start_balancer()?;
    let pid = libc::pid_t::try_from(host.get("/v1/host")?["balancer_pid"].as_u64().context("no pid")?)?;
    // SAFETY: a signal to the balancer that this test started.
    ensure!(unsafe { libc::kill(pid, libc::SIGSTOP) } == 0);
    // Long enough for the guest to ask to be taken back, and to wait for an answer if it did wait.
    std::thread::sleep(Duration::from_secs(1));
    guest.type_keys("q")?;
    let ended = guest.wait_for("done", Duration::from_secs(5)).and_then(|()| expect_code(&mut guest, 0));
    // SAFETY: as above.
    ensure!(unsafe { libc::kill(pid, libc::SIGCONT) } == 0);
    ended
}

fn no_kvm() -> Result<()> {
    let host = Host::without_balancer()?;
    let vmm = host.vmm().get_program().to_owned();
    let hidden = "mount -t tmpfs none /dev && exec \"$@\"";
    let output = std::process::Command::new("unshare")
        .args(["--mount", "--map-root-user", "sh", "-c", hidden, "sh"])
        .arg(vmm)
        .args(["--engine", "kvm", "--kernel", ELF, "--balancer", "none"])
        .output();
    let Ok(output) = output else {
        println!("SKIPPED hiding /dev/kvm: there is no unshare");
        return Ok(());
    };
    let errors = String::from_utf8_lossy(&output.stderr);
    if errors.starts_with("unshare:") || errors.starts_with("mount:") {
        println!("SKIPPED hiding /dev/kvm: {errors}");
        return Ok(());
    }
    ensure!(
        output.status.code() == Some(1) && errors.contains("There is no /dev/kvm"),
        "{} {errors}",
        output.status
    );
    Ok(())
}

fn full_console() -> Result<()> {
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

fn bad_input() -> Result<()> {
    let host = Host::without_balancer()?;
    for (flags, code, word) in BAD {
        let output = host.vmm().args(["--balancer", "none"]).args(*flags).stdin(Stdio::null()).output()?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.code() == Some(*code),
            "{flags:?}: {}, expected {code}: {errors}",
            output.status
        );
        ensure!(errors.contains(word), "{flags:?}: {errors:?} does not say {word:?}");
    }
    ensure!(!host.place().dir().exists(), "nothing is left behind");
    Ok(())
}
