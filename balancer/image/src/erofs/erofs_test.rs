use crate::testing::{Memory, Node, build, fsck, read_back};
use crate::tree::{Inode, InodeId, Kind, TreeError};
use crate::{BuildError, check};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;

/// Fixed for ever: a change of the layout changes all digests.
const GOLDEN: &str = "sha256:dfcc537782dba211873d9168bfb51fd29344419285f1e1e221fe7527981a2aeb";

/// The path of an open file without a name.
fn path(file: &File) -> PathBuf {
    format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd()).into()
}

fn full() -> Memory {
    let mut memory = Memory::default();
    let id = memory.file("bin/ping", &b"elf".repeat(3000));
    memory.tree.get_mut(id).xattrs.insert(b"security.capability".to_vec(), vec![1, 0, 0, 2, 0, 0x0a, 0, 0]);
    memory.link("bin/ping6", id);
    memory.add("bin/su", Inode { uid: 70_000, gid: 5, ..Inode::new(0o4755, Kind::Regular(0)) });
    let su = memory.tree.lookup(memory.tree.lookup(memory.tree.root(), b"bin").unwrap(), b"su").unwrap();
    memory.contents.insert(su, Vec::new());
    memory.add("lib", Inode::new(0o777, Kind::Symlink(b"usr/lib".to_vec())));
    memory.add("long", Inode::new(0o777, Kind::Symlink(vec![b'x'; 4095])));
    memory.add("dev/null", Inode::new(0o666, Kind::Char(1, 3)));
    memory.add("dev/sda", Inode::new(0o660, Kind::Block(8, 1_000_000)));
    memory.add("dev/pipe", Inode::new(0o600, Kind::Fifo));
    memory.add("dev/log", Inode::new(0o600, Kind::Socket));
    memory.add("gone", Inode::new(0, Kind::Char(0, 0)));
    let mut opaque = Inode::folder();
    opaque.xattrs.insert(b"trusted.overlay.opaque".to_vec(), b"y".to_vec());
    opaque.xattrs.insert(b"user.large".to_vec(), vec![7; 20_000]);
    memory.add("var", opaque);
    for index in 0..1000 {
        memory.file(&format!("many/a name of some length, number {index}"), &[index as u8; 5]);
    }
    memory
}

#[test]
fn everything_a_tree_can_hold_comes_back() {
    let (file, _) = full().build();
    let nodes = read_back(&file);
    let node = |path: &str| nodes.get(path).unwrap_or_else(|| panic!("{path} is missing"));
    assert_eq!(node("/bin/ping").held, b"elf".repeat(3000));
    assert_eq!((node("/bin/ping").links, &node("/bin/ping").first), (2, &node("/bin/ping6").first));
    assert_eq!(node("/bin/ping").xattrs[b"security.capability".as_slice()][5], 0x0a);
    assert_eq!((node("/bin/su").mode, node("/bin/su").owner), (0o104_755, (70_000, 5)));
    assert_eq!((node("/lib").mode, node("/lib").held.as_slice()), (0o120_777, b"usr/lib".as_slice()));
    assert_eq!(node("/long").held, [b'x'; 4095]);
    assert_eq!(
        (node("/dev/null").held.as_slice(), node("/dev/null").mode),
        (b"(1, 3)".as_slice(), 0o020_666)
    );
    assert_eq!(node("/dev/sda").held, b"(8, 1000000)");
    assert_eq!((node("/dev/pipe").mode, node("/dev/log").mode), (0o010_600, 0o140_600));
    assert_eq!((node("/gone").mode, node("/gone").held.as_slice()), (0o020_000, b"(0, 0)".as_slice()));
    assert_eq!(node("/var").xattrs[b"trusted.overlay.opaque".as_slice()], b"y");
    assert_eq!(node("/var").xattrs[b"user.large".as_slice()].len(), 20_000);
    assert_eq!((node("/").links, node("/bin").links), (6, 2));
    assert_eq!(nodes.keys().filter(|path| path.starts_with("/many/")).count(), 1000);
    let report = check(&file).unwrap();
    assert_eq!((report.files, report.folders, report.bytes % (2 << 20)), (1002, 5, 0));
}

#[test]
fn the_digest_of_a_known_tree_never_changes() {
    assert_eq!(full().build().1.to_string(), GOLDEN);
}

#[test]
fn a_file_of_five_gib_has_its_place() {
    let mut memory = Memory::default();
    let bytes = 5 << 30;
    let id = memory.add("holes", Inode::new(0o600, Kind::Regular(bytes)));
    let last = memory.file("last", b"here");
    let traversal = memory.tree.traversal();
    let plan = super::Plan::new(&memory.tree, &traversal).unwrap();
    let (holes, last) = (plan.place(id).unwrap(), plan.place(last).unwrap());
    assert_eq!(u64::from(last.block - holes.block), bytes / 4096);
    assert_eq!(plan.bytes, bytes + (2 << 20));
    // As the image would be, without 5 GiB of zeros.
    let file = tempfile::tempfile().unwrap();
    file.set_len(plan.bytes).unwrap();
    file.write_all_at(&plan.metadata, 0).unwrap();
    assert_eq!(check(&file).unwrap().content_bytes, bytes + 4);
    file.set_len(bytes).unwrap();
    assert!(check(&file).unwrap_err().to_string().contains("blocks of 4096, but the file has"));
}

#[test]
fn fsck_and_the_kernel_read_what_was_written() {
    let (file, _) = full().build();
    if let Some(result) = fsck(&path(&file)) {
        result.unwrap();
    }
    let place = tempfile::tempdir().unwrap();
    let image = place.path().join("image");
    std::io::copy(&mut File::open(path(&file)).unwrap(), &mut File::create(&image).unwrap()).unwrap();
    let mounted = place.path().join("mounted");
    std::fs::create_dir(&mounted).unwrap();
    let mount =
        Command::new("mount").args(["-t", "erofs", "-o", "ro,loop"]).args([&image, &mounted]).output();
    match mount {
        Ok(output) if output.status.success() => {}
        other => {
            skip::skip!(ErofsMount, "the kernel's own reader is not compared: {other:?}");
            return;
        }
    }
    let look = || {
        use std::os::unix::fs::MetadataExt;
        assert_eq!(std::fs::read(mounted.join("bin/ping6")).unwrap(), b"elf".repeat(3000));
        assert_eq!(std::fs::read_link(mounted.join("long")).unwrap().as_os_str().len(), 4095);
        let su = std::fs::metadata(mounted.join("bin/su")).unwrap();
        assert_eq!((su.mode(), su.uid(), su.mtime()), (0o104_755, 70_000, 0));
        assert_eq!(
            std::fs::symlink_metadata(mounted.join("dev/sda")).unwrap().rdev(),
            (8 << 8) | (1_000_000 << 12 & !0xf_ffff) | 64
        );
        let mut value = vec![0; 30_000];
        let get = |path: &str, name: &str, value: &mut [u8]| {
            rustix::fs::getxattr(mounted.join(path), name, value).unwrap()
        };
        assert_eq!(get("var", "user.large", &mut value), 20_000);
        assert_eq!(get("var", "trusted.overlay.opaque", &mut value), 1);
        for index in 0..1000 {
            let name = format!("many/a name of some length, number {index}");
            assert_eq!(std::fs::read(mounted.join(name)).unwrap(), [index as u8; 5]);
        }
        assert_eq!(std::fs::read_dir(mounted.join("many")).unwrap().count(), 1000);
    };
    let result = std::panic::catch_unwind(look);
    // Lazily: a child that another test starts has this process's descriptors until it runs its program.
    assert!(Command::new("umount").arg("-l").arg(&mounted).status().unwrap().success());
    result.unwrap();
}

#[test]
fn what_does_not_fit_is_named() {
    let device = |major, minor| Inode::new(0o600, Kind::Char(major, minor));
    let with = |name: &[u8], value: usize| {
        let mut inode = Inode::folder();
        inode.xattrs.insert(name.to_vec(), vec![0; value]);
        inode
    };
    let long_name = [b"user.".as_slice(), &[b'x'; 256]].concat();
    let cases: [(Inode, &str); 8] = [
        (Inode::new(0o777, Kind::Symlink(Vec::new())), "/a/b: the target of the symbolic link has 0 bytes"),
        (Inode::new(0o777, Kind::Symlink(vec![b'x'; 4096])), "has 4096 bytes"),
        (device(4096, 0), "/a/b: device 4096:0"),
        (device(0, 1 << 20), "device 0:1048576"),
        (with(&long_name, 1), "name of 261"),
        (with(b"user.a", 65_536), "a value of 65536 bytes"),
        (with(b"system.unknown", 1), "system.unknown"),
        (Inode::new(0o600, Kind::Regular((1 << 40) + 1)), "more than 1099511627776 bytes"),
    ];
    for (inode, words) in cases {
        let mut memory = Memory::default();
        memory.add("a/b", inode);
        let error = build(memory).unwrap_err().to_string();
        assert!(error.contains(words), "{error:?} does not say {words:?}");
    }
    let mut memory = Memory::default();
    let mut inode = Inode::folder();
    inode.xattrs = (0..5).map(|index| (format!("user.{index}").into_bytes(), vec![0; 60_000])).collect();
    memory.add("a", inode);
    let error = build(memory).unwrap_err();
    assert!(matches!(error, BuildError::Tree(TreeError::Xattrs { bytes: 300_000.., .. })), "{error}");
}

/// One entry of a random tree: where, what, and whether it is a second name of the one before.
#[derive(Debug, Clone)]
struct Random {
    path: String,
    kind: RandomKind,
    mode: u16,
    owner: (u32, u32),
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    second_name: Option<String>,
}

#[derive(Debug, Clone)]
enum RandomKind {
    File(Vec<u8>),
    Link(Vec<u8>),
    Device(u32, u32),
    Folder,
}

fn random() -> impl Strategy<Value = Vec<Random>> {
    let name = "[a-z.A-Z éß!~-]{1,60}".prop_filter("not a name", |name| name != "." && name != "..");
    let path = (0..4_u8, name.clone()).prop_map(|(folder, name)| match folder {
        0 => name,
        folder => format!("{}{name}", "folder/".repeat(folder.into())),
    });
    let contents =
        prop_oneof![vec(any::<u8>(), 0..20), (0..20_000_usize, any::<u8>()).prop_map(|(n, b)| vec![b; n])];
    let kind = prop_oneof![
        4 => contents.prop_map(RandomKind::File),
        1 => vec(1..=255_u8, 1..4096).prop_map(RandomKind::Link),
        1 => (0..4096_u32, 0..1_u32 << 20).prop_map(|(major, minor)| RandomKind::Device(major, minor)),
        1 => Just(RandomKind::Folder),
    ];
    let xattrs = btree_map("user\\.[a-z]{1,30}".prop_map(String::into_bytes), vec(any::<u8>(), 0..300), 0..4);
    let owner = prop_oneof![(0..100_u32, 0..100_u32), (any::<u32>(), any::<u32>())];
    let entry = (path, kind, 0..0o10000_u16, owner, xattrs, proptest::option::weighted(0.2, name)).prop_map(
        |(path, kind, mode, owner, xattrs, second_name)| Random {
            path,
            kind,
            mode,
            owner,
            xattrs,
            second_name,
        },
    );
    vec(entry, 0..80)
}

/// The tree, entries in the order that `keys` gives, and what must be read back.
fn grown(entries: &[Random], backwards: bool) -> (Memory, BTreeMap<String, Node>) {
    let mut memory = Memory::default();
    let mut expected = BTreeMap::new();
    let mut taken = std::collections::BTreeSet::from([
        "folder".to_owned(),
        "folder/folder".into(),
        "folder/folder/folder".into(),
    ]);
    let kept: Vec<&Random> = entries.iter().filter(|entry| taken.insert(entry.path.clone())).collect();
    let names: Vec<(&Random, Option<String>)> = kept
        .into_iter()
        .map(|entry| {
            let folder = matches!(entry.kind, RandomKind::Folder);
            let second = entry.second_name.clone().filter(|name| !folder && taken.insert(name.clone()));
            (entry, second)
        })
        .collect();
    let ordered: Vec<_> = if backwards { names.iter().rev().collect() } else { names.iter().collect() };
    for (entry, second) in ordered {
        let (kind, held) = match &entry.kind {
            RandomKind::File(held) => (Kind::Regular(held.len() as u64), held.clone()),
            RandomKind::Link(held) => (Kind::Symlink(held.clone()), held.clone()),
            RandomKind::Device(major, minor) => {
                (Kind::Char(*major, *minor), format!("{:?}", (major, minor)).into())
            }
            RandomKind::Folder => (Inode::folder().kind, Vec::new()),
        };
        let mut inode = Inode { uid: entry.owner.0, gid: entry.owner.1, ..Inode::new(entry.mode, kind) };
        inode.xattrs = entry.xattrs.clone();
        let mut paths = vec![entry.path.clone()];
        paths.extend(second.clone());
        if backwards {
            paths.reverse();
        }
        let id: InodeId = memory.add(&paths[0], inode);
        for path in &paths[1..] {
            memory.link(path, id);
        }
        if matches!(entry.kind, RandomKind::File(_)) {
            memory.contents.insert(id, held.clone());
        }
        let links = if matches!(entry.kind, RandomKind::Folder) { 2 } else { paths.len() as u32 };
        let node = Node {
            mode: entry.mode,
            owner: entry.owner,
            links,
            xattrs: entry.xattrs.clone(),
            held,
            first: String::new(),
        };
        for path in paths {
            expected.insert(format!("/{path}"), node.clone());
        }
    }
    (memory, expected)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn a_random_tree_comes_back_and_its_digest_knows_no_order(entries in random()) {
        let (memory, expected) = grown(&entries, false);
        let (file, digest) = build(memory).unwrap();
        let found = read_back(&file);
        for (path, node) in &expected {
            let found = &found[path];
            prop_assert_eq!(found.mode & 0o7777, node.mode, "{}", path);
            prop_assert_eq!(
                (found.owner, found.links, &found.xattrs, &found.held),
                (node.owner, node.links, &node.xattrs, &node.held), "{}", path
            );
        }
        let folders = found.keys().filter(|path| !expected.contains_key(*path)).count();
        prop_assert!(folders <= 4, "what nobody put there: {folders}");
        prop_assert_eq!(digest, build(grown(&entries, true).0).unwrap().1);
    }

    #[test]
    fn fsck_agrees_about_random_trees(entries in random()) {
        let (file, _) = build(grown(&entries, false).0).unwrap();
        if let Some(result) = fsck(&path(&file)) {
            prop_assert_eq!(result, Ok(()));
        }
    }
}

#[test]
fn a_source_that_gives_less_more_or_nothing_is_refused() {
    for (given, words) in
        [(&b"ab"[..], "Cannot read /f"), (b"abcd", "/f changed while it was read: it has more than 3")]
    {
        let mut memory = Memory::default();
        let id = memory.file("f", b"abc");
        memory.contents.insert(id, given.to_vec());
        let error = build(memory).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
    let mut memory = Memory::default();
    memory.file("f", b"abc");
    memory.contents.clear();
    assert!(build(memory).unwrap_err().to_string().contains("/f changed while it was read: it is gone"));
}

#[test]
fn two_trees_have_two_volumes() {
    let uuid = |name: &str| {
        let mut memory = Memory::default();
        memory.file(name, b"");
        super::Reader::open(&memory.build().0).unwrap().sb.uuid
    };
    assert_ne!(uuid("a"), uuid("b"));
    assert_eq!(uuid("a"), uuid("a"));
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&[0; 5000]).unwrap();
    assert!(super::Reader::open(&file).is_err());
}
