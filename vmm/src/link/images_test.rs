//! A balancer that gives images, refuses them, or answers nonsense.

use super::super::reregister::tests::listen;
use super::*;
use protocol::image::{Backing, Digest};
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use vmm_sys_util::sock_ctrl_msg::ScmSocket;

fn socket_path(name: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("ballast-images-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    dir.join("guests.sock")
}

/// Answers a connection after the question is read.
type Answer = fn(&mut File);

/// Asks a balancer that answers like this for two images. Returns the question as well.
fn ask(name: &str, answer: Answer) -> (io::Result<Granted>, OpenImages) {
    let socket = socket_path(name);
    let listener = listen(&socket);
    let (granted, question) = std::thread::scope(|scope| {
        let balancer = scope.spawn(|| {
            let mut link = File::from(rustix::net::accept(&listener).unwrap());
            let mut packet = vec![0; MESSAGE_BYTES_MAX];
            let count = link.read(&mut packet).unwrap();
            let FromVmm::OpenImages(question) = message::decode(&packet[..count]).unwrap() else {
                panic!("not that question")
            };
            answer(&mut link);
            question
        });
        let names = ["sha256:abcdef01".to_owned(), "0123456789".to_owned()];
        let granted = open_images(&socket, &"/web/a".parse().unwrap(), &names);
        (granted, balancer.join().unwrap())
    });
    std::fs::remove_dir_all(socket.parent().unwrap()).unwrap();
    (granted, question)
}

fn handle(byte: u8) -> ImageHandle {
    ImageHandle { digest: Digest::new([byte; 32]), bytes: 2 << 20, backing: Backing::Pagecache }
}

fn give(link: &mut File, images: Vec<ImageHandle>, files: usize) {
    let packet = message::encode(&ToVmm::Images { images }).unwrap();
    let files: Vec<File> = (0..files).map(|_| File::open("/proc/self/exe").unwrap()).collect();
    let raw: Vec<RawFd> = files.iter().map(AsRawFd::as_raw_fd).collect();
    let socket = UnixDatagram::from(std::os::fd::OwnedFd::from(link.try_clone().unwrap()));
    socket.send_with_fds(&[packet.as_slice()], &raw).unwrap();
}

#[test]
fn images_come_with_a_descriptor_each_in_the_order_of_their_names() {
    let (granted, question) = ask("given", |link| give(link, vec![handle(1), handle(2)], 2));
    assert_eq!(question.images, ["sha256:abcdef01", "0123456789"]);
    assert_eq!(
        (question.container.to_string(), question.protocol_version),
        ("/web/a".into(), PROTOCOL_VERSION)
    );
    let Granted::Images(images) = granted.unwrap() else { panic!("refused") };
    assert_eq!(
        images.iter().map(|(handle, _, _)| handle.clone()).collect::<Vec<_>>(),
        [handle(1), handle(2)]
    );
    for (_, file, _) in &images {
        assert!(file.metadata().unwrap().len() > 0);
        assert_eq!(rustix::io::fcntl_getfd(file).unwrap(), rustix::io::FdFlags::CLOEXEC);
    }
}

#[test]
fn a_refusal_keeps_its_reason() {
    let (granted, _) = ask("refused", |link| {
        let reason = "There is no image sha256:abcdef01".to_owned();
        link.write_all(&message::encode(&ToVmm::Refused { reason }).unwrap()).unwrap();
    });
    assert!(matches!(granted.unwrap(), Granted::Refused(reason) if reason.contains("no image")));
}

#[test]
fn nonsense_is_an_error_and_leaves_no_descriptor_open() {
    let answers: [(&str, Answer, &str); 6] = [
        ("few", |link| give(link, vec![handle(1)], 1), "asked for 2 images, got 1"),
        ("bare", |link| give(link, vec![handle(1), handle(2)], 0), "2 with 0 descriptors"),
        ("more", |link| give(link, vec![handle(1), handle(2)], 3), "2 with 3 descriptors"),
        (
            "else",
            |link| link.write_all(&message::encode(&ToVmm::SampleStats).unwrap()).unwrap(),
            "SampleStats",
        ),
        ("text", |link| link.write_all(b"hello").unwrap(), "malformed"),
        ("gone", |_| (), "closed the connection"),
    ];
    for (name, answer, words) in answers {
        let error = ask(name, answer).0.unwrap_err();
        assert!(error.to_string().contains(words), "{name}: {error}");
    }
}

#[test]
fn a_missing_balancer_is_an_error_at_once() {
    let error = open_images(Path::new("/no/such/socket"), &"/a".parse().unwrap(), &[]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}
