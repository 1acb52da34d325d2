//! A guest that reads and writes the registers of a virtio-mmio device in any order, with any width and any value.
//!
//! Input: records of an operation, a register and a value.

#![no_main]

use devices::GuestRam;
use devices::bus::BusDevice;
use devices::testing::{FakeRam, RecordingIrq};
use devices::virtio::balloon::BalloonOptions;
use devices::virtio::{Balloon, VirtioMmio};
use libfuzzer_sys::fuzz_target;
use std::sync::{Arc, Mutex};
use vm_memory::{Bytes, GuestAddress};

const RAM_BYTES: usize = 0x10_000;

fuzz_target!(|data: &[u8]| {
    let options = BalloonOptions { deflate_on_oom: true, free_page_reporting: true, stats: true };
    let mem = GuestRam::from_ranges(&[(GuestAddress(0), RAM_BYTES)]).expect("guest RAM can be mapped");
    let balloon = Balloon::new(16, Box::new(FakeRam::new(16)), options);
    let transport = Mutex::new(VirtioMmio::new(mem.clone(), balloon, Arc::new(RecordingIrq::default())));
    let (records, rest) = data.as_chunks::<8>();
    mem.write_slice(rest, GuestAddress(0x1000)).expect("the rest is in RAM");
    for record in records {
        let [op, register, low, high, value @ ..] = *record;
        let word = u64::from(register % 80) * 4;
        match op % 8 {
            0..=3 => drop(transport.write(word, &value)),
            4 => drop(transport.write(u64::from_le_bytes(*record) >> 8, &value[..usize::from(low % 5)])),
            5 => transport.read(word + u64::from(low % 4), &mut [0; 8][..usize::from(high % 9)]),
            6 => {
                let place = u64::from(u16::from_le_bytes([low, high]) & 0xfff0);
                mem.write_slice(&value, GuestAddress(place)).expect("the place is in RAM");
            }
            _ => {
                let mut transport = transport.lock().expect("nothing panicked");
                transport.queue_event(usize::from(low));
                transport.config_changed();
            }
        }
    }
});
