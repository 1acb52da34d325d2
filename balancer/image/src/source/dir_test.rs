use super::*;
use std::os::unix::fs::{PermissionsExt, symlink};

pub(super) fn folder(backwards: bool) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    fs::set_permissions(root, fs::Permissions::from_mode(0o755)).unwrap();
    let mut names: Vec<String> = (0..300).map(|index| format!("sub/{index}")).collect();
    if backwards {
        names.reverse();
    }
    fs::create_dir(root.join("sub")).unwrap();
    for name in &names {
        fs::write(root.join(name), name.repeat(50)).unwrap();
    }
    let (first, second) = if backwards { ("z", "sub/link") } else { ("sub/link", "z") };
    fs::write(root.join(first), "linked").unwrap();
    fs::hard_link(root.join(first), root.join(second)).unwrap();
    symlink("sub/1", root.join("symlink")).unwrap();
    fs::set_permissions(root.join("sub/7"), fs::Permissions::from_mode(0o4711)).unwrap();
    dir
}

#[test]
fn the_same_folder_made_in_another_order_at_another_time_is_the_same_image() {
    let (one, two) = (folder(false), folder(true));
    File::open(two.path().join("sub/5")).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    let (nodes, digest) = image(one.path());
    assert_eq!((nodes.clone(), digest.clone()), image(two.path()));
    assert_eq!((nodes["/z"].links, &nodes["/z"].first), (2, &nodes["/sub/link"].first));
    assert_eq!(nodes["/symlink"].held, b"sub/1");
    assert_eq!(nodes["/sub/7"].mode, 0o104_711);
    fs::write(two.path().join("sub/5"), "other").unwrap();
    assert_ne!(digest, image(two.path()).1);
}

#[test]
fn attributes_of_the_tree_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "x").unwrap();
    let set = |name: &str, value: &[u8]| {
        let result = rustix::fs::setxattr(&file, name, value, rustix::fs::XattrFlags::empty());
        if let Err(error) = result {
            skip::skip!(Xattr, "{name} cannot be set here: {error}");
        }
        result.is_ok()
    };
    let user = set("user.a", b"1");
    let capability =
        set("security.capability", &[1, 0, 0, 2, 0, 0x0a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let overlay = set("trusted.overlay.opaque", b"y") && set("trusted.overlay.origin", b"here");
    let xattrs = &image(dir.path()).0["/file"].xattrs;
    assert_eq!(xattrs.contains_key(b"user.a".as_slice()), user);
    assert_eq!(xattrs.contains_key(b"security.capability".as_slice()), capability);
    assert_eq!(xattrs.contains_key(b"trusted.overlay.opaque".as_slice()), overlay);
    assert!(!xattrs.contains_key(b"trusted.overlay.origin".as_slice()));
}

/// Builds a folder, and does something when its tree was read.
fn while_read(path: &Path, act: impl Fn()) -> Result<(), BuildError> {
    struct Acting<F>(Dir, F);
    impl<F: Fn()> Source for Acting<F> {
        fn origin(&self) -> Origin {
            self.0.origin()
        }
        fn tree(&mut self, watch: &mut Watch<'_>) -> Result<Tree, BuildError> {
            let tree = self.0.tree(watch)?;
            (self.1)();
            Ok(tree)
        }
        fn contents(
            &mut self,
            tree: &Tree,
            traversal: &Traversal<'_>,
            sink: &mut Sink<'_>,
        ) -> Result<(), BuildError> {
            self.0.contents(tree, traversal, sink)
        }
    }
    testing::build(Acting(Dir::open(path)?, act)).map(|_| ())
}

#[test]
fn a_file_that_changes_while_it_is_read_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("sub/file");
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("file"), "secret").unwrap();
    let acts: [(&str, &dyn Fn()); 6] = [
        ("it had 3 bytes and has 5", &|| fs::write(&file, "abcde").unwrap()),
        ("it had 3 bytes and has 1", &|| fs::write(&file, "a").unwrap()),
        ("it was written to or replaced", &|| {
            std::thread::sleep(std::time::Duration::from_millis(20));
            fs::write(&file, "xyz").unwrap();
        }),
        ("No such file", &|| fs::remove_file(&file).unwrap()),
        ("changed while it was read", &|| {
            fs::remove_file(&file).unwrap();
            rustix::fs::mknodat(
                rustix::fs::CWD,
                &file,
                rustix::fs::FileType::Fifo,
                rustix::fs::Mode::RUSR,
                0,
            )
            .unwrap();
        }),
        // No process can put a file from outside into an image by replacing a folder by a link.
        ("symbolic links", &|| {
            fs::remove_dir_all(dir.path().join("sub")).unwrap();
            symlink(outside.path(), dir.path().join("sub")).unwrap();
        }),
    ];
    for (words, act) in acts {
        fs::remove_file(dir.path().join("sub")).ok();
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::remove_file(&file).ok();
        fs::write(&file, "abc").unwrap();
        let error = while_read(dir.path(), act).unwrap_err();
        let text = format!("{error}: {:?}", std::error::Error::source(&error).map(ToString::to_string));
        assert!(text.contains(words) && text.contains("/sub/file"), "{words:?} is not in {text:?}");
    }
}

#[test]
fn what_is_no_source_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    assert!(refusal(&dir.path().join("none")).contains("No such file"));
    assert!(matches!(images(Path::new("/dev/null")), Err(BuildError::NoSource(_))));
    fs::write(dir.path().join("text"), "hello ".repeat(200)).unwrap();
    assert!(refusal(&dir.path().join("text")).contains("is not a header of a tar"));
    fs::write(dir.path().join("empty"), "").unwrap();
    assert!(refusal(&dir.path().join("empty")).contains("truncated"));
    fs::write(dir.path().join("xz"), b"\xfd7zXZ\0 and so on").unwrap();
    assert!(refusal(&dir.path().join("xz")).contains("cannot be read"));
    fs::write(dir.path().join("bzip2"), b"BZh91AY&SY").unwrap();
    assert!(refusal(&dir.path().join("bzip2")).contains("unpack it with bunzip2"));
}
