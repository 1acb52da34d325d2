//! A guest and its balancer: one that is started, killed, hangs, or cannot be.

use super::{ELF, MIB, SOON, expect_code, finish, start};
use anyhow::{Context, Result, ensure};
use e2e::host::assert_tiles;
use e2e::{Host, wait};
use std::fs;
use std::process::Stdio;
use std::time::Duration;

pub fn balancer_killed() -> Result<()> {
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

pub fn balancer_started() -> Result<()> {
    let host = Host::without_balancer()?;
    let mut guest = start(&host, "a", "serve 1", &[])?;
    guest.wait_for("touched", SOON)?;
    ensure!(host.get("/v1/guests/a")?["name"] == "a");
    guest.type_keys("q")?;
    finish(&mut guest)?;
    wait::until("the balancer ends", SOON, || Ok(host.place().api_socket().exists()), |there| !there)?;
    Ok(())
}

pub fn no_balancer() -> Result<()> {
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

pub fn foreign_folder() -> Result<()> {
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
pub fn hanging_balancer() -> Result<()> {
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
