//! A guest whose balancer refuses to admit it again.

use super::*;
use protocol::frames::Region;
use protocol::message::{self, FromVmm, MESSAGE_BYTES_MAX, PROTOCOL_VERSION};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Mutex;

/// A socket as the balancer's. The standard library has no seqpacket type.
pub fn listen(path: &std::path::Path) -> File {
    // SAFETY: plain system calls with a valid address of that length; results are checked, the descriptor is owned at
    // once.
    unsafe {
        let fd = libc::socket(libc::AF_UNIX, libc::SOCK_SEQPACKET, 0);
        assert!(fd >= 0);
        let file = File::from_raw_fd(fd);
        let mut address: libc::sockaddr_un = std::mem::zeroed();
        address.sun_family = libc::AF_UNIX as libc::sa_family_t;
        for (slot, byte) in address.sun_path.iter_mut().zip(path.as_os_str().as_bytes()) {
            *slot = byte.cast_signed();
        }
        let length = libc::socklen_t::try_from(size_of_val(&address)).unwrap();
        assert_eq!(libc::bind(fd, (&raw const address).cast(), length), 0);
        assert_eq!(libc::listen(fd, 8), 0);
        file
    }
}

/// Takes the next registration and answers it.
pub fn answer(listener: &File, answer: &ToVmm) -> (Register, File) {
    // SAFETY: a listening socket that we own; the result is checked and owned at once.
    let mut link = unsafe {
        let fd = libc::accept(listener.as_raw_fd(), std::ptr::null_mut(), std::ptr::null_mut());
        assert!(fd >= 0);
        File::from_raw_fd(fd)
    };
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
    let run_dir = Place::new(Some(dir.clone()));
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
