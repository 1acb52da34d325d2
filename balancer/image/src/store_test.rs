use super::*;
use crate::build::{build, build_tree};
use crate::error::BuildError;
use crate::testing::Memory;
use crate::{Progress, Watch, check};
use std::io::Write;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::sync::atomic::{AtomicBool, Ordering};
use tempfile::TempDir;

fn store() -> (TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store")).unwrap();
    (dir, store)
}

fn manifest(digest: Digest, origin: &str) -> Manifest {
    Manifest {
        digest,
        bytes: 2 << 20,
        origin: origin.into(),
        layer: None,
        files: 1,
        folders: 1,
        others: 0,
        content_bytes: 1,
    }
}

/// An image of one file.
fn put(store: &Store, contents: &str, origin: &str) -> Digest {
    let mut memory = Memory::default();
    memory.file("file", contents.as_bytes());
    let draft = store.draft().unwrap();
    let (cancelled, mut report) = (AtomicBool::new(false), |_| ());
    let (digest, _) =
        build_tree(&mut memory, draft.file(), &mut Watch::new(&cancelled, &mut report)).unwrap();
    store.adopt(draft, manifest(digest, origin)).unwrap();
    digest
}

fn names(store: &Store) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(store.images())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn an_image_is_found_by_digest_prefix_and_path() {
    let (_dir, store) = store();
    let digest = put(&store, "a", "/a");
    let other = put(&store, "b", "/b");
    let hex = digest.hex();
    for text in [&digest.to_string(), &hex, &hex[..8], &format!("sha256:{}", &hex[..20])] {
        assert_eq!(store.resolve(text).unwrap(), digest, "{text}");
    }
    let path = store.image_path(&digest);
    assert_eq!(store.resolve(&path.display().to_string()).unwrap(), digest);
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o444);
    for (text, words) in [
        ("", "names no image"),
        (&hex[..7], "at least 8"),
        ("no-digest", "names no image"),
        (&hex.to_uppercase(), "names no image"),
        ("00000000", "No image 00000000"),
        ("/etc/passwd", "is not an image of the store"),
        ("/does/not/exist", "Cannot find /does/not/exist"),
    ] {
        let error = store.resolve(text).unwrap_err().to_string();
        assert!(error.contains(words), "{text:?}: {error}");
    }
    let mut list: Vec<_> =
        store.list().unwrap().images.into_iter().map(|image| image.manifest.digest).collect();
    list.sort();
    let mut both = [digest, other];
    both.sort();
    assert_eq!(list, both);
    // Two that begin alike: a name is enough for that.
    for last in ["1", "2"] {
        fs::write(store.images().join(format!("{:0<63}{last}.erofs", "abcdef0123")), "").unwrap();
    }
    let error = store.resolve("abcdef01").unwrap_err();
    assert!(matches!(error, StoreError::Ambiguous { .. }), "{error}");
}

#[test]
fn the_first_origin_stays() {
    let (_dir, store) = store();
    let digest = put(&store, "a", "/first");
    assert_eq!(put(&store, "a", "/second"), digest);
    assert_eq!(store.manifest(&digest).unwrap().origin, "/first");
    assert_eq!(names(&store).len(), 2);
}

#[test]
fn a_damaged_image_is_refused_and_healed_by_building_it_again() {
    let (_dir, store) = store();
    let digest = put(&store, "a", "/a");
    let path = store.image_path(&digest);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    File::options().write(true).open(&path).unwrap().write_all_at(b"x", 5000).unwrap();
    let error = store.file_for_domain(&digest, "web").unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
    assert!(fs::read_dir(store.folder().join("domains/web")).unwrap().next().is_none(), "a draft is left");
    put(&store, "a", "/a");
    assert_eq!(store.file_for_domain(&digest, "web").unwrap().bytes, 2 << 20);
}

#[test]
fn each_domain_has_an_inode_of_its_own_that_is_made_once() {
    let (_dir, store) = store();
    let digest = put(&store, "a", "/a");
    let inode = |domain| {
        let opened = store.file_for_domain(&digest, domain).unwrap();
        assert_eq!(check::digest(&opened.file).unwrap(), digest);
        assert!((&opened.file).write_all(b"x").is_err(), "open for writing");
        opened.file.metadata().unwrap().ino()
    };
    let built = fs::metadata(store.image_path(&digest)).unwrap().ino();
    let (web, db) = (inode("web"), inode("db"));
    assert!(web != db && web != built && db != built);
    assert_eq!((inode("web"), inode("db")), (web, db));
    for domain in ["", ".", "..", "a/b", ".hidden", "a\0b", &"x".repeat(256)] {
        let error = store.file_for_domain(&digest, domain).unwrap_err();
        assert!(matches!(error, StoreError::Domain { .. }), "{domain:?}: {error}");
    }
    let unknown = Digest::new([7; 32]);
    assert!(matches!(store.file_for_domain(&unknown, "web"), Err(StoreError::Unknown { .. })));
}

#[test]
fn many_openers_at_once_get_one_inode() {
    let (_dir, store) = store();
    let digest = put(&store, "a", "/a");
    let opened: Vec<Opened> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..8).map(|_| scope.spawn(|| store.file_for_domain(&digest, "web").unwrap())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let first = opened[0].file.metadata().unwrap().ino();
    assert!(opened.iter().all(|opened| opened.file.metadata().unwrap().ino() == first));
    assert_eq!(fs::read_dir(store.folder().join("domains/web")).unwrap().count(), 1);
}

#[test]
fn an_image_in_use_is_not_removed() {
    let (_dir, store) = store();
    let digest = put(&store, "a", "/a");
    let opened = store.file_for_domain(&digest, "web").unwrap();
    store.file_for_domain(&digest, "db").unwrap();
    let refused = |why: &str| {
        let error = store.remove(&digest).unwrap_err();
        assert!(matches!(error, StoreError::InUse { .. }), "{why}: {error}");
        assert!(store.image_path(&digest).exists());
    };
    refused("open in a domain");
    // As by SCM_RIGHTS: another descriptor of the same opening.
    let passed = opened.file.try_clone().unwrap();
    drop(opened);
    refused("passed on");
    drop(passed);
    let image = store.open_image(&digest).unwrap();
    refused("open as it was built");
    drop(image);
    store.remove(&digest).unwrap();
    assert!(names(&store).is_empty());
    assert!(store.copies(&digest).unwrap().is_empty());
    assert!(matches!(store.remove(&digest), Err(StoreError::Unknown { .. })));
    assert!(store.list().unwrap().images.is_empty());
}

#[test]
fn what_a_killed_build_left_goes_with_the_next_and_what_runs_stays() {
    let (_dir, store) = store();
    let stale = store.images().join(".draft-killed");
    fs::write(&stale, "half an image").unwrap();
    let orphan = store.images().join(format!("{}.json", "a".repeat(64)));
    fs::write(&orphan, "{}").unwrap();
    let running = store.draft().unwrap();
    assert!(!stale.exists() && !orphan.exists());
    let second = store.draft().unwrap();
    assert_eq!(names(&store).len(), 2);
    drop((running, second));
    assert!(names(&store).is_empty());
}

#[test]
fn a_cancelled_build_leaves_nothing() {
    let (dir, store) = store();
    let source = dir.path().join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), vec![1; 5 << 20]).unwrap();
    for steps in 0..8 {
        let (cancelled, mut left) = (AtomicBool::new(false), steps);
        let mut report = |_: Progress| {
            cancelled.store(left == 0, Ordering::Relaxed);
            left -= i32::from(left > 0);
        };
        let error = build(&source, &store, &mut Watch::new(&cancelled, &mut report)).unwrap_err();
        assert!(matches!(error, BuildError::Cancelled), "{error}");
        assert!(names(&store).is_empty());
    }
}

/// A refused layer above a good one, a torn archive, a saved image in a compressed tar that is refused.
#[test]
fn a_refused_source_leaves_nothing() {
    let (dir, store) = store();
    let source = dir.path().join("source");
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in [("index.json", &b"{}"[..]), ("oci-layout", b"{}"), ("x", &[1; 4096])] {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        builder.append_data(&mut header, name, bytes).unwrap();
    }
    let whole = builder.into_inner().unwrap();
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(&whole).unwrap();
    for bytes in [packed.finish().unwrap(), whole[..2000].to_vec(), whole] {
        fs::write(&source, bytes).unwrap();
        let (cancelled, mut report) = (AtomicBool::new(false), |_| ());
        let error = build(&source, &store, &mut Watch::new(&cancelled, &mut report)).unwrap_err();
        assert!(error.to_string().contains("source"), "{error}");
        assert!(names(&store).is_empty());
        assert_eq!(fs::read_dir(store.folder()).unwrap().count(), 2, "images and domains, and no file");
    }
}

#[test]
fn layers_enter_the_store_once_and_together() {
    let (dir, store) = store();
    let layout = dir.path().join("layout");
    fs::create_dir_all(layout.join("blobs/sha256")).unwrap();
    fs::write(layout.join("oci-layout"), "{}").unwrap();
    let put = |bytes: &[u8]| {
        use sha2::Digest;
        let hex: String = sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        fs::write(layout.join("blobs/sha256").join(&hex), bytes).unwrap();
        serde_json::json!({"digest": format!("sha256:{hex}"), "size": bytes.len()})
    };
    let layer = |name: &str| {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(0);
        builder.append_data(&mut header, name, &b""[..]).unwrap();
        put(&builder.into_inner().unwrap())
    };
    let index = |layers: &[serde_json::Value]| {
        let manifest = put(serde_json::json!({"layers": layers}).to_string().as_bytes());
        fs::write(layout.join("index.json"), serde_json::json!({"manifests": [manifest]}).to_string())
            .unwrap();
    };
    let (cancelled, mut report) = (AtomicBool::new(false), |_| ());
    let mut watch = Watch::new(&cancelled, &mut report);
    index(&[layer("a"), put(b"no tar")]);
    build(&layout, &store, &mut watch).unwrap_err();
    assert!(names(&store).is_empty());
    index(&[layer("a"), layer("b"), layer("a")]);
    let built = build(&layout, &store, &mut watch).unwrap();
    let layers: Vec<_> = built.iter().map(|manifest| manifest.layer.as_ref().unwrap().index).collect();
    assert_eq!(layers, [1, 2], "of two equal layers the upper one counts");
}

#[test]
fn an_image_cannot_hold_its_store() {
    let (dir, store) = store();
    let (cancelled, mut report) = (AtomicBool::new(false), |_| ());
    let error = build(dir.path(), &store, &mut Watch::new(&cancelled, &mut report)).unwrap_err();
    assert!(matches!(error, BuildError::StoreInside { .. }), "{error}");
}

#[test]
fn a_store_that_others_can_write_to_is_refused() {
    let (dir, store) = store();
    fs::set_permissions(store.images(), fs::Permissions::from_mode(0o777)).unwrap();
    let error = Store::open(&dir.path().join("store")).unwrap_err();
    assert!(matches!(error, StoreError::Foreign { mode: 0o777, .. }), "{error}");
}

#[test]
fn a_full_disk_is_named_and_nothing_stays() {
    let dir = tempfile::tempdir().unwrap();
    let (source, small) = (dir.path().join("source"), dir.path().join("small"));
    fs::create_dir(&source).unwrap();
    fs::create_dir(&small).unwrap();
    fs::write(source.join("file"), vec![1; 5 << 20]).unwrap();
    let mount = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=3m,mode=700", "none"])
        .arg(&small)
        .output();
    if !matches!(&mount, Ok(output) if output.status.success()) {
        skip::skip!(Mount, "a small file system cannot be mounted: {mount:?}");
        return;
    }
    let look = || {
        let store = Store::open(&small.join("store")).unwrap();
        let (cancelled, mut report) = (AtomicBool::new(false), |_| ());
        let error = build(&source, &store, &mut Watch::new(&cancelled, &mut report)).unwrap_err();
        assert!(matches!(error, BuildError::Full { .. }), "{error:?}");
        assert!(error.to_string().contains("No room for an image of 6291456 bytes"), "{error}");
        assert!(names(&store).is_empty());
    };
    let result = std::panic::catch_unwind(look);
    // Lazily: a child that another test starts has this process's descriptors until it runs its program.
    assert!(std::process::Command::new("umount").arg("-l").arg(&small).status().unwrap().success());
    result.unwrap();
}

#[test]
fn a_manifest_of_something_else_is_no_manifest() {
    let (_dir, store) = store();
    let digest = put(&store, "a", "/a");
    let path = store.manifest_path(&digest);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    for text in ["", "{}", &serde_json::to_string(&manifest(Digest::new([1; 32]), "/x")).unwrap()] {
        fs::write(&path, text).unwrap();
        assert!(matches!(store.manifest(&digest), Err(StoreError::Manifest { .. })), "{text}");
    }
    fs::remove_file(&path).unwrap();
    let other = put(&store, "b", "/b");
    let listing = store.list().unwrap();
    assert_eq!(listing.images.iter().map(|image| image.manifest.digest).collect::<Vec<_>>(), [other]);
    assert_eq!(listing.damaged[0].0, digest);
    assert!(listing.damaged[0].1.to_string().contains("build the image again"));
}

#[test]
fn an_image_is_good_where_it_is() {
    let (_dir, store) = store();
    let digest = put(&store, "a", "/a");
    assert_eq!(check(&store.open_image(&digest).unwrap()).unwrap().files, 1);
}

fn copies(store: &Store) -> Vec<String> {
    let folders = store.domain_folders().unwrap();
    let mut names: Vec<String> =
        folders.iter().map(|folder| folder.file_name().unwrap().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn copies_that_no_guest_maps_and_no_balancer_keeps_go_with_the_next_build() {
    let (_dir, store) = store();
    let digest = put(&store, "a", "/a");
    let open = |domain: &str| store.file_for_domain(&digest, domain).unwrap();
    let mapped = open("mapped");
    drop(open("kept"));
    drop(open("gone-1"));
    drop(open("gone-2"));
    let kept = store.keep_domain("kept").unwrap().unwrap();
    let listed = store.list().unwrap().images.remove(0);
    assert_eq!(listed.copies, 4);
    assert!(listed.copies_bytes >= 4 * 4096 && listed.copies_bytes == 4 * listed.disk_bytes, "{listed:?}");
    put(&store, "b", "/b");
    assert_eq!(copies(&store), ["kept", "mapped"]);
    drop((mapped, kept));
    store.sweep().unwrap();
    assert!(copies(&store).is_empty());
    assert!(store.keep_domain("kept").unwrap().is_none());
    assert_eq!(open("again").bytes, 2 << 20);
}

#[test]
fn what_is_not_a_file_is_in_the_way_of_no_build() {
    let (_dir, store) = store();
    for name in [".draft-folder".to_owned(), format!("{}.json", "b".repeat(64)), "other".into()] {
        fs::create_dir(store.images().join(name)).unwrap();
    }
    let digest = put(&store, "a", "/a");
    assert_eq!(store.list().unwrap().images[0].manifest.digest, digest);
}

#[test]
fn holes_of_files_are_holes_in_the_image_and_in_its_copies() {
    let (dir, store) = store();
    let source = dir.path().join("source");
    fs::create_dir(&source).unwrap();
    let log = File::create(source.join("lastlog")).unwrap();
    log.set_len(32 << 20).unwrap();
    for at in [0, 5 << 20, (32 << 20) - 292] {
        log.write_all_at(&[7; 292], at).unwrap();
    }
    let (cancelled, mut report) = (AtomicBool::new(false), |_| ());
    let built = build(&source, &store, &mut Watch::new(&cancelled, &mut report)).unwrap();
    let opened = store.file_for_domain(&built[0].digest, "web").unwrap();
    assert_eq!(check::digest(&opened.file).unwrap(), built[0].digest);
    let listed = store.list().unwrap().images.remove(0);
    assert!(listed.manifest.content_bytes == 32 << 20, "{listed:?}");
    assert!(listed.disk_bytes <= 256 << 10 && listed.copies_bytes <= 256 << 10, "{listed:?}");
}
