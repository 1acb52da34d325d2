use super::*;
use crate::testing::{Buffer, FakeGuest, Sink};

const RX: u32 = RECEIVE_QUEUE as u32;
const TX: u32 = TRANSMIT_QUEUE as u32;

fn guest() -> (FakeGuest<Console>, Sink) {
    let sink = Sink::default();
    let out = sink.clone();
    let console = Console::new(Box::new(move |bytes| out.append(bytes)));
    (FakeGuest::ready(8 << 20, console, u64::MAX), sink)
}

fn input(guest: &FakeGuest<Console>, bytes: &[u8]) -> usize {
    let mut transport = guest.transport();
    let accepted = transport.device_mut().input(bytes);
    while transport.queue_event(RECEIVE_QUEUE) {}
    accepted
}

#[test]
fn bytes_that_the_guest_writes_come_out() {
    let (mut guest, sink) = guest();
    let line = [guest.readable(b"hello "), guest.readable(b"host\n")];
    assert_eq!(guest.send(TX, &line), Some(0));
    assert_eq!(sink.bytes(), b"hello host\n");
    assert_eq!(guest.transport().device().counters().transmitted_bytes, 11);
}

#[test]
fn input_waits_for_receive_buffers() {
    let (mut guest, _) = guest();
    assert_eq!(input(&guest, b"hello guest"), 11);
    let (first, second) = (guest.writable(5), guest.writable(100));
    assert_eq!(guest.send(RX, &[first]), Some(5));
    assert_eq!(guest.send(RX, &[second]), Some(6));
    assert_eq!(guest.contents(first), b"hello");
    assert_eq!(guest.contents(second)[..6], *b" guest");
    assert_eq!(guest.transport().device().counters().received_bytes, 11);
}

#[test]
fn receive_buffers_wait_for_input() {
    let (mut guest, _) = guest();
    let buffer = guest.writable(100);
    assert_eq!(guest.send(RX, &[buffer]), None);
    let irqs = guest.irq.count();
    input(&guest, b"now");
    assert_eq!(guest.used(RX), [(0, 3)]);
    assert_eq!(guest.irq.count(), irqs + 1);
}

#[test]
fn input_survives_the_reset_before_a_probe_and_is_bounded() {
    let (mut guest, _) = guest();
    assert_eq!(input(&guest, &vec![7; 2 * INPUT_BYTES_MAX]), INPUT_BYTES_MAX);
    assert_eq!(input(&guest, b"x"), 0);
    guest.probe(u64::MAX);
    let buffer = guest.writable(2 * INPUT_BYTES_MAX);
    assert_eq!(guest.send(RX, &[buffer]), Some(INPUT_BYTES_MAX as u32));
    assert_eq!(guest.transport().device().free_input(), INPUT_BYTES_MAX);
}

#[test]
fn many_buffers_are_filled_in_several_rounds() {
    let (mut guest, _) = guest();
    for _ in 0..60 {
        let buffer = guest.writable(100);
        guest.add(RX, &[buffer]);
    }
    guest.notify(RX);
    assert_eq!(guest.used(RX), []);
    input(&guest, &[1; 4050]);
    let used = guest.used(RX);
    assert_eq!(used.len(), 41);
    assert_eq!(used.iter().map(|(_, len)| len).sum::<u32>(), 4050);
}

#[test]
fn bad_chains_are_answered_and_counted() {
    let (mut guest, sink) = guest();
    let (readable, writable) = (guest.readable(b"x"), guest.writable(1));
    assert_eq!(guest.send(TX, &[writable]), Some(0));
    assert_eq!(guest.send(TX, &[Buffer { gpa: u64::MAX, len: 1, writable: false }]), Some(0));
    input(&guest, b"y");
    assert_eq!(guest.send(RX, &[readable]), Some(0));
    assert_eq!(guest.transport().device().counters().bad_chains, 3);
    assert_eq!(sink.bytes(), b"");
}

#[test]
fn a_chain_longer_than_allowed_is_cut() {
    let (mut guest, sink) = guest();
    let buffer = Buffer { gpa: 0, len: 2 * TRANSMIT_BYTES_MAX as u32, writable: false };
    assert_eq!(guest.send(TX, &[buffer]), Some(0));
    assert_eq!(sink.bytes().len(), TRANSMIT_BYTES_MAX);
    assert_eq!(guest.transport().device().counters().dropped_bytes, TRANSMIT_BYTES_MAX as u64);
}
