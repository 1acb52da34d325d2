use super::*;
use crate::erofs::format::BLOCK_BYTES;
use crate::testing::{Memory, fsck};
use proptest::prelude::*;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

/// A folder with a file in it, and a file next to it.
fn small() -> Vec<u8> {
    let mut memory = Memory::default();
    memory.file("folder/file", b"contents");
    memory.file("second", &[1; 5000]);
    let (file, _) = memory.build();
    let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

fn checked(bytes: &[u8]) -> Result<Report, CheckError> {
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(bytes, 0).unwrap();
    check(&file)
}

/// Where the inode of a path is, by our own reader.
fn inode_at(bytes: &[u8], name: &[u8]) -> usize {
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(bytes, 0).unwrap();
    let reader = Reader::open(&file).unwrap();
    let mut at = None;
    let root = reader.inode(reader.sb.root.into()).unwrap();
    let see = |entry: crate::erofs::directory::Entry<'_>| {
        if entry.name == name {
            at = Some(entry.nid as usize * 32);
        }
        Ok::<_, ReadError>(())
    };
    reader.directory(&root, see).unwrap();
    at.unwrap()
}

#[test]
fn a_good_image_is_counted() {
    let report = checked(&small()).unwrap();
    let expected = Report { bytes: 2 << 20, files: 2, folders: 2, others: 0, content_bytes: 5008 };
    assert_eq!(report, expected);
}

#[test]
fn every_lie_of_an_image_is_named() {
    let good = small();
    let (root, second, folder) = (36 * 32, inode_at(&good, b"second"), inode_at(&good, b"folder"));
    // What is changed where, and the words of the refusal.
    let lies: [(&str, usize, &[u8], &str); 16] = [
        ("no magic number", 1024, &[0], "not an EROFS image"),
        ("blocks of 512 bytes", 1024 + 12, &[9], "blocks have 2^9 bytes"),
        ("a feature of the future", 1024 + 80, &[0x80, 0, 0, 0], "features that are not known here: 0x80"),
        ("more devices", 1024 + 86, &[1], "1 other devices"),
        (
            "more blocks than bytes",
            1024 + 36,
            &[0xff, 0xff, 0, 0],
            "65535 blocks of 4096, but the file has 2097152",
        ),
        ("a root of zeros", 1024 + 14, &[0xff, 0xff], "version, layout or file type"),
        (
            "a root that is a file",
            1024 + 14,
            &((second / 32) as u16).to_le_bytes(),
            "the root is not a folder",
        ),
        ("a version of the future", second, &[0x10], "version, layout or file type"),
        ("a compressed file", second, &[3 << 1], "/second is compressed"),
        ("a compressed file, of old", second, &[1 << 1], "/second is compressed"),
        ("a packed file", second, &[2 << 1], "/second is packed behind its inode"),
        ("a chunked file", second, &[4 << 1], "/second is chunked"),
        ("a file outside", second + 16, &[0xff, 0xff, 0xff, 0x7f], "/second: a file at byte"),
        (
            "a file that is a pipe",
            second + 4,
            &[0xa4, 0x11],
            "/second: its type in its folder is not the type of its inode",
        ),
        ("a folder without end", folder + 8, &[0xff, 0xff, 0xff, 0xff], "outside the image"),
        ("attributes outside", second + 2, &[0xff, 0xff], ""),
    ];
    for (lie, at, bytes, words) in lies {
        let mut image = good.clone();
        image[at..at + bytes.len()].copy_from_slice(bytes);
        match (checked(&image), words) {
            (Err(error), words) => assert!(error.to_string().contains(words), "{lie}: {error}"),
            // Attributes of 256 KiB are inside an image of 2 MiB.
            (Ok(_), "") => {}
            (Ok(_), words) => panic!("{lie}: taken, instead of {words:?}"),
        }
    }
    // A folder in itself: the root's entry leads back to the root.
    let mut image = good.clone();
    let entry =
        image[root..root + 200].windows(8).position(|nid| nid == ((folder / 32) as u64).to_le_bytes());
    let entry = root + entry.unwrap();
    image[entry..entry + 8].copy_from_slice(&36_u64.to_le_bytes());
    assert!(checked(&image).unwrap_err().to_string().contains("two names, so the tree may have a cycle"));
    image[entry..entry + 8].copy_from_slice(&u64::MAX.to_le_bytes());
    assert!(checked(&image).unwrap_err().to_string().contains("lies outside the image"));
}

#[test]
fn a_length_that_is_no_multiple_of_2_mib_is_refused() {
    let mut image = small();
    image.truncate((BLOCK_BYTES * 10) as usize);
    assert!(matches!(checked(&image), Err(CheckError::Length { bytes: 40_960 })));
    assert!(matches!(checked(&[]), Err(CheckError::Image(ReadError::Magic))));
    assert!(matches!(check(&File::open("/dev/null").unwrap()), Err(CheckError::NoFile)));
}

#[test]
fn images_of_mkfs_are_judged_by_their_files() {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree/folder");
    std::fs::create_dir_all(&tree).unwrap();
    std::fs::write(tree.join("file"), vec![b'x'; 100_003]).unwrap();
    let made = |options: &[&str]| -> Option<Result<Report, CheckError>> {
        let image = dir.path().join("image");
        let output =
            Command::new("mkfs.erofs").args(options).args([&image, &dir.path().join("tree")]).output();
        match output {
            Ok(output) if output.status.success() => {}
            other => {
                skip::skip!(ErofsUtils, "mkfs.erofs {options:?}: {other:?}; scripts/setup.sh installs it");
                return None;
            }
        }
        let file = File::options().read(true).write(true).open(&image).unwrap();
        file.set_len(file.metadata().unwrap().len().next_multiple_of(HUGE_BYTES)).unwrap();
        fsck(Path::new(&image));
        Some(check(&file))
    };
    for (options, words) in [
        (&["-zlz4hc"][..], "/folder/file is compressed"),
        (&[], "/folder/file is packed behind its inode"),
        (&["--chunksize", "4096"], "/folder/file is chunked"),
    ] {
        if let Some(result) = made(options) {
            let error = result.unwrap_err().to_string();
            assert!(error.contains(words), "{options:?}: {error}");
        }
    }
    if let Some(result) = made(&["-Enoinline_data", "-T0"]) {
        assert_eq!(result.unwrap().content_bytes, 100_003);
    }
}

#[test]
fn an_image_that_is_all_folders_ends() {
    // Entries that lead to inodes of folders, all with the same long contents.
    let mut image = small();
    let folder = inode_at(&image, b"folder");
    image[folder + 8..folder + 12].copy_from_slice(&(3_u32 << 19).to_le_bytes());
    image[folder] = 0;
    image[folder + 16..folder + 20].copy_from_slice(&0_u32.to_le_bytes());
    assert!(checked(&image).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn no_damage_makes_it_fail_otherwise_than_by_an_error(
        damage in proptest::collection::vec((1024..5000_usize, any::<u8>()), 1..20)
    ) {
        let mut image = small();
        for (at, byte) in damage {
            image[at] = byte;
        }
        if let Err(error) = checked(&image) {
            prop_assert!(!error.to_string().is_empty());
        }
    }
}
