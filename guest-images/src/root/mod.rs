//! A Debian root with real services, as the layers of an image: what guests run from the shared pool.
//!
//! ```text
//!   mmdebstrap: essential packages ---------------> base.raw --clean--------------------> base.tar
//!               + redis, nginx, postgres, python -> full.raw --clean, less what base has-> services.tar
//!               + an empty database                       less what both have ---------> database.tar
//! ```
//!
//! The packages come from the archive that [`Apt`] asks. What differs from machine to machine or from run to run (host
//! name, logs, caches, generated keys, times) is left out, so that equal packages make equal layers; only the database
//! is another one each time, which is why it has a layer of its own. The layers of one
//! recipe stay as they are until [`crate::ImageSet::refresh_root`]: the same cache gives the same images, with or
//! without a network.

mod layer;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::apt::{self, Apt};
use crate::cache::{self, Cache, Staged};
use crate::error::{Error, FileContext, Result};
use crate::tool;

use layer::Tree;

/// The services, and the tools that load them. `pgbench` is part of `postgresql-15`.
const PACKAGES: [&str; 5] = ["redis-server", "redis-tools", "nginx-light", "postgresql-15", "python3"];
/// Counts up when the same packages are to be put together differently.
const RECIPE: &str = "1";
/// Run when the essential packages are installed, and nothing else is. `$1` is the tree; whose files it are depends on
/// how `mmdebstrap` came by its rights, so that the tree is packed inside and handed out.
///
/// While packages are installed, a program that starts nothing stands in for `start-stop-daemon`.
const BASE_HOOKS: [&str; 4] = [
    "tar -C \"$1\" --one-file-system --exclude=./tmp --exclude=./var/cache --exclude=./usr/sbin/start-stop-daemon \
     --transform='s/start-stop-daemon[.]REAL$/start-stop-daemon/' -cf \"$1/tmp/base.raw\" .",
    "download /tmp/base.raw base.raw",
    "rm \"$1/tmp/base.raw\"",
    // A cluster of its own would be made while the package is installed: large, and another one each time.
    "mkdir -p \"$1/etc/postgresql-common\" && \
     echo 'create_main_cluster = false' > \"$1/etc/postgresql-common/createcluster.conf\"",
];
/// Run when all is installed.
const LAST_HOOKS: [&str; 2] = [BYTE_CODE, DATABASE];
/// Byte code that is valid whatever the time of its source is, which images set to 0: a guest
/// that compiled the library again would hold the result in memory of its own.
const BYTE_CODE: &str = "chroot \"$1\" python3 -m compileall -q -f -j0 --invalidation-mode unchecked-hash \
     /usr/lib/python3.11 /usr/lib/python3/dist-packages";
/// A cluster of databases where Debian has the first one. An emulated guest needs most of a minute to make one.
const DATABASE: &str = "chroot \"$1\" runuser -u postgres -- /usr/lib/postgresql/15/bin/initdb -N -A trust -E UTF8 \
     --locale=C.UTF-8 --wal-segsize=1 -D /var/lib/postgresql/15/main > /dev/null";
/// Where it is.
const DATABASE_FOLDER: &str = "var/lib/postgresql/15";
/// Written into a guest's root by no package; its times come from nothing else (reproducible-builds.org).
const EPOCH: (&str, &str) = ("SOURCE_DATE_EPOCH", "1");
/// Lines of a failed `mmdebstrap` that an error carries.
const STDERR_LINES_MAX: usize = 6;

/// A layer: a tar archive for `balancer image build`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// `base`, `services` or `database`.
    pub name: String,
    /// The archive.
    pub tar: PathBuf,
    /// Its length.
    pub bytes: u64,
    /// Its SHA-256, in hexadecimal.
    pub sha256: String,
}

/// A root image's layers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// Lowest first.
    pub layers: Vec<Layer>,
    /// What is installed: version by package.
    pub packages: BTreeMap<String, String>,
}

/// The root of this recipe, made unless the cache has it. The caller holds the cache's lock.
pub(crate) fn ensure(cache: &Cache) -> Result<Root> {
    let folder = folder(cache);
    match cached(&folder) {
        Some(root) => Ok(root),
        None => make(cache, &folder),
    }
}

/// Makes it of the newest packages; the one that is there stays until then.
pub(crate) fn refresh(cache: &Cache) -> Result<()> {
    make(cache, &folder(cache)).map(|_| ())
}

fn folder(cache: &Cache) -> PathBuf {
    let recipe =
        [RECIPE].into_iter().chain(LAST_HOOKS).chain(BASE_HOOKS).chain(PACKAGES).chain(layer::LEFT_OUT);
    let key = cache::sha256_of(recipe.map(str::as_bytes));
    cache.path("roots").join(&key[..16])
}

/// What the cache has. The description is relative to its folder, so that a cache can be moved.
fn cached(folder: &Path) -> Option<Root> {
    let mut root: Root = serde_json::from_slice(&fs::read(folder.join("root.json")).ok()?).ok()?;
    for layer in &mut root.layers {
        layer.tar = folder.join(&layer.tar);
    }
    let whole = |layer: &Layer| layer.tar.metadata().is_ok_and(|file| file.len() == layer.bytes);
    root.layers.iter().all(whole).then_some(root)
}

fn make(cache: &Cache, wanted: &Path) -> Result<Root> {
    eprintln!("guest-images: making a Debian root with {}", PACKAGES.join(", "));
    let apt = Apt::update(cache)?;
    let staged = Staged::next_to(wanted)?;
    fs::create_dir_all(staged.path()).file("create", staged.path())?;
    let at = |name: &str| staged.path().join(name);

    install(&apt, staged.path())?;
    eprintln!("guest-images: root: packing the layers");
    let (base, full) = (Tree::open(&at("base.raw"))?, Tree::open(&at("full.raw"))?);
    let services = full.without(Path::new(DATABASE_FOLDER));
    base.write(None, &at("base.tar"))?;
    services.write(Some(&base), &at("services.tar"))?;
    full.write(Some(&services), &at("database.tar"))?;
    let packages = layer::packages(&full.read("var/lib/dpkg/status")?);
    for raw in ["base.raw", "full.raw"] {
        cache::remove(&at(raw))?;
    }

    let described = |name: &str| {
        let (tar, path) = (format!("{name}.tar"), at(&format!("{name}.tar")));
        let bytes = path.metadata().file("read", &path)?.len();
        Ok(Layer { name: name.into(), tar: tar.into(), bytes, sha256: cache::sha256_file(&path)? })
    };
    let root =
        Root { layers: vec![described("base")?, described("services")?, described("database")?], packages };
    let text = serde_json::to_vec_pretty(&root).expect("strings and numbers have a JSON form");
    fs::write(at("root.json"), text).file("write", &at("root.json"))?;
    staged.commit()?;
    cached(wanted).ok_or_else(|| Error::Package {
        package: wanted.display().to_string(),
        problem: "the root was made and cannot be read".into(),
    })
}

/// Lets `mmdebstrap` write `base.raw` and `full.raw`, tar archives, into `folder`.
fn install(apt: &Apt, folder: &Path) -> Result<()> {
    let began = Instant::now();
    let out = folder.join("full.raw");
    let mut command = Command::new("mmdebstrap");
    command.args(["--variant=essential", "--format=tar", "--architectures=amd64"]);
    command.args(["--aptopt=APT::Install-Recommends \"false\"", "--aptopt=Acquire::Retries \"3\""]);
    command.args(BASE_HOOKS.map(|hook| format!("--essential-hook={hook}")));
    command.args(LAST_HOOKS.map(|hook| format!("--customize-hook={hook}")));
    command.arg(format!("--include={}", PACKAGES.join(",")));
    command.args([apt::RELEASE, "-"]).arg(apt.sources_list());
    command.env(EPOCH.0, EPOCH.1).env("LC_ALL", "C").current_dir(folder);
    let file = File::create(&out).file("create", &out)?;
    command.stdin(Stdio::null()).stdout(file).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|source| tool::missing(&command, source))?;
    let stderr = child.stderr.take().expect("stderr is piped");
    let said: Vec<String> = BufReader::new(stderr)
        .lines()
        .map_while(std::result::Result::ok)
        .inspect(|line| {
            if let Some(step) = step(line) {
                eprintln!("guest-images: root: {step}, {:.0} s", began.elapsed().as_secs_f64());
            }
        })
        .collect();
    let status = child.wait().file("write", &out)?;
    if status.success() {
        return Ok(());
    }
    let problems: Vec<&str> = said
        .iter()
        .map(String::as_str)
        .filter(|line| line.starts_with("E: "))
        .take(STDERR_LINES_MAX)
        .collect();
    let stderr = match problems.is_empty() {
        true => said[said.len().saturating_sub(STDERR_LINES_MAX)..].join("; "),
        false => problems.join("; "),
    };
    Err(Error::Tool { program: "mmdebstrap".into(), status, stderr })
}

/// What a line of `mmdebstrap` says about how far it is, if anything.
fn step(line: &str) -> Option<&str> {
    let said = line.strip_prefix("I: ")?.strip_suffix("...")?;
    ["downloading", "extracting", "installing"].iter().any(|verb| said.starts_with(verb)).then_some(said)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn progress_is_told_by_step() {
        assert_eq!(step("I: downloading packages with apt..."), Some("downloading packages with apt"));
        assert_eq!(step("I: done"), None);
        assert_eq!(step("I: removing tempdir /tmp/x..."), None);
        assert_eq!(step("E: something..."), None);
    }

    #[test]
    fn half_a_root_is_none() {
        let scratch = Scratch::new("root");
        let layer = Layer { name: "base".into(), tar: "base.tar".into(), bytes: 3, sha256: "00".into() };
        let root = Root { layers: vec![layer], packages: BTreeMap::new() };
        fs::write(scratch.path().join("root.json"), serde_json::to_vec(&root).unwrap()).unwrap();
        assert_eq!(cached(scratch.path()), None);
        fs::write(scratch.path().join("base.tar"), "ab").unwrap();
        assert_eq!(cached(scratch.path()), None);
        fs::write(scratch.path().join("base.tar"), "abc").unwrap();
        assert_eq!(cached(scratch.path()).unwrap().layers[0].tar, scratch.path().join("base.tar"));
    }
}
