use super::*;
use devices::testing::FakeGuest;
use devices::virtio::console::{INPUT_BYTES_MAX, TRANSMIT_QUEUE};

const RX: u32 = RECEIVE_QUEUE as u32;
const TX: u32 = TRANSMIT_QUEUE as u32;

/// A port, and its guest.
fn port() -> (Port, FakeGuest<Console>) {
    let (output, lines) = Port::output();
    let guest = FakeGuest::ready(8 << 20, Console::new(output), u64::MAX);
    let port = Port::new(Attached { device: guest.shared_transport(), kicks: vec![] }, lines);
    (port, guest)
}

fn write(port: &mut Port, guest: &mut FakeGuest<Console>, bytes: &[u8]) -> Vec<Command> {
    let buffer = guest.readable(bytes);
    assert_eq!(guest.send(TX, &[buffer]), Some(0));
    port.commands(TRANSMIT_QUEUE).into()
}

fn read(guest: &mut FakeGuest<Console>) -> String {
    let buffer = guest.writable(4096);
    let count = guest.send(RX, &[buffer]).unwrap_or(0);
    String::from_utf8(guest.contents(buffer)[..count as usize].to_vec()).unwrap()
}

#[test]
fn a_line_is_a_command_however_it_is_cut() {
    let (mut port, mut guest) = port();
    assert_eq!(write(&mut port, &mut guest, b"charge /ten"), []);
    let commands = write(&mut port, &mut guest, b"ants/x\r\n\n  charge -\nch");
    assert_eq!(commands, [Ok(Some("/tenants/x".parse().unwrap())), Ok(None)]);
    assert_eq!(write(&mut port, &mut guest, b"arge /\n"), [Ok(Some(ContainerPath::root()))]);
}

#[test]
fn a_line_that_is_not_a_command_is_refused_with_a_reason() {
    let (mut port, mut guest) = port();
    for (line, word) in [
        ("charge", "charge PATH"),
        ("charge /a /b", "charge PATH"),
        ("pay /a", "pay"),
        ("charge a", "does not start with /"),
        ("charge /..", ".."),
        ("\u{1b}[31m", "not a command"),
    ] {
        let commands = write(&mut port, &mut guest, format!("{line}\n").as_bytes());
        let [Err(why)] = commands.as_slice() else { panic!("{line}: {commands:?}") };
        assert!(why.contains(word), "{line}: {why}");
    }
    assert_eq!(write(&mut port, &mut guest, b"ok\nerror some reason\n"), [], "an echo is not a command");
    let noise: Vec<u8> = (0..=255).filter(|byte| *byte != b'\n').cycle().take(1 << 20).collect();
    assert_eq!(write(&mut port, &mut guest, &noise), []);
    let commands = write(&mut port, &mut guest, b"\ncharge -\n");
    assert!(matches!(commands.as_slice(), [Err(why), Ok(None)] if why.contains("longer")), "{commands:?}");
}

#[test]
fn the_memory_for_lines_of_a_hostile_guest_is_bounded() {
    let (mut port, mut guest) = port();
    assert_eq!(write(&mut port, &mut guest, &b"charge -\n".repeat(1000)).len(), LINES_MAX);
    for _ in 0..20_000 {
        port.answer(Err("no"));
    }
    assert!(port.lost > 0, "answers that the guest does not read are dropped");
    port.answer(Err("line\nbreak"));
    assert!(read(&mut guest).starts_with("error no\n"));
}

#[test]
fn one_question_at_a_time_and_each_is_answered_once() {
    let (mut port, mut guest) = port();
    let first = port.ask().unwrap();
    assert_eq!(port.ask(), None);
    port.refused(first + 1, "not asked");
    port.applied(1);
    port.granted(first, 7);
    port.applied(6);
    port.cancel_pending();
    assert_eq!(guest.transport().device().free_input(), INPUT_BYTES_MAX, "the charge is on its way");
    port.applied(7);
    port.applied(7);
    assert_eq!(read(&mut guest), "ok\n");
    let second = port.ask().unwrap();
    port.refused(second, "No\nroom");
    assert_eq!(read(&mut guest), "error No room\n");
    port.ask().unwrap();
    port.cancel_pending();
    assert!(read(&mut guest).contains("gone"));
    assert!(port.ask().is_some());
}
