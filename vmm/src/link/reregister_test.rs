//! A guest whose balancer refuses to admit it again.

use super::*;
use protocol::frames::Region;
use protocol::message::{self, FromVmm, MESSAGE_BYTES_MAX, PROTOCOL_VERSION};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType};
use std::fs::File;
use std::io::{Read, Write};
use std::sync::Mutex;

/// A socket as the balancer's. The standard library has no seqpacket type.
pub fn listen(path: &std::path::Path) -> File {
    let fd = rustix::net::socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).unwrap();
    rustix::net::bind(&fd, &SocketAddrUnix::new(path).unwrap()).unwrap();
    rustix::net::listen(&fd, 8).unwrap();
    fd.into()
}

/// Takes the next registration and answers it.
pub fn answer(listener: &File, answer: &ToVmm) -> (Register, File) {
    let mut link = File::from(rustix::net::accept(listener).unwrap());
    let mut packet = vec![0; MESSAGE_BYTES_MAX];
    let count = link.read(&mut packet).unwrap();
    let FromVmm::Register(register) = message::decode(&packet[..count]).unwrap() else {
        panic!("not a registration")
    };
    link.write_all(&message::encode(answer).unwrap()).unwrap();
    (register, link)
}

/// The registration of a guest of 2 MiB that comes back.
pub fn register() -> Register {
    Register { comes_back: true, ..Register::of("a", "/a".parse().unwrap(), 2 << 20) }
}

/// A clock that only sleeping moves, and that does not sleep.
#[derive(Clone)]
struct TestClock {
    start: Instant,
    slept: Arc<Mutex<Vec<Duration>>>,
}

impl TestClock {
    fn new() -> Self {
        Self { start: Instant::now(), slept: Arc::default() }
    }
}

impl Clock for TestClock {
    fn now(&self) -> Instant {
        self.start + self.slept.lock().unwrap().iter().sum::<Duration>()
    }

    fn sleep(&self, time: Duration) {
        self.slept.lock().unwrap().push(time);
    }
}

#[test]
fn a_refused_guest_retries_less_and_less_often_until_it_is_admitted() {
    let dir = std::env::temp_dir().join(format!("ballast-reregister-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let run_dir = RunDir::new(Some(dir.clone()));
    let listener = listen(&run_dir.guest_socket());
    let table = Arc::new(FrameTable::new(&[Region::ram(0, 512)]).unwrap());
    let (register, clock) = (register(), TestClock::new());
    let again = Reregistration::start(run_dir, register.clone(), table, clock.clone()).unwrap();
    for refusal in 0..12 {
        let reason = format!("Refusal {refusal}");
        assert_eq!(answer(&listener, &ToVmm::Refused { reason }).0, register);
        assert!(again.take().is_none(), "it must retry");
    }
    let admitted = ToVmm::Registered { protocol_version: PROTOCOL_VERSION, owner: 7, target_bytes: 1 << 20 };
    let (_, _link) = answer(&listener, &admitted);
    let (_, answered) = again.outcome.recv_timeout(Duration::from_secs(20)).unwrap();
    assert_eq!(answered, admitted);
    let gaps = clock.slept.lock().unwrap().clone();
    assert_eq!(gaps.len(), 12, "one pause after each refusal");
    let (growing, longest) = gaps.split_at(gaps.partition_point(|gap| *gap < REFUSED_INTERVAL_MAX));
    assert!(
        growing.windows(2).all(|pair| pair[0] < pair[1]),
        "each gap is longer than the last one: {gaps:?}"
    );
    assert!(!longest.is_empty() && longest.iter().all(|gap| *gap == REFUSED_INTERVAL_MAX), "{gaps:?}");
    std::fs::remove_dir_all(dir).unwrap();
}
