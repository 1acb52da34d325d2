//! The same odd archives, read here and unpacked by programs that people use.
//!
//! GNU tar reads archives on their own, umoci layers on top of each other. Modes, owners, attributes, contents, targets
//! and hard links must be equal; times are not kept. Each program refuses what the other takes, so the archives of one
//! are not those of the other ([`Reader`]).

use super::layouts::Layout;
use super::odd::{Odd, Reader};
use super::*;
use crate::tree::{Kind, shown};
use std::collections::HashMap;
use std::process::Command;

const ARCHIVES: u64 = 1000;
const IMAGES: u64 = 60;
/// Another one can be tried: the archives are those of the seeds from there on.
const SEED: &str = "BALLAST_SEED";

/// What is at a path: mode, owner, attributes, what it is; and the first path of the same inode.
type Seen = BTreeMap<String, (u16, u32, u32, BTreeMap<Vec<u8>, Vec<u8>>, String, String)>;

/// All that a source has.
fn seen(mut source: Box<dyn Source>) -> Seen {
    let (cancelled, mut report) = (AtomicBool::new(false), |_| ());
    let tree = source.tree(&mut Watch::new(&cancelled, &mut report)).unwrap();
    let traversal = tree.traversal();
    let mut contents = HashMap::new();
    let read = source.contents(&tree, &traversal, &mut |id, reader| {
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).unwrap();
        contents.insert(id, bytes);
        Ok(())
    });
    read.unwrap();
    let mut seen = BTreeMap::new();
    let mut waiting = vec![(tree.root(), Vec::new())];
    while let Some((id, path)) = waiting.pop() {
        let inode = tree.get(id);
        let mut mode = inode.mode;
        let what = match &inode.kind {
            Kind::Directory(names) => {
                for (name, id) in names {
                    let below =
                        if path.is_empty() { name.to_vec() } else { [&path, &b"/"[..], name].concat() };
                    waiting.push((*id, below));
                }
                "folder".into()
            }
            Kind::Regular(bytes) => format!("file of {bytes}: {:?}", contents[&id]),
            Kind::Symlink(target) => {
                // Linux gives every link all permissions.
                mode = 0o777;
                format!("link to {}", String::from_utf8_lossy(target))
            }
            other => format!("{other:?}"),
        };
        let first = traversal.shown(id);
        seen.insert(shown(&path), (mode, inode.uid, inode.gid, inode.xattrs.clone(), what, first));
    }
    seen
}

fn difference(own: &Seen, other: &Seen) -> Option<String> {
    let paths = own.keys().chain(other.keys());
    let path = paths.into_iter().find(|path| own.get(*path) != other.get(*path))?;
    Some(format!("{path}:\nhere  {:?}\nthere {:?}", own.get(path), other.get(path)))
}

fn is_root() -> bool {
    if rustix::process::geteuid().is_root() {
        return true;
    }
    skip::skip!(Root, "only root can unpack owners and devices");
    false
}

fn first_seed() -> u64 {
    std::env::var(SEED).ok().and_then(|seed| seed.parse().ok()).unwrap_or(1)
}

#[test]
fn a_thousand_odd_archives_are_the_trees_that_gnu_tar_unpacks() {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let seeds = first_seed()..first_seed() + ARCHIVES;
    for seed in seeds.clone() {
        fs::create_dir(dir.path().join(seed.to_string())).unwrap();
        fs::write(dir.path().join(format!("{seed}.tar")), Odd::new(seed, Reader::Tar).archive()).unwrap();
    }
    // One shell for all of them: processes cost more than archives.
    let words = "umask 022; cd \"$0\"; for tar in *.tar; do root=${tar%.tar}; tar -xpf $tar -C $root \
                 --numeric-owner --acls --xattrs --xattrs-include='*' 2> /dev/null || : > $root.refused; done";
    assert!(Command::new("sh").args(["-c", words]).arg(dir.path()).status().unwrap().success());
    let mut taken = 0;
    for seed in seeds {
        let root = dir.path().join(seed.to_string());
        // What GNU tar refuses is not a reference.
        if root.with_extension("refused").exists() {
            continue;
        }
        taken += 1;
        let there = seen(Box::new(Dir::open(&root).unwrap()));
        let here = sources(&root.with_extension("tar"))
            .unwrap_or_else(|error| panic!("seed {seed}: {error}"))
            .remove(0);
        if let Some(difference) = difference(&seen(here), &there) {
            panic!("seed {seed}: {difference}");
        }
    }
    assert!(taken > ARCHIVES * 8 / 10, "GNU tar took {taken} of {ARCHIVES}");
}

#[test]
fn odd_layers_are_the_trees_that_umoci_unpacks() {
    if !is_root() {
        return;
    }
    if let Err(error) = Command::new("umoci").arg("--version").output() {
        panic!("umoci does not start ({error}); scripts/setup.sh installs it");
    }
    let mut taken = 0;
    for seed in first_seed()..first_seed() + IMAGES {
        let layout = Layout::new();
        let mut odd = Odd::new(seed, Reader::Umoci);
        let layers: Vec<_> = (0..3).map(|_| layout.layer(&odd.archive())).collect();
        layout.index(&[layout.named(&layers, "x")]);
        let root = layout.path().join("root");
        let image = format!("{}:x", layout.path().display());
        let output =
            Command::new("umoci").args(["raw", "unpack", "--image", &image]).arg(&root).output().unwrap();
        if !output.status.success() {
            continue;
        }
        taken += 1;
        let there = seen(Box::new(Dir::open(&root).unwrap()));
        let blobs = Blobs::Folder(layout.path().into());
        let image = oci::open(&blobs, Form::Layout).unwrap();
        let (cancelled, mut report) = (AtomicBool::new(false), |_| ());
        let mut watch = Watch::new(&cancelled, &mut report);
        let here = layer::stack("x", image.layers, 1, &mut watch);
        let here = here.unwrap_or_else(|error| panic!("seed {seed}: {error}")).remove(0);
        if let Some(difference) = difference(&seen(Box::new(here)), &there) {
            panic!("seed {seed}: {difference}");
        }
    }
    assert!(taken > IMAGES * 8 / 10, "umoci took {taken} of {IMAGES}");
}
