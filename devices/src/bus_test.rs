use super::*;
use std::sync::Mutex;

#[derive(Default)]
struct Echo(Mutex<Vec<(u64, Vec<u8>)>>);

impl BusDevice for Echo {
    fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(offset as u8);
    }
    fn write(&self, offset: u64, data: &[u8]) -> Action {
        self.0.lock().unwrap().push((offset, data.to_vec()));
        Action::Reset
    }
}

#[test]
fn an_access_reaches_the_device_with_its_offset() {
    let mut bus = Bus::new();
    let device = Arc::new(Echo::default());
    bus.insert(0x1000, 0x100, device.clone()).unwrap();
    let mut byte = [0];
    assert!(bus.read(0x1042, &mut byte));
    assert_eq!(byte, [0x42]);
    assert_eq!(bus.write(0x10ff, &[7]), Some(Action::Reset));
    assert_eq!(*device.0.lock().unwrap(), [(0xff, vec![7])]);
}

#[test]
fn no_device_answers_outside_or_across_the_end_of_a_device() {
    let mut bus = Bus::new();
    bus.insert(0x1000, 0x100, Arc::new(Echo::default())).unwrap();
    for addr in [0, 0xfff, 0x10fd, 0x1100, u64::MAX] {
        let mut data = [0; 4];
        assert!(!bus.read(addr, &mut data), "{addr:#x}");
        assert_eq!(data, [0xff; 4]);
        assert_eq!(bus.write(addr, &data), None);
    }
}

#[test]
fn overlaps_and_overflows_are_refused() {
    let mut bus = Bus::new();
    let echo = || Arc::new(Echo::default());
    bus.insert(0x1000, 0x100, echo()).unwrap();
    for (base, len) in [(0x1000, 0x100), (0xfff, 2), (0x10ff, 1), (0, u64::MAX), (0x1010, 1)] {
        assert_eq!(bus.insert(base, len, echo()), Err(BusError::Overlap { base, len, other: 0x1000 }));
    }
    assert!(matches!(bus.insert(5, 0, echo()), Err(BusError::Range { .. })));
    assert!(matches!(bus.insert(u64::MAX, 2, echo()), Err(BusError::Range { .. })));
    bus.insert(0x1100, 1, echo()).unwrap();
    bus.insert(0xfff, 1, echo()).unwrap();
    bus.insert(u64::MAX, 1, echo()).unwrap();
}
