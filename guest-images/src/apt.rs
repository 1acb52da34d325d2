//! Packages from Debian's archive through a private apt root.
//!
//! The machine's own sources stay untouched and decide nothing but *where* the archive is: suites and
//! keys are fixed here, so that every machine gets the same packages, verified by apt in the usual way.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::cache::{self, Cache};
use crate::error::{Error, FileContext, Result};
use crate::tool;

/// Keys of Debian's archive, from the package debian-archive-keyring.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// The release that everything is taken from.
pub(crate) const RELEASE: &str = "bookworm";
/// Suites that carry the same archive, so that their mirror has [`RELEASE`] as well.
const SUITES: [&str; 9] =
    ["bookworm", "trixie", "forky", "sid", "oldstable", "stable", "testing", "unstable", "oldoldstable"];

/// A package as the archive describes it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Package {
    /// Name, without version.
    pub name: String,
    /// Debian version.
    pub version: String,
    /// SHA-256 of the package file.
    pub sha256: String,
    /// The names it depends on, in order, without versions.
    pub depends: Vec<String>,
}

/// apt with lists, cache and sources of its own.
pub(crate) struct Apt {
    root: PathBuf,
    debs: PathBuf,
}

impl Apt {
    /// Sets the private root up and fetches the package lists.
    pub fn update(cache: &Cache) -> Result<Apt> {
        let apt = Apt { root: cache.path("apt"), debs: cache.path("debs") };
        for folder in ["state/lists/partial", "cache/archives/partial", "preferences.d", "sources.d"] {
            let folder = apt.root.join(folder);
            fs::create_dir_all(&folder).file("create", &folder)?;
        }
        fs::create_dir_all(&apt.debs).file("create", &apt.debs)?;
        cache::write_file(&apt.root.join("status"), b"")?;
        cache::write_file(&apt.root.join("sources.list"), sources(&mirrors()?).as_bytes())?;
        tool::output(apt.command("apt-get").args(["update", "-qq", "--error-on=any"]))?;
        Ok(apt)
    }

    /// The newest version of a package in `suite` (its candidate when `None`).
    pub fn find(&self, package: &str, suite: Option<&str>) -> Result<Package> {
        let problem = |text: &str| Error::Package { package: package.into(), problem: text.into() };
        let mut command = self.command("apt-cache");
        if let Some(suite) = suite {
            command.args(["-o", &format!("APT::Default-Release={suite}")]);
        }
        let shown = tool::output(command.args(["show", "--no-all-versions", package]))
            .map_err(|_| problem("not in the archive"))?;
        let shown = String::from_utf8_lossy(&shown);
        let fields: HashMap<&str, &str> = shown
            .lines()
            .take_while(|line| !line.is_empty())
            .filter_map(|line| line.split_once(": "))
            .collect();
        let field =
            |name: &str| fields.get(name).copied().ok_or_else(|| problem(&format!("no {name} field")));
        let names = |list: &str| {
            list.split([',', '|']).filter_map(|d| d.split_whitespace().next().map(String::from)).collect()
        };
        Ok(Package {
            name: package.into(),
            version: field("Version")?.into(),
            sha256: field("SHA256")?.into(),
            depends: fields.get("Depends").map(|list| names(list)).unwrap_or_default(),
        })
    }

    /// The package's file, downloaded unless the cache has it. apt checks the archive's signature and hashes.
    pub fn download(&self, package: &Package) -> Result<PathBuf> {
        let wanted = self.debs.join(format!("{}_{}.deb", package.name, &package.sha256[..16]));
        if wanted.exists() && cache::sha256_file(&wanted)? == package.sha256 {
            return Ok(wanted);
        }
        eprintln!("guest-images: downloading {} {}", package.name, package.version);
        let folder = self.root.join("download");
        cache::remove(&folder)?;
        fs::create_dir_all(&folder).file("create", &folder)?;
        let versioned = format!("{}={}", package.name, package.version);
        tool::output(self.command("apt-get").args(["download", "-qq", &versioned]).current_dir(&folder))?;
        let file = only_file(&folder)?.ok_or_else(|| Error::Package {
            package: versioned.clone(),
            problem: "apt-get download left no file".into(),
        })?;
        if cache::sha256_file(&file)? != package.sha256 {
            return Err(Error::Package {
                package: versioned,
                problem: "SHA-256 differs from the archive's".into(),
            });
        }
        fs::rename(&file, &wanted).file("create", &wanted)?;
        cache::remove(&folder)?;
        Ok(wanted)
    }

    /// The sources, for another program that asks the same archive.
    pub fn sources_list(&self) -> PathBuf {
        self.root.join("sources.list")
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let at = |name: &str| self.root.join(name).display().to_string();
        for (key, value) in [
            ("Dir::State", at("state")),
            ("Dir::State::status", at("status")),
            ("Dir::Cache", at("cache")),
            ("Dir::Etc::sourcelist", at("sources.list")),
            ("Dir::Etc::sourceparts", at("sources.d")),
            ("Dir::Etc::preferences", at("preferences")),
            ("Dir::Etc::preferencesparts", at("preferences.d")),
            ("APT::Architecture", "amd64".into()),
            ("APT::Architectures", "amd64".into()),
            ("Acquire::Languages", "none".into()),
            ("Acquire::Retries", "3".into()),
            // The user's cache is private to the user: apt's own user could not write there.
            ("APT::Sandbox::User", "root".into()),
        ] {
            command.args(["-o", &format!("{key}={value}")]);
        }
        command.env("LC_ALL", "C");
        command
    }
}

/// Where the archive and its security updates are.
#[derive(Debug, PartialEq, Eq)]
struct Mirrors {
    main: String,
    security: Option<String>,
}

/// The mirrors this machine is configured to use.
fn mirrors() -> Result<Mirrors> {
    let format = "$(RELEASE) $(COMPONENT) $(REPO_URI) $(ORIGIN)";
    let mut command = Command::new("apt-get");
    let targets = tool::output(command.args(["indextargets", "--format", format, "Created-By: Packages"]))?;
    choose_mirrors(&String::from_utf8_lossy(&targets)).ok_or(Error::NoMirror)
}

/// Picks from lines of `release component uri origin`; the origin is only known after an `apt-get update`.
fn choose_mirrors(targets: &str) -> Option<Mirrors> {
    let debian = |wanted_suffix: &str, origin_known: bool| {
        targets.lines().find_map(|line| {
            let mut words = line.split(' ');
            let (release, component, uri) = (words.next()?, words.next()?, words.next()?);
            let origin = words.next().unwrap_or_default();
            let (suite, suffix) = release.split_once(['-', '/']).unwrap_or((release, ""));
            let fits = SUITES.contains(&suite) && suffix == wanted_suffix && component == "main";
            (fits && (origin == "Debian" || !origin_known)).then(|| uri.to_string())
        })
    };
    let find = |suffix: &str| debian(suffix, true).or_else(|| debian(suffix, false));
    Some(Mirrors { main: find("")?, security: find("security") })
}

fn sources(mirrors: &Mirrors) -> String {
    let line = |uri: &str, suite: String| format!("deb [signed-by={KEYRING}] {uri} {suite} main\n");
    let mut text: String = ["", "-updates", "-backports"]
        .iter()
        .map(|suffix| line(&mirrors.main, format!("{RELEASE}{suffix}")))
        .collect();
    if let Some(uri) = &mirrors.security {
        text += &line(uri, format!("{RELEASE}-security"));
    }
    text
}

fn only_file(folder: &Path) -> Result<Option<PathBuf>> {
    let entry = fs::read_dir(folder).file("read", folder)?.next().transpose().file("read", folder)?;
    Ok(entry.map(|entry| entry.path()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machines_own_mirror_is_used() {
        let targets = "nodistro main http://other/ Other\n\
                       bookworm main http://near/debian/ Debian\n\
                       bookworm-updates main http://near/debian/ Debian\n\
                       bookworm-security main http://near/security/ Debian\n";
        let mirrors = choose_mirrors(targets).unwrap();
        assert_eq!(mirrors.main, "http://near/debian/");
        assert_eq!(mirrors.security.as_deref(), Some("http://near/security/"));
        let sources = sources(&mirrors);
        assert!(sources.contains("http://near/debian/ bookworm-backports main\n"), "{sources}");
        assert_eq!(sources.lines().count(), 4);
        assert!(sources.lines().all(|line| line.contains("signed-by=/")));
    }

    #[test]
    fn other_archives_are_not_debian() {
        assert_eq!(choose_mirrors("bookworm-pgdg main http://x/ Other\nnodistro main http://y/ Z\n"), None);
        let both = "trixie main http://third/ Third\ntrixie main http://near/ Debian\n";
        assert_eq!(choose_mirrors(both).unwrap().main, "http://near/");
        assert_eq!(choose_mirrors("stable main http://before-update/ \n").unwrap().security, None);
    }
}
