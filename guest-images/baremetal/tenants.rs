//! A guest that serves two tenants in turn: it says by its control port (virtio 1.3, section 5.3) for which tenant it
//! touches memory, and reports how much it touched for each.

use crate::balloon::wait_for_key;
use crate::machine::{Decimal, fill};
use crate::say;
use crate::virtio::{Descriptor, Device, Queue, WRITE};

const ID: u32 = 3;
const ANSWER_BYTES: usize = 256;
static mut ANSWER: [u8; ANSWER_BYTES] = [0; ANSWER_BYTES];

struct Port {
    receive: Queue,
    transmit: Queue,
}

impl Port {
    fn open() -> Result<Self, &'static str> {
        let device = Device::find(ID)?;
        device.start(0)?;
        let port = Self { receive: device.queue(0)?, transmit: device.queue(1)? };
        device.ready();
        Ok(port)
    }

    /// Writes a line and waits for its answer; true for `ok`.
    fn request(&mut self, line: &[u8]) -> Result<bool, &'static str> {
        let address = (&raw const ANSWER) as u64;
        self.receive.set(0, Descriptor { address, length: ANSWER_BYTES as u32, flags: WRITE, next: 0 });
        self.receive.offer(0);
        self.transmit.exchange(line.as_ptr() as u64, line.len() as u32, 0)?;
        let count = self.receive.wait()? as usize;
        // SAFETY: one processor; the device wrote the answer before it said so.
        let answer = unsafe { (&raw const ANSWER).read_volatile() };
        let answer = answer.get(..count).unwrap_or_default();
        match (answer.starts_with(b"ok\n"), answer.starts_with(b"error ")) {
            (true, _) => Ok(true),
            (_, true) => Ok(false),
            _ => Err("the answer is neither ok nor error"),
        }
    }
}

/// Lines that must not be granted.
const REFUSED: [&[u8]; 6] =
    [b"charge /other\n", b"charge /\n", b"charge /tenants/none\n", b"charge\n", b"charge x\n", b"\xff\x00 pay\n"];

pub fn serve() -> Result<(), &'static str> {
    // Blocks of 2 MiB of their own: huge pages of the host belong to one tenant.
    const STEPS: [(&[u8], u64, u64); 4] = [
        (b"charge /tenants/x\n", 0x4800, 2048),
        (b"charge /tenants/y\n", 0x5000, 1024),
        (b"charge /tenants/x\n", 0x5800, 512),
        (b"charge -\n", 0x5c00, 512),
    ];
    let mut port = Port::open()?;
    fill(0x4000, 1024, 0x7e);
    for line in REFUSED {
        if port.request(line)? {
            return Err("what must be refused was granted");
        }
    }
    for (line, first, count) in STEPS {
        if !port.request(line)? {
            return Err("a tenant was refused");
        }
        fill(first, count, 0x7e);
    }
    say!("x={} y={}", Decimal(2048 + 512), Decimal(1024));
    wait_for_key();
    // For the container that is charged meanwhile.
    fill(0x6000, 512, 0x7e);
    say!("more={}", Decimal(512));
    wait_for_key();
    Ok(())
}

/// Touches 16 MiB, and 4 MiB more when a key is pressed.
pub fn touch_twice() -> Result<(), &'static str> {
    fill(0x4000, 4096, 0x70);
    say!("touched={}", Decimal(4096));
    wait_for_key();
    fill(0x6000, 1024, 0x70);
    say!("more={}", Decimal(1024));
    wait_for_key();
    Ok(())
}
