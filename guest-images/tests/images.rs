//! The images, booted by QEMU without any hardware help: kernels, drivers, init script and agent are what they
//! claim to be before a VMM of our own depends on them.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use guest_images::{Agent, Error, ImageSet, KernelSeries, pattern};
use support::QemuGuest;
use wait::Limits;

const MIB: u64 = 1 << 20;

#[test]
fn what_is_in_the_cache_is_not_made_again() {
    let images = ImageSet::of_user().unwrap();
    let first = images.ensure(KernelSeries::V6_1).unwrap();
    // The same file, not one of the same content: an image that is made again replaces it.
    let inode = |guest: &guest_images::Guest| std::fs::metadata(&guest.initramfs).unwrap().ino();
    let made = inode(&first);
    assert_eq!(images.ensure(KernelSeries::V6_1).unwrap(), first);
    assert_eq!(inode(&first), made);
    assert!(images.list().unwrap().contains(&first));
    let elf = std::fs::read(&first.vmlinux).unwrap();
    assert_eq!(guest_images::bzimage::vmlinux(&std::fs::read(&first.bzimage).unwrap()).unwrap(), elf);
    assert!(first.version.starts_with("6.1."));
}

#[test]
fn a_6_1_guest_does_what_its_agent_is_told() {
    drive(KernelSeries::V6_1, |agent| agent.power_off());
}

#[test]
fn a_6_12_guest_does_what_its_agent_is_told() {
    drive(KernelSeries::V6_12, |agent| agent.reboot());
}

#[test]
fn a_guest_needs_no_agent_for_holding_memory() {
    let mut guest = QemuGuest::boot(KernelSeries::V6_1, "ballast.agent=off ballast.load=32M ballast.hold=1");
    guest.wait_for("BALLAST-LOAD holds 33554432");
    guest.wait_for("BALLAST-LOAD freed 33554432");
    let limits = Limits::quiet(Duration::from_secs(2));
    let silent = Agent::connect_within(limits, &guest.socket(), guest.activity()).unwrap_err();
    assert!(matches!(silent, Error::AgentSilent { .. }), "{silent}");
}

/// One boot, every command: booting is most of the cost.
fn drive(series: KernelSeries, end: fn(&mut Agent) -> guest_images::Result<()>) {
    let mut guest = QemuGuest::boot(series, "");
    guest.wait_for(&format!("BALLAST-GUEST ready {series}."));
    let mut agent = Agent::connect(&guest.socket(), guest.activity()).unwrap();
    memory_is_held_and_proved(&mut agent);
    files_come_through_the_page_cache(&mut agent);
    disks_are_read_and_written(&mut agent, &guest);
    running_out_of_memory_spares_the_agent(&mut agent);
    bad_input_is_answered(&mut agent);
    the_balloon_driver_can_go_and_come(&mut agent);
    end(&mut agent).unwrap();
    guest.wait_for_end();
}

fn memory_is_held_and_proved(agent: &mut Agent) {
    // Not MemFree: since 6.7 the per-CPU lists grow to an eighth of a zone, and what they hold is not "free".
    let before = agent.meminfo("anon_pages_bytes").unwrap();
    let held = agent.alloc("heap", 32 * MIB, 7).unwrap();
    assert_eq!(held.checksum, pattern::checksum_of_seed(7, 32 * MIB));
    let during = agent.meminfo("anon_pages_bytes").unwrap();
    assert!(during > before + 31 * MIB, "{before} -> {during}");
    assert!(agent.verify("heap").unwrap().intact);
    assert_eq!(agent.touch("heap").unwrap(), 32 * MIB / 4096);
    assert_ne!(agent.rewrite("heap", 8).unwrap().checksum, held.checksum);
    assert_eq!(agent.free("heap").unwrap(), 32 * MIB);
    let after = agent.meminfo("anon_pages_bytes").unwrap();
    assert!(after + 31 * MIB < during, "{during} -> {after}");
    assert_eq!(agent.call("leak", &[&4096]).unwrap()["leaked_bytes"], 4096);
    agent.call("idle", &[&10]).unwrap();
}

fn files_come_through_the_page_cache(agent: &mut Agent) {
    agent.call("mount", &[&"/dev/vda", &"/mnt", &"ext4"]).unwrap();
    let written = agent.fill_file("/mnt/file", 8 * MIB, 3).unwrap();
    assert_eq!(written.checksum, pattern::checksum_of_seed(3, 8 * MIB));
    agent.call("sync", &[]).unwrap();
    agent.call("drop-caches", &[]).unwrap();
    let before = agent.meminfo("cached_bytes").unwrap();
    assert_eq!(agent.read_file("/mnt/file").unwrap(), written);
    let after = agent.meminfo("cached_bytes").unwrap();
    assert!(after >= before + 7 * MIB, "{before} -> {after}");
    assert_eq!(agent.map_file("map", "/mnt/file").unwrap().bytes, 8 * MIB);
    assert!(agent.verify("map").unwrap().intact);
    assert_eq!(agent.holds().unwrap().len(), 1);
    agent.free("map").unwrap();
    agent.call("umount", &[&"/mnt"]).unwrap();
}

fn disks_are_read_and_written(agent: &mut Agent, guest: &QemuGuest) {
    let offset = 40 * MIB;
    let written = agent.write_disk("/dev/vda", offset, MIB, 5).unwrap();
    assert_eq!(written.checksum, pattern::checksum_of_seed(5, MIB));
    assert_eq!(agent.read_disk("/dev/vda", offset, MIB).unwrap(), written);
    assert_eq!(guest.disk_checksum(offset, MIB), written.checksum, "what the host finds in the file");
}

fn running_out_of_memory_spares_the_agent(agent: &mut Agent) {
    agent.alloc("survivor", MIB, 11).unwrap();
    let kills = agent.vmstat("oom_kill").unwrap();
    let total = agent.meminfo("mem_total_bytes").unwrap();
    let outcome = agent.oom(total - MIB).unwrap();
    assert_eq!((outcome.survived, outcome.refused, outcome.signal), (false, false, 9));
    assert_eq!(agent.vmstat("oom_kill").unwrap(), kills + 1);
    assert!(agent.verify("survivor").unwrap().intact);
    assert!(agent.oom(MIB).unwrap().survived);
    assert!(agent.oom(1 << 40).unwrap().refused);
}

fn bad_input_is_answered(agent: &mut Agent) {
    let long = "x".repeat(3000);
    for (command, words) in [
        ("", ""),
        ("dance", ""),
        ("alloc", "a 1e30"),
        ("free", "nothing"),
        ("mount", "/dev/none /mnt ext4"),
        ("read-disk", "/dev/vda 1 512"),
        ("read-file", long.as_str()),
    ] {
        let error = agent.call(command, &[&words]).unwrap_err();
        assert!(matches!(error, Error::AgentRefused { .. }), "{command}: {error}");
    }
    assert!(agent.call("ping", &[]).unwrap()["uptime_ms"].as_u64().unwrap() > 0);
}

fn the_balloon_driver_can_go_and_come(agent: &mut Agent) {
    agent.call("rmmod-balloon", &[]).unwrap();
    assert!(agent.call("rmmod-balloon", &[]).is_err());
    agent.call("insmod-balloon", &[]).unwrap();
}
