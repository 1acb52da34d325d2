//! A guest whose balancer refuses to take it back.

use super::*;
use protocol::frames::Region;
use protocol::message::{self, Balloon, FromVmm, MESSAGE_BYTES_MAX, PROTOCOL_VERSION};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::ffi::OsStrExt;

/// A socket as the balancer's. The standard library has no seqpacket type.
pub fn listen(path: &std::path::Path) -> File {
    // SAFETY: plain system calls with a valid address of that length; results are checked, the descriptor is owned at once.
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
        panic!("no registration")
    };
    link.write_all(&message::encode(answer).unwrap()).unwrap();
    (register, link)
}

/// What a guest of 2 MiB says that came back.
pub fn register() -> Register {
    Register {
        protocol_version: PROTOCOL_VERSION,
        name: "a".into(),
        container: "/a".parse().unwrap(),
        limits: None,
        images: vec![],
        merge: false,
        ram_bytes: 2 << 20,
        floor_bytes: 0,
        cpus: 1,
        devices: 2,
        fds: 30,
        threads: 4,
        engine: "kvm".into(),
        machine: None,
        charge_to: None,
        may_charge: vec![],
        owners: vec![],
        comes_back: true,
        wait: false,
        has_balloon: true,
        ram_unseen: None,
        balloon: Balloon::default(),
    }
}

#[test]
fn a_guest_that_is_refused_asks_again_until_it_is_taken_back() {
    let dir = std::env::temp_dir().join(format!("ballast-again-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let place = Place::new(Some(dir.clone()));
    let listener = listen(&place.guest_socket());
    let table = Arc::new(FrameTable::new(&[Region::ram(0, 512)]).unwrap());
    let register = register();
    let again = Again::start(place, register.clone(), table).unwrap();
    let mut refused_at = Vec::new();
    for reason in
        ["The frame table has version 3", "The frame table is too short", "There is a guest \"a\" already"]
    {
        assert_eq!(answer(&listener, &ToVmm::Refused { reason: reason.into() }).0, register);
        refused_at.push(Instant::now());
        assert!(again.take().is_none(), "it goes on asking");
    }
    let taken = ToVmm::Registered { protocol_version: PROTOCOL_VERSION, owner: 7, target_bytes: 1 << 20 };
    let (_, _link) = answer(&listener, &taken);
    let deadline = Instant::now() + Duration::from_secs(20);
    let (_, heard) = loop {
        if let Some(linked) = again.take() {
            break linked;
        }
        assert!(Instant::now() < deadline);
        sleep(Duration::from_millis(5));
    };
    assert_eq!(heard, taken);
    assert!(refused_at[2] - refused_at[1] > REFUSED_INTERVAL, "less often each time: {refused_at:?}");
    std::fs::remove_dir_all(dir).unwrap();
}
