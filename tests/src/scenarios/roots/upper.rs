//! A guest whose layer above the images is on a disk of its own: what it writes stays there, and no other guest reads
//! it.

use super::{MIB, run, unchanged};
use crate::host::Host;
use crate::linux::{Images, Linux, LinuxGuest};
use anyhow::{Result, ensure};
use guest_images::Agent;

/// The layer that the guests share.
const LAYER: &str = "base";
/// A file of it, and one that is not.
const FILE: &str = "/usr/bin/perl";
const NEW: &str = "/var/lib/new";
const NEW_BYTES: u64 = 12 * MIB;

pub fn on_its_own_disk(images: &Images) -> Result<()> {
    let host = Host::with_store(&images.library)?;
    let disk = host.path("upper.ext4");
    std::fs::copy(images.library.join("disks/upper.ext4"), &disk)?;
    let start = |name: &str, more: &[&str], cmdline: &str| -> Result<(LinuxGuest, Agent)> {
        let (root, container) = (images.root(&[LAYER])?, format!("/web/{name}"));
        let flags = [&["--container", &container, "--root", &root], more].concat();
        let linux = Linux { memory: "256M", flags: &flags, cmdline, ..Linux::default() }
            .start(&host, images, name)?;
        let agent = linux.agent()?;
        Ok((linux, agent))
    };
    let own = format!("{}", disk.display());
    let on_disk = ["--disk", own.as_str()];
    let sums = format!("cksum < {FILE}");

    let (mut linux, mut agent) = start("keeper", &on_disk, "ballast.upper=vda")?;
    let original = run(&mut agent, &sums)?;
    run(&mut agent, &format!("printf changed >> {FILE} && rm /usr/bin/diff && rm -r /usr/share/perl5"))?;
    let written = agent.fill_file(&format!("/root{NEW}"), NEW_BYTES, 5)?;
    let changed = run(&mut agent, &format!("{sums}; sync"))?;
    ensure!(changed != original, "what was written is not read: {changed}");
    agent.power_off()?;
    let status = linux.guest.wait_end()?;
    ensure!(status.success(), "{status}");

    // After a power-off it is all there, and another guest has the image as it was, at the same time.
    let (linux, mut agent) = start("again", &on_disk, "ballast.upper=vda")?;
    let (_other, mut other) = start("other", &[], "")?;
    ensure!(run(&mut agent, &sums)? == changed, "the disk lost what was written");
    ensure!(agent.read_file(&format!("/root{NEW}"))?.checksum == written.checksum);
    run(&mut agent, "! [ -e /usr/bin/diff ] && ! [ -e /usr/share/perl5 ]")?;
    ensure!(run(&mut other, &sums)? == original, "another guest reads what was written");
    run(&mut other, &format!("[ -e /usr/bin/diff ] && [ -e /usr/share/perl5 ] && ! [ -e {NEW} ]"))?;
    host.assert_near_kernel(&linux.guest)?;
    // What it reads of its own is on its disk, hence in the host's page cache of that disk; of images nothing is its
    // own.
    let layer = other.read_tree("/images/0")?;
    ensure!(agent.read_tree("/images/0")?.checksum == layer.checksum, "the image is another one");
    unchanged(&host, images, &images.digest(LAYER)?)
}
