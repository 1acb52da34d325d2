//! A guest whose balancers come and go, in an event loop as the engines have it.

use super::super::again::tests::{answer, listen, register};
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

/// As much of an engine as it takes.
struct Engine {
    link: KeptLink,
    heard: Vec<Heard>,
}

impl MutEventSubscriber for Engine {
    fn process(&mut self, _: Events, ops: &mut EventOps<'_>) {
        while let Some(heard) = self.link.hear(ops) {
            if heard == Heard::Gone {
                self.link.register_again(BALLOON, ops);
            }
            self.heard.push(heard);
        }
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        self.link.watch(ops);
    }
}

/// An engine in its event loop, and the balancer's socket in a folder of its own.
struct Stage {
    manager: EventManager<Engine>,
    engine: SubscriberId,
    listener: File,
    dir: PathBuf,
}

impl Stage {
    /// A guest that says this; the connection to its first balancer.
    fn new(name: &str, register: &Register) -> (Self, File) {
        let dir = std::env::temp_dir().join(format!("ballast-kept-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let place = Place::new(Some(dir.clone()));
        let listener = listen(&place.guest_socket());
        let table = Arc::new(FrameTable::new(&[Region::ram(0, 512)]).unwrap());
        let link = Link::ask(&place.guest_socket(), register, table.fd()).unwrap();
        let (said, balancer) = answer(&listener, &taken(7));
        assert_eq!(said, *register);
        let mut kept = KeptLink::new(table, 1);
        kept.linked(Registration { place, register: register.clone() }, link);
        let mut manager = EventManager::new().unwrap();
        let engine = manager.add_subscriber(Engine { link: kept, heard: vec![] });
        let mut stage = Self { manager, engine, listener, dir };
        stage.hears(&[Heard::Said(taken(7))]);
        (stage, balancer)
    }

    fn engine(&mut self) -> &mut Engine {
        self.manager.subscriber_mut(self.engine).unwrap()
    }

    /// Runs the loop until so much was heard; it is to be this.
    fn hears(&mut self, expected: &[Heard]) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.engine().heard.len() < expected.len() {
            assert!(Instant::now() < deadline, "only {:?} was heard", self.engine().heard);
            self.manager.run_with_timeout(100).unwrap();
        }
        assert_eq!(std::mem::take(&mut self.engine().heard), expected);
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn taken(owner: u16) -> ToVmm {
    ToVmm::Registered { protocol_version: PROTOCOL_VERSION, owner, target_bytes: 1 << 20 }
}

#[test]
fn a_guest_that_waited_at_its_launch_comes_back_as_one_that_runs() {
    let launch = Register { comes_back: false, wait: true, ..register() };
    let (mut stage, first) = Stage::new("waited", &launch);
    drop(first);
    stage.hears(&[Heard::Gone]);
    let (said, mut second) = answer(&stage.listener, &taken(8));
    assert_eq!(said, Register { comes_back: true, wait: false, balloon: BALLOON, ..launch });
    stage.hears(&[Heard::TakenBack(taken(8))]);
    // It is a link as the first one was, both ways.
    second.write_all(&message::encode(&ToVmm::SampleStats).unwrap()).unwrap();
    stage.hears(&[Heard::Said(ToVmm::SampleStats)]);
    let ended = FromVmm::Ended { reason: "done".into() };
    assert!(matches!(stage.engine().link.tell(&ended), Some(Ok(true))));
    let mut packet = [0; 256];
    let count = second.read(&mut packet).unwrap();
    assert_eq!(packet[..count], message::encode(&ended).unwrap());
}

#[test]
fn the_next_balancer_is_told_what_the_last_one_said_of_who_pays() {
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
    // Whom it charges beside its container leaves its limits as they are; in another container they mean nothing.
    for (orders, limits) in [
        (charge("/a", Some("/c"), &[7, 9]), launch.limits.clone()),
        (charge("/b", None, &[9]), None),
        (charge("/a", None, &[7]), None),
    ] {
        stage.engine().link.charged(&orders);
        drop(balancer);
        stage.hears(&[Heard::Gone]);
        assert!(stage.engine().link.tell(&FromVmm::Balloon(BALLOON)).is_none(), "nobody is there");
        owner += 1;
        let (said, next) = answer(&stage.listener, &taken(owner));
        assert_eq!((said.container, said.charge_to), (orders.container, orders.charge_to));
        assert_eq!((said.owners, said.limits), (orders.owners, limits));
        stage.hears(&[Heard::TakenBack(taken(owner))]);
        balancer = next;
    }
}

#[test]
fn what_is_no_message_is_passed_over() {
    let (mut stage, mut balancer) = Stage::new("nonsense", &register());
    for packet in [b"{".to_vec(), vec![0xFF; 64], message::encode(&ToVmm::Reconcile).unwrap()] {
        balancer.write_all(&packet).unwrap();
    }
    stage.hears(&[Heard::Said(ToVmm::Reconcile)]);
}
