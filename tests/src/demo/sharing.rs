//! The second part of the demo: two guests run services from one root, and the host holds its images once.

use super::MIB;
use super::screen::Screen;
use super::summary::{Shared, Writes};
use crate::engine::Engine;
use crate::host::Host;
use crate::linux::{Images, Linux, LinuxGuest};
use crate::wait;
use anyhow::{Result, ensure};
use balancer::objects::{ContainerObject, PoolObject};
use guest_images::Agent;
use std::time::{Duration, Instant};

/// Layers of the root, lowest first.
const LAYERS: [&str; 2] = ["base", "services"];
/// Guests, and the containers in which they are: one trust domain, `/shops`.
const GUESTS: [(&str, &str); 2] = [("north", "/shops/north"), ("south", "/shops/south")];
const RAM: &str = "320M";
/// A file of the services' image that no program has open. The overlay copies a file as a whole when it is written to.
const FILE: &str = "/usr/lib/x86_64-linux-gnu/libicudata.so.72.1";
/// Pages of images that no guest maps are evicted beyond this.
const COMMON_BYTES: u64 = 64 * MIB;
/// What each guest works on. It uses up what was touched at the boot and is free again, so that what comes then is new.
const WORK_BYTES: u64 = 40 * MIB;
/// What a guest may touch or give back by itself while another one works.
const ITS_OWN_BYTES: u64 = 4 * MIB;

struct Running {
    linux: LinuxGuest,
    agent: Agent,
}

/// Runs it with a balancer that has the root in its store.
pub(super) fn run(host: &Host, images: &Images, screen: &Screen) -> Result<Shared> {
    let root = images.root(&LAYERS)?;
    // ext4 of Linux 6.16 and newer, and others before it, keep a folio of up to 2 MiB while one page of it is mapped.
    // The lab's file system drops any page that no process maps; that of another host need not.
    let is_kvm = Engine::current() == Engine::Kvm;
    if is_kvm {
        host.set_max("/common", COMMON_BYTES)?;
    }
    screen.say(
        "Two guests boot from one root, north and south: Debian with nginx, redis and python, in two images.",
    );
    let mut guests = Vec::new();
    for (name, container) in GUESTS {
        let flags = ["--container", container, "--root", &root];
        let linux = Linux { memory: RAM, flags: &flags, ..Linux::default() }.start(host, images, name)?;
        let agent = linux.agent()?;
        guests.push(Running { linux, agent });
    }
    screen.say(
        "Both start redis and nginx, and ask them with python. \
         Pages of images that no guest maps are charged to /common.",
    );
    for guest in &mut guests {
        serve(&mut guest.agent)?;
        guest.agent.alloc("work", WORK_BYTES, 1)?;
    }
    if is_kvm {
        screen.say("/common has a limit of 64M: pages beyond that which no guest maps are evicted.");
        let common = || charged(host, "/common");
        wait::until("unmapped pages are evicted", &host, common, |bytes| *bytes <= COMMON_BYTES)?;
    }

    screen.say("The host holds once what both use, and charges it once.");
    let held = pool(host)?;
    screen.typed("balancer pool", &balancer(host, &["pool"])?);
    let (mapped, alone, saved) = (held.mapped_bytes, held.alone_bytes, held.saved_bytes);
    ensure!(saved * 10 >= mapped * 8, "two guests with the same services share {saved} of {mapped} bytes");

    screen.say("A user binds the services' image to /common, which pays for it from now on.");
    let digest = images.digest("services")?;
    let before = charged(host, "/shops")?;
    let answer = balancer(host, &["bind", &digest, "/common"])?;
    screen.typed(&format!("balancer bind {digest} /common"), &answer);
    let after = charged(host, "/shops")?;
    ensure!(
        after < before,
        "/shops pays {before} bytes for images, and {after} when one is bound to another"
    );
    screen.typed("balancer pool | grep -A 5 CONTAINER", &payers(&balancer(host, &["pool"])?));

    let writes = write_over(host, screen, &mut guests)?;
    let store = images.library.display().to_string();
    let checked = balancer(host, &["image", "check", &digest, "--store", &store])?;
    screen.typed(&format!("balancer image check {digest}"), &checked);
    for guest in &mut guests {
        guest.agent.power_off()?;
        let status = guest.linux.guest.wait_end()?;
        ensure!(status.success(), "{}: {status}", guest.linux.guest.name);
    }
    Ok(Shared { held: mapped, alone, saved, bound: before - after, writes })
}

/// One guest writes over a file of the image: the copy is charged to it, and the other one reads what it read before.
fn write_over(host: &Host, screen: &Screen, guests: &mut [Running]) -> Result<Writes> {
    screen.say(&format!("north writes to a file of the image, {FILE}: its copy is its own."));
    let sum = format!("cksum < {FILE}");
    let (north, south) = (usage(host, 0)?, usage(host, 1)?);
    let untouched = printed(&mut guests[1].agent, &sum)?;
    ensure!(printed(&mut guests[0].agent, &sum)? == untouched, "both read the same file");
    let written: u64 =
        printed(&mut guests[0].agent, &format!("printf x >> {FILE}; stat -c %s {FILE}"))?.parse()?;
    let grown = wait::until(
        "the copy is charged to the writer",
        &host,
        || Ok(usage(host, 0)?.saturating_sub(north)),
        |grown| *grown + ITS_OWN_BYTES >= written,
    )?;
    let other = usage(host, 1)?.saturating_sub(south);
    ensure!(other <= ITS_OWN_BYTES, "south is charged {other} bytes for what north wrote");
    ensure!(printed(&mut guests[1].agent, &sum)? == untouched, "south reads what north wrote");
    ensure!(printed(&mut guests[0].agent, &sum)? != untouched, "north does not read what it wrote");
    Ok(Writes { written, writer: grown, other })
}

/// Starts the services of a guest and asks them.
fn serve(agent: &mut Agent) -> Result<()> {
    agent.start("redis", "redis-server --save '' --appendonly no")?;
    agent.start("nginx", "mkdir -p /var/log/nginx /var/lib/nginx && nginx -g 'daemon off;'")?;
    printed(agent, "until redis-cli ping | grep -q PONG && [ -s /run/nginx.pid ]; do sleep 0.3; done")?;
    let question = "import socket; web = socket.create_connection(('127.0.0.1', 80)); \
                    web.sendall(b'HEAD / HTTP/1.0\\r\\n\\r\\n'); print(web.recv(15).decode())";
    let said = printed(agent, &format!("python3 -c \"{question}\""))?;
    ensure!(said.contains("200"), "nginx answers {said:?}");
    Ok(())
}

/// What a command in a guest printed; it must succeed.
fn printed(agent: &mut Agent, command: &str) -> Result<String> {
    let ran = agent.run(command, wait::TOTAL_MAX)?;
    ensure!(ran.code == 0, "{command}: exit code {}: {}", ran.code, ran.output);
    Ok(ran.output.trim().to_owned())
}

/// What a command of the balancer printed; it must succeed.
fn balancer(host: &Host, arguments: &[&str]) -> Result<String> {
    let output = host.balancer(arguments)?;
    ensure!(output.status.success(), "balancer {arguments:?}: {output:?}");
    Ok(String::from_utf8(output.stdout)?)
}

/// The pool as it is now; what is charged is what is there.
fn pool(host: &Host) -> Result<PoolObject> {
    let pool = host.pool()?;
    ensure!(pool.uncharged_frames == 0 && pool.charged_bytes == pool.resident_bytes, "{pool:?}");
    Ok(pool)
}

/// What the containers inside this one pay for images.
fn charged(host: &Host, inside: &str) -> Result<u64> {
    let pool = pool(host)?;
    let here = pool.containers.iter().filter(|row| row.container.as_str().starts_with(inside));
    Ok(here.map(|row| row.charged_bytes).sum())
}

/// Usage of a guest's container, by readings that are all newer than this call: the kernel's is taken once a second.
fn usage(host: &Host, guest: usize) -> Result<u64> {
    let (name, container) = GUESTS[guest];
    let asked = Instant::now();
    let look = || {
        host.frames(name)?;
        pool(host)?;
        host.container(container)
    };
    let is_newer = |seen: &ContainerObject| {
        seen.usage_age_ms.is_some_and(|age| Duration::from_millis(age + 1) < asked.elapsed())
    };
    Ok(wait::until("the usage is read again", &host, look, is_newer)?.usage_bytes)
}

/// The lines of a report of the pool that say which container is charged.
fn payers(report: &str) -> String {
    let lines: Vec<&str> = report
        .lines()
        .skip_while(|line| !line.starts_with("CONTAINER"))
        .take_while(|line| !line.is_empty())
        .collect();
    lines.join("\n")
}
