//! Writes the inputs that fuzzing starts from: what a driver does in a few shapes, honest and not, for each target.
//!
//! `seeds FOLDER` makes a folder of each target in it. The records are those of `devices::testing::fuzz`: 16 bytes, an
//! operation, a queue, and what to write where.

use std::path::Path;

const WRITE_DESCRIPTOR: u8 = 0;
const WRITE_BYTES: u8 = 3;
const PUBLISH: u8 = 4;
const NOTIFY: u8 = 7;
/// Of the operation: the host changes the target, asks for statistics or sends input as well.
const HOST_ACTS: u8 = 0xf0;

/// Flags of a descriptor.
const NEXT: u8 = 1;
const WRITABLE: u8 = 2;

/// Where a descriptor leads: see `Driven::apply`.
const RAM: u8 = 0;
const IMAGE: u8 = 1;
const NOWHERE: u8 = 3;

/// Queues of the device with most of them.
const QUEUES: u8 = 5;
/// Targets whose first byte is a mode.
const WITH_MODE: [&str; 2] = ["block", "registers"];
const TARGETS: [&str; 6] = ["balloon", "block", "console", "entropy", "pmem", "registers"];

/// A descriptor: flags, length, and where it leads.
type Part = (u8, u16, u8);

/// Chains, and what the first buffer holds.
const SHAPES: [(&str, &[Part], [u8; 11]); 9] = [
    // Frames 1 and 2 for a balloon, a header of a write for a disk, text for a console.
    ("readable", &[(0, 8, RAM)], [1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0]),
    ("writable", &[(WRITABLE, 64, RAM)], [0; 11]),
    ("read", &[(NEXT, 16, RAM), (NEXT | WRITABLE, 512, RAM), (WRITABLE, 1, RAM)], [0; 11]),
    ("write", &[(NEXT, 16, RAM), (NEXT, 512, RAM), (WRITABLE, 1, RAM)], [1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0]),
    ("flush", &[(NEXT, 16, RAM), (WRITABLE, 1, RAM)], [4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
    ("identity", &[(NEXT, 16, RAM), (NEXT | WRITABLE, 20, RAM), (WRITABLE, 1, RAM)], [8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
    ("into-image", &[(NEXT, 16, RAM), (WRITABLE, 512, IMAGE)], [0; 11]),
    ("nowhere", &[(NEXT, 16, RAM), (WRITABLE, 512, NOWHERE)], [0; 11]),
    ("empty", &[(0, 0, RAM)], [0; 11]),
];

fn record(operation: u8, queue: u8, at: u8, flags: u8, next: u8, rest: [u8; 11]) -> Vec<u8> {
    [&[operation, queue, at, flags, next], &rest[..]].concat()
}

fn chain(queue: u8, parts: &[Part], content: [u8; 11]) -> Vec<u8> {
    let mut records = record(WRITE_BYTES, queue, 0, 0, 0, content);
    for (at, (flags, length, wild)) in (0u8..).zip(parts) {
        let [low, high] = length.to_le_bytes();
        let rest = [low, high, 0, at * 4, *wild, 0, 0, 0, 0, 0, 0];
        records.extend(record(WRITE_DESCRIPTOR, queue, at, *flags, at + 1, rest));
    }
    records.extend(record(PUBLISH, queue, 0, 0, 0, [0; 11]));
    records.extend(record(NOTIFY, queue, 0, 0, 0, [0; 11]));
    let mut target = [0; 11];
    target[10] = 100;
    records.extend(record(HOST_ACTS | NOTIFY, queue, 0, 0, 0, target));
    records
}

fn write(folder: &Path, name: &str, mode: Option<u8>, records: &[u8]) -> std::io::Result<()> {
    let mut bytes = Vec::from_iter(mode);
    bytes.extend(records);
    std::fs::write(folder.join(name), bytes)
}

fn main() -> std::io::Result<()> {
    let folder = std::env::args().nth(1).expect("Usage: seeds FOLDER");
    for target in TARGETS {
        let folder = Path::new(&folder).join(target);
        std::fs::create_dir_all(&folder)?;
        let modes = if WITH_MODE.contains(&target) { vec![Some(0), Some(1)] } else { vec![None] };
        for (queue, mode) in (0..QUEUES).flat_map(|queue| modes.iter().map(move |mode| (queue, *mode))) {
            for (name, parts, content) in SHAPES {
                let name = format!("{name}-{queue}-{}", mode.unwrap_or(0));
                write(&folder, &name, mode, &chain(queue, parts, content))?;
            }
            let endless = [(NEXT, 16, RAM); 16];
            write(&folder, &format!("endless-{queue}-{}", mode.unwrap_or(0)), mode, &chain(queue, &endless, [0; 11]))?;
        }
    }
    Ok(())
}
