//! Where a machine's RAM is in QEMU's address space, and whether the kernel can report each frame of it.
//!
//! ```text
//!   QEMU reports:   gpa2hva 0, gpa2hva 4 GiB  -> host addresses of RAM below and above the hole
//!   kernel reports: /proc/PID/maps            -> all of it is mapped there, private and anonymous?
//!                     yes: by frame, from the pagemap      no: only totals of the process, and why
//! ```
//!
//! An address that QEMU reports and the kernel does not know is not trusted: then PID is another process.

use super::qmp::wire::{HumanCommand, QueryMemoryDevices, QueryMemorySize};
use super::qmp::{Qmp, QmpError};
use host::proc::{Folder, mappings};
use protocol::bytes::{BLOCK_BYTES, FRAME_BYTES};
use protocol::frames::Region;
use std::io;

/// Where RAM continues above the hole for devices, on every x86 machine of QEMU.
const HIGH: u64 = 4 << 30;

/// Why a machine's RAM is not supported.
#[derive(Debug, thiserror::Error)]
pub enum RamError {
    /// QEMU did not answer.
    #[error("Cannot ask QEMU for the guest's RAM")]
    Ask(#[from] QmpError),
    /// RAM that was plugged in is elsewhere, and may be unplugged.
    #[error("The guest has a {kind} plugged in, RAM that may be unplugged: unplug it first")]
    Plugged {
        /// Kind of the device.
        kind: String,
    },
    /// An image is not where it can be scanned.
    #[error("The image {name} cannot be found in QEMU: {why}")]
    Image {
        /// The image.
        name: String,
        /// Why.
        why: String,
    },
    /// A frame table has no half blocks.
    #[error("The guest has {bytes} bytes of RAM; a multiple of 2 MiB is needed")]
    Odd {
        /// RAM.
        bytes: u64,
    },
}

/// RAM, as QEMU reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RamLocation {
    /// All RAM, bytes.
    pub bytes: u64,
    /// Regions with their host addresses; or why the addresses are not known.
    pub slots: Result<Vec<(Region, u64)>, String>,
}

/// How an address range of a process is mapped, by the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mapped {
    /// All of it is private anonymous memory.
    Private,
    /// All of it is mapped, but some of it otherwise: mode and file of that mapping.
    Otherwise(String),
    /// Not all of it is mapped.
    No,
}

impl RamLocation {
    /// Asks QEMU.
    ///
    /// # Errors
    /// When QEMU does not answer, or the RAM is of a kind that is not supported.
    pub fn ask(qmp: &mut Qmp) -> Result<Self, RamError> {
        let bytes = qmp.call(&QueryMemorySize {})?.base_memory;
        // Files that are mapped as memory are not RAM: a balloon cannot take any of it.
        let is_ram = |kind: &str| !matches!(kind, "virtio-pmem" | "nvdimm");
        if let Some(device) =
            qmp.call(&QueryMemoryDevices {})?.into_iter().find(|device| is_ram(&device.kind))
        {
            return Err(RamError::Plugged { kind: device.kind.chars().take(40).collect() });
        }
        if bytes == 0 || !bytes.is_multiple_of(BLOCK_BYTES) {
            return Err(RamError::Odd { bytes });
        }
        let mut ask = |address: u64| -> Result<String, QmpError> {
            qmp.call(&HumanCommand { command_line: format!("gpa2hva {address:#x}") })
        };
        let last = bytes.min(HIGH) - FRAME_BYTES;
        let (low, last, high) = (ask(0)?, ask(last)?, ask(HIGH)?);
        Ok(Self { bytes, slots: slots(bytes, &low, &last, &high) })
    }

    /// Regions of the frame table.
    #[must_use]
    pub fn regions(&self) -> Vec<Region> {
        match &self.slots {
            Ok(slots) => slots.iter().map(|(region, _)| *region).collect(),
            Err(_) => vec![Region::ram(0, self.bytes / FRAME_BYTES)],
        }
    }

    /// How this RAM is mapped in a process; the worst of its parts.
    ///
    /// # Errors
    /// When the maps of the process cannot be read.
    pub fn mapped_in(&self, pid: i32) -> io::Result<Mapped> {
        let Ok(slots) = &self.slots else { return Ok(Mapped::No) };
        let maps = Folder::of(pid).maps()?;
        let mut found = Mapped::Private;
        for (region, host) in slots {
            match mapped(&maps, *host, host.saturating_add(region.count * FRAME_BYTES)) {
                Mapped::No => return Ok(Mapped::No),
                Mapped::Private => {}
                otherwise => found = otherwise,
            }
        }
        Ok(found)
    }
}

/// The slots of this RAM, from QEMU's answers about address 0, about the last address if all RAM is below the hole,
/// and about the first address above the hole.
fn slots(bytes: u64, low: &str, last: &str, high: &str) -> Result<Vec<(Region, u64)>, String> {
    let (name, base) = parse(low).ok_or_else(|| format!("QEMU answers for address 0: {}", low.trim()))?;
    if bytes <= HIGH && parse(last) == Some((name, base.wrapping_add(bytes - FRAME_BYTES))) {
        return Ok(vec![(Region::ram(0, bytes / FRAME_BYTES), base)]);
    }
    let (above, host) =
        parse(high).ok_or_else(|| format!("QEMU answers for address {HIGH:#x}: {}", high.trim()))?;
    // One memory backend, whose first part is below the hole.
    let below = host.wrapping_sub(base);
    if above != name || below == 0 || below >= bytes || below > HIGH || !below.is_multiple_of(BLOCK_BYTES) {
        return Err(format!("RAM is made of several backends ({name} and {above})"));
    }
    let high = Region::ram(HIGH / FRAME_BYTES, (bytes - below) / FRAME_BYTES);
    Ok(vec![(Region::ram(0, below / FRAME_BYTES), base), (high, host)])
}

/// `Host virtual address for 0x0 (pc.ram) is 0x7f39cfe00000`: the memory region and the address.
fn parse(text: &str) -> Option<(&str, u64)> {
    let (region, address) = text.trim().strip_prefix("Host virtual address for ")?.rsplit_once(" is 0x")?;
    let (_, name) = region.strip_suffix(')')?.split_once(" (")?;
    Some((name, u64::from_str_radix(address, 16).ok()?))
}

/// The host address in an answer of `gpa2hva`.
pub(super) fn host_address(text: &str) -> Option<u64> {
    parse(text).map(|(_, address)| address)
}

/// How a range is mapped, by the lines of a `/proc/PID/maps` (proc_pid_maps(5)).
fn mapped(maps: &str, start: u64, end: u64) -> Mapped {
    let mut at = start;
    let mut otherwise = None;
    for mapping in mappings(maps).filter(|mapping| mapping.start < end) {
        if mapping.end <= at {
            continue;
        }
        if mapping.start > at {
            return Mapped::No;
        }
        if mapping.mode != "rw-p" || !mapping.is_anonymous {
            let name = if mapping.name.is_empty() { "anonymous" } else { mapping.name };
            let name: String = name.chars().take(80).collect();
            otherwise.get_or_insert(format!("{} {name}", mapping.mode));
        }
        at = mapping.end;
    }
    match otherwise {
        _ if at < end => Mapped::No,
        Some(what) => Mapped::Otherwise(what),
        None => Mapped::Private,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn two_addresses_locate_ram_below_and_above_the_hole() {
        let low = "Host virtual address for 0x0 (pc.ram) is 0x7f0000000000\r\n";
        let none = "No memory is mapped at address 0x100000000\r\n";
        let last = "Host virtual address for 0x3ffff000 (pc.ram) is 0x7f003ffff000\r\n";
        let image = "Host virtual address for 0x100000000 (image0) is 0x7e0000000000\r\n";
        for above in [none, image] {
            let all = slots(GIB, low, last, above).unwrap();
            assert_eq!(all, [(Region::ram(0, GIB / 4096), 0x7f00_0000_0000)]);
        }
        let high = "Host virtual address for 0x100000000 (pc.ram) is 0x7f0080000000\r\n";
        let both = slots(6 * GIB, low, none, high).unwrap();
        assert_eq!(both[0], (Region::ram(0, 2 * GIB / 4096), 0x7f00_0000_0000));
        assert_eq!(both[1], (Region::ram(1 << 20, 4 * GIB / 4096), 0x7f00_8000_0000));
        let other = "Host virtual address for 0x100000000 (ram-node1) is 0x7f0080000000\r\n";
        assert!(slots(6 * GIB, low, none, other).unwrap_err().contains("ram-node1"));
        // Impossible answers of a hostile QEMU.
        assert!(slots(GIB, low, none, high).is_err() && slots(GIB, low, none, none).is_err());
        assert!(
            slots(GIB, "unknown command: 'gpa2hva'", last, none).unwrap_err().contains("unknown command")
        );
    }

    #[test]
    fn the_maps_of_a_process_show_how_a_range_is_mapped() {
        let maps = "1000-3000 rw-p 00000000 00:00 0 \n3000-5000 rw-p 00000000 00:00 0    [anon:x]\n\
                    6000-8000 rw-s 00000000 00:01 77 /memfd:ram (deleted)\n8000-9000 rw-p 00000000 00:00 0\n";
        assert_eq!(mapped(maps, 0x1000, 0x5000), Mapped::Private);
        assert_eq!(mapped(maps, 0x2000, 0x3000), Mapped::Private);
        assert_eq!(mapped(maps, 0x4000, 0x7000), Mapped::No);
        assert_eq!(mapped(maps, 0x7000, 0x9000), Mapped::Otherwise("rw-s /memfd:ram".into()));
        assert_eq!(mapped(maps, 0x8000, 0xa000), Mapped::No);
        assert_eq!(mapped("", 0, 1), Mapped::No);
    }
}
