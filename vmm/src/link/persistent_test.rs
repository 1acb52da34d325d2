//! A guest whose balancers come and go, in an event loop as in production.

use super::super::reregister::tests::{answer, listen, register};
use super::*;
use event_manager::{EventManager, MutEventSubscriber, SubscriberId, SubscriberOps};
use protocol::frames::Region;
use protocol::message::{self, PROTOCOL_VERSION};
use std::fs::File;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// The balloon when a balancer goes.
const BALLOON: Balloon =
    Balloon { driver_ready: true, target_bytes: 1 << 20, actual_bytes: 1 << 20, oom_deflates: 3 };

/// As much of a control as the test needs.
struct Receiver {
    link: PersistentLink,
    received: Vec<Received>,
}

impl MutEventSubscriber for Receiver {
    fn process(&mut self, _: Events, ops: &mut EventOps<'_>) {
        while let Some(received) = self.link.receive(ops) {
            if received == Received::Closed {
                self.link.register_again(BALLOON, ops);
            }
            self.received.push(received);
        }
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        self.link.watch(ops);
    }
}

/// A receiver in its event loop, and the balancer's socket in a folder of its own.
struct Stage {
    manager: EventManager<Receiver>,
    receiver: SubscriberId,
    listener: File,
    dir: PathBuf,
}

impl Stage {
    /// A guest that registers like this; the connection to its first balancer.
    fn new(name: &str, register: &Register) -> (Self, File) {
        let dir = std::env::temp_dir().join(format!("ballast-persistent-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let run_dir = RunDir::new(Some(dir.clone()));
        let listener = listen(&run_dir.guest_socket());
        let table = Arc::new(FrameTable::new(&[Region::ram(0, 512)]).unwrap());
        let link = Link::ask(&run_dir.guest_socket(), register, table.fd()).unwrap();
        let (registered, balancer) = answer(&listener, &admitted(7));
        assert_eq!(registered, *register);
        let mut persistent = PersistentLink::new(table, 1);
        persistent.linked(Registration { run_dir, register: register.clone() }, link);
        let mut manager = EventManager::new().unwrap();
        let receiver = manager.add_subscriber(Receiver { link: persistent, received: vec![] });
        let mut stage = Self { manager, receiver, listener, dir };
        stage.receives(&[Received::Message(admitted(7))]);
        (stage, balancer)
    }

    fn receiver(&mut self) -> &mut Receiver {
        self.manager.subscriber_mut(self.receiver).unwrap()
    }

    /// Runs the loop until as much as expected is received, and compares it.
    fn receives(&mut self, expected: &[Received]) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.receiver().received.len() < expected.len() {
            assert!(Instant::now() < deadline, "only {:?} was received", self.receiver().received);
            self.manager.run_with_timeout(100).unwrap();
        }
        assert_eq!(std::mem::take(&mut self.receiver().received), expected);
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn admitted(owner: u16) -> ToVmm {
    ToVmm::Registered { protocol_version: PROTOCOL_VERSION, owner, target_bytes: 1 << 20 }
}

#[test]
fn a_guest_that_waited_at_its_launch_does_not_wait_when_it_registers_again() {
    let launch = Register { comes_back: false, wait: true, ..register() };
    let (mut stage, first) = Stage::new("waited", &launch);
    drop(first);
    stage.receives(&[Received::Closed]);
    let (registered, mut second) = answer(&stage.listener, &admitted(8));
    assert_eq!(registered, Register { comes_back: true, wait: false, balloon: BALLOON, ..launch });
    stage.receives(&[Received::Readmitted(admitted(8))]);
    // The new link works in both directions, as the first one did.
    second.write_all(&message::encode(&ToVmm::SampleStats).unwrap()).unwrap();
    stage.receives(&[Received::Message(ToVmm::SampleStats)]);
    let ended = FromVmm::Ended { reason: "done".into() };
    assert!(matches!(stage.receiver().link.try_send(&ended), Some(Ok(true))));
    let mut packet = [0; 256];
    let count = second.read(&mut packet).unwrap();
    assert_eq!(packet[..count], message::encode(&ended).unwrap());
}

#[test]
fn the_next_registration_has_the_payer_that_the_last_balancer_chose() {
    let limits = Some("64M".parse().unwrap());
    let launch = Register { limits, ..register() };
    let charge = |container: &str, charge_to: Option<&str>, owners: &[u16]| Charge {
        order: 1,
        question: None,
        container: container.parse().unwrap(),
        charge_to: charge_to.map(|path| path.parse().unwrap()),
        owner: 9,
        with_charges: false,
        owners: owners.to_vec(),
    };
    let (mut stage, mut balancer) = Stage::new("charged", &launch);
    let mut owner = 7;
    // Another payer leaves the limits of the container as they are; in another container they mean nothing.
    for (command, limits) in [
        (charge("/a", Some("/c"), &[7, 9]), launch.limits.clone()),
        (charge("/b", None, &[9]), None),
        (charge("/a", None, &[7]), None),
    ] {
        stage.receiver().link.charged(&command);
        drop(balancer);
        stage.receives(&[Received::Closed]);
        assert!(stage.receiver().link.try_send(&FromVmm::Balloon(BALLOON)).is_none(), "there is no balancer");
        owner += 1;
        let (registered, next) = answer(&stage.listener, &admitted(owner));
        assert_eq!((registered.container, registered.charge_to), (command.container, command.charge_to));
        assert_eq!((registered.owners, registered.limits), (command.owners, limits));
        stage.receives(&[Received::Readmitted(admitted(owner))]);
        balancer = next;
    }
}

#[test]
fn a_packet_that_is_not_a_message_is_ignored() {
    let (mut stage, mut balancer) = Stage::new("nonsense", &register());
    for packet in [b"{".to_vec(), vec![0xFF; 64], message::encode(&ToVmm::Reconcile).unwrap()] {
        balancer.write_all(&packet).unwrap();
    }
    stage.receives(&[Received::Message(ToVmm::Reconcile)]);
}
