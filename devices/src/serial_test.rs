use super::*;
use crate::testing::{RecordingIrq, Sink};

const DATA: u64 = 0;
const INTERRUPT_ENABLE: u64 = 1;
const LINE_STATUS: u64 = 5;

fn port() -> (Serial, Sink, Arc<RecordingIrq>) {
    let (sink, irq) = (Sink::default(), Arc::new(RecordingIrq::default()));
    (Serial::new(Box::new(sink.clone()), irq.clone()), sink, irq)
}

fn read(serial: &Serial, offset: u64) -> u8 {
    let mut byte = [0];
    serial.read(offset, &mut byte);
    byte[0]
}

#[test]
fn bytes_that_the_guest_sends_are_written() {
    let (serial, sink, _) = port();
    for byte in b"hello" {
        assert_eq!(serial.write(DATA, &[*byte]), Action::None);
    }
    assert_eq!(sink.bytes(), b"hello");
}

#[test]
fn input_interrupts_and_is_read_back() {
    let (serial, _, irq) = port();
    serial.write(INTERRUPT_ENABLE, &[1]);
    assert_eq!(serial.input(b"ok"), 2);
    assert!(irq.count() > 0);
    assert_eq!(read(&serial, LINE_STATUS) & 1, 1, "data ready");
    assert_eq!([read(&serial, DATA), read(&serial, DATA)], *b"ok");
    assert_eq!(read(&serial, LINE_STATUS) & 1, 0);
}

#[test]
fn input_is_bounded() {
    let (serial, _, _) = port();
    let free = serial.free_input();
    assert_eq!(serial.input(&[1; 1000]), free);
    assert_eq!((serial.free_input(), serial.input(b"x")), (0, 0));
}

#[test]
fn odd_accesses_are_harmless() {
    let (serial, sink, _) = port();
    for offset in [0, 3, 7, 8, 255, 256, u64::MAX] {
        for width in 0..9 {
            let mut data = vec![0; width];
            serial.read(offset, &mut data);
            if width != 1 {
                serial.write(offset, &data);
            }
        }
    }
    assert_eq!(sink.bytes(), b"");
}
