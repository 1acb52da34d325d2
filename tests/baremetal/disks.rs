//! Disks: what is written is there, and one guest writes.

use super::{expect_code, finish, image, start};
use anyhow::{Result, ensure};
use e2e::{Guest, Host};
use std::fs;

pub fn with_disk(host: &Host, scenario: &str, disk: &str) -> Result<Guest> {
    start(host, "guest", scenario, &["--balancer", "none", "--disk", disk])
}

pub fn keeps() -> Result<()> {
    let host = Host::without_balancer()?;
    let disk = image(&host)?;
    finish(&mut with_disk(&host, "block", &disk)?)?;
    let bytes = fs::read(&disk)?;
    ensure!(bytes[4096..8192].iter().all(|byte| *byte == 0x42), "what the guest wrote is not in the image");
    ensure!(bytes[..4096].iter().chain(&bytes[8192..]).all(|byte| *byte == 0), "other bytes changed");
    Ok(())
}

pub fn read_only() -> Result<()> {
    let host = Host::without_balancer()?;
    let disk = image(&host)?;
    finish(&mut with_disk(&host, "block-read-only", &format!("{disk},ro"))?)?;
    ensure!(fs::read(&disk)?.iter().all(|byte| *byte == 0));
    Ok(())
}

pub fn in_use() -> Result<()> {
    let host = Host::without_balancer()?;
    let disk = image(&host)?;
    let mut first = with_disk(&host, "serve 1", &disk)?;
    first.wait_for("touched")?;
    let mut second = start(&host, "second", "serve 1", &["--balancer", "none", "--disk", &disk])?;
    expect_code(&mut second, 1)?;
    ensure!(second.errors().contains("in use"), "{}", second.errors());
    Ok(())
}
