//! Kernels boot to user space, and power off.

use crate::host::Host;
use crate::linux::{Images, Linux};
use anyhow::{Result, ensure};

fn boots(images: &Images, guest: &Linux<'_>) -> Result<()> {
    let host = Host::new()?;
    let mut linux = guest.start(&host, images, "a")?;
    let mut agent = linux.agent()?;
    let memory = agent.meminfo("mem_total_bytes")?;
    ensure!(memory > 200 << 20, "the guest sees its RAM: {memory}");
    host.frames("a")?;
    agent.power_off()?;
    let status = linux.guest.wait_end()?;
    ensure!(status.code() == Some(0), "{status}");
    Ok(())
}

pub fn old_kernel(images: &Images) -> Result<()> {
    boots(images, &Linux { series: Some("6.1"), memory: "256M", ..Linux::default() })
}

pub fn old_kernel_four_cpus(images: &Images) -> Result<()> {
    boots(images, &Linux { series: Some("6.1"), memory: "256M", cpus: "4", ..Linux::default() })
}

pub fn new_kernel(images: &Images) -> Result<()> {
    boots(images, &Linux { series: Some("6.12"), memory: "256M", ..Linux::default() })
}

pub fn new_kernel_four_cpus(images: &Images) -> Result<()> {
    boots(images, &Linux { series: Some("6.12"), memory: "256M", cpus: "4", ..Linux::default() })
}

pub fn bzimage(images: &Images) -> Result<()> {
    boots(images, &Linux { kernel: "bzimage", memory: "256M", ..Linux::default() })
}
