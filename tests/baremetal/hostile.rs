//! Hostile drivers: counted, answered and harmless.

use super::{alone, disks, finish, image, start, totals};
use anyhow::{Result, ensure};
use e2e::Host;

pub fn balloon() -> Result<()> {
    let host = Host::new()?;
    let mut guest = start(&host, "a", "hostile-balloon", &[])?;
    guest.wait_for("ballooned=8")?;
    let frames = totals(&host, "a")?;
    ensure!(frames["ballooned"] == 8, "{frames}");
    guest.type_keys("k")?;
    finish(&mut guest)
}

pub fn transport() -> Result<()> {
    let (_host, mut guest) = alone("hostile-transport")?;
    guest.wait_for("survived")?;
    finish(&mut guest)
}

pub fn block() -> Result<()> {
    let host = Host::without_balancer()?;
    let disk = image(&host)?;
    finish(&mut disks::with_disk(&host, "hostile-block", &disk)?)
}
