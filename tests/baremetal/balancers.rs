//! A guest and its balancer: one that is started, killed, hangs, or cannot be.

use super::{ELF, MIB, expect_code, finish, start};
use anyhow::{Result, ensure};
use e2e::{Host, wait};
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::fs;
use std::process::Stdio;

pub fn balancer_killed() -> Result<()> {
    let mut host = Host::new()?;
    let mut guest = start(&host, "a", "serve 16", &["--container", "/web/a", "--container-limit", "100M"])?;
    guest.wait_for("touched")?;
    host.set_max("/web/a", 90 * MIB)?;
    host.kill_balancer();
    host.start_balancer()?;
    wait::until("the guest registers again", &host, || Ok(host.guest_object("a").is_ok()), |there| *there)?;
    let container = host.container("/web/a")?;
    ensure!(container.limits.max_bytes == Some(90 * MIB), "{container:?}");
    host.frames("a")?;
    guest.type_keys("q")?;
    finish(&mut guest)
}

pub fn balancer_started() -> Result<()> {
    let host = Host::without_balancer()?;
    let mut guest = start(&host, "a", "serve 1", &[])?;
    guest.wait_for("touched")?;
    ensure!(host.guest_object("a")?.name == "a");
    guest.type_keys("q")?;
    finish(&mut guest)?;
    wait::until("the balancer ends", &host, || Ok(host.run_dir().api_socket().exists()), |there| !there)?;
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
    if !rustix::process::geteuid().is_root() {
        skip::skip!(Root, "only root can change the owner of a folder");
        return Ok(());
    }
    let host = Host::without_balancer()?;
    fs::create_dir(host.run_dir().dir())?;
    std::os::unix::fs::chown(host.run_dir().dir(), Some(1), None)?;
    let mut guest = start(&host, "a", "hello", &[])?;
    expect_code(&mut guest, 1)?;
    ensure!(guest.errors().contains("belongs to user 1"), "{}", guest.errors());
    ensure!(fs::read_dir(host.run_dir().dir())?.next().is_none(), "nothing is put into it");
    Ok(())
}

/// The guest's devices are served by the thread that speaks to the balancer. Here a socket of this test is the
/// balancer: a guest that asks for readmission gets no answer.
pub fn hanging_balancer() -> Result<()> {
    let mut host = Host::new()?;
    let mut guest = start(&host, "a", "serve 1", &[])?;
    guest.wait_for("touched")?;
    host.kill_balancer();
    let socket = host.run_dir().guest_socket();
    fs::remove_file(&socket)?;
    let listener = net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::NONBLOCK, None)?;
    net::bind(&listener, &SocketAddrUnix::new(&socket)?)?;
    net::listen(&listener, 8)?;
    let accept = || match net::accept(&listener) {
        Ok(connection) => Ok(Some(connection)),
        Err(Errno::AGAIN) => Ok(None),
        Err(error) => Err(error.into()),
    };
    let _unanswered = wait::until("the guest asks to be taken back", &guest, accept, Option::is_some)?;
    guest.type_keys("q")?;
    guest.wait_for("done")?;
    // Had it waited for the answer, it would have given that up and asked again.
    ensure!(accept()?.is_none(), "the guest was held up until its vmm asked again");
    expect_code(&mut guest, 0)
}
