//! Debian's cloud kernels, unpacked for booting.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::bzimage;
use crate::cache::{self, Cache, Staged};
use crate::error::{Error, FileContext, Result};
use crate::modules::{ModuleTree, module_name};
use crate::tool;

/// What a guest may meet: each transport, each device this project serves.
pub(crate) const GUEST_MODULES: [&str; 6] =
    ["virtio_mmio", "virtio_pci", "virtio_balloon", "virtio_console", "virtio_blk", "virtio_rng"];
/// What a guest needs for a root of images in persistent memory, and loads only then.
pub(crate) const ROOT_MODULES: [&str; 4] = ["virtio_pmem", "nd_pmem", "erofs", "overlay"];
/// What makes the outer machine a host of guests.
pub(crate) const OUTER_MODULES: [&str; 1] = ["kvm_amd"];
/// Counts up when the same package is to be unpacked differently.
const RECIPE: &str = "1";

/// A kernel that guests are tested with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum KernelSeries {
    /// bookworm's own.
    #[serde(rename = "6.1")]
    V6_1,
    /// From bookworm-backports.
    #[serde(rename = "6.12")]
    V6_12,
}

impl KernelSeries {
    /// Every series, oldest first.
    pub const ALL: [KernelSeries; 2] = [KernelSeries::V6_1, KernelSeries::V6_12];

    /// The suite to prefer, where it is not bookworm with its updates.
    pub(crate) fn suite(self) -> Option<&'static str> {
        match self {
            KernelSeries::V6_1 => None,
            KernelSeries::V6_12 => Some("bookworm-backports"),
        }
    }

    fn name(self) -> &'static str {
        match self {
            KernelSeries::V6_1 => "6.1",
            KernelSeries::V6_12 => "6.12",
        }
    }
}

impl fmt::Display for KernelSeries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for KernelSeries {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<KernelSeries, String> {
        let known = KernelSeries::ALL.into_iter().find(|series| series.name() == text);
        known.ok_or_else(|| format!("unknown kernel series {text:?}: 6.1 or 6.12"))
    }
}

/// An unpacked kernel in the cache.
#[derive(Debug, Clone)]
pub(crate) struct Kernel {
    pub release: String,
    folder: PathBuf,
}

impl Kernel {
    /// The ELF kernel.
    pub fn vmlinux(&self) -> PathBuf {
        self.folder.join("vmlinux")
    }

    /// The kernel as the package has it.
    pub fn bzimage(&self) -> PathBuf {
        self.folder.join("bzImage")
    }

    /// `wanted` and what they need, with their content, in load order.
    pub fn modules(&self, wanted: &[&str]) -> Result<Vec<(String, Vec<u8>)>> {
        let mut tree = ModuleTree::default();
        let builtin = self.folder.join("modules.builtin");
        tree.add_builtin(&fs::read_to_string(&builtin).file("read", &builtin)?);
        let folder = self.folder.join("modules");
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(&folder).file("read", &folder)? {
            let path = entry.file("read", &folder)?.path();
            let Some(name) = module_name(&path.to_string_lossy()) else { continue };
            let elf = fs::read(&path).file("read", &path)?;
            tree.add(&name, &elf)?;
            files.insert(name, elf);
        }
        let order = tree.load_order(wanted)?;
        Ok(order.into_iter().filter_map(|name| files.remove_entry(&name)).collect())
    }
}

/// Where the kernel of a package with this SHA-256 is, when the cache has it.
pub(crate) fn cached(cache: &Cache, sha256: &str) -> Option<Kernel> {
    let folder = folder(cache, sha256);
    let release = fs::read_to_string(folder.join("release")).ok()?;
    Some(Kernel { release, folder })
}

/// Unpacks a kernel's package into the cache.
pub(crate) fn unpack(cache: &Cache, deb: &Path, sha256: &str) -> Result<Kernel> {
    let package = Content::of(deb)?;
    let wanted = folder(cache, sha256);
    let staged = Staged::next_to(&wanted)?;
    let modules = staged.path().join("modules");
    fs::create_dir_all(&modules).file("create", &modules)?;
    let write = |name: &str, content: &[u8]| {
        let path = staged.path().join(name);
        fs::write(&path, content).file("write", &path)
    };
    write("bzImage", &package.bzimage)?;
    write("vmlinux", &bzimage::vmlinux(&package.bzimage)?)?;
    write("modules.builtin", package.builtin.as_bytes())?;
    for (name, elf) in
        package.closure(&[&GUEST_MODULES[..], &ROOT_MODULES[..], &OUTER_MODULES[..]].concat())?
    {
        write(&format!("modules/{name}.ko"), &elf)?;
    }
    write("release", package.release.as_bytes())?;
    staged.commit()?;
    Ok(Kernel { release: package.release, folder: wanted })
}

fn folder(cache: &Cache, sha256: &str) -> PathBuf {
    let wanted = [GUEST_MODULES.join(","), ROOT_MODULES.join(","), OUTER_MODULES.join(",")].concat();
    let key = cache::sha256_of([sha256, RECIPE, &wanted].map(str::as_bytes));
    cache.path("kernels").join(&key[..16])
}

/// What is of use in a kernel's package.
#[derive(Default)]
struct Content {
    release: String,
    bzimage: Vec<u8>,
    builtin: String,
    /// Modules as packed: plain, or compressed with xz.
    modules: BTreeMap<String, Vec<u8>>,
}

impl Content {
    fn of(deb: &Path) -> Result<Content> {
        let mut content = Content::default();
        each_file(deb, |path, read| {
            if let Some(release) = path.strip_prefix("boot/vmlinuz-") {
                content.release = release.into();
                content.bzimage = read()?;
            } else if path.ends_with("/modules.builtin") {
                content.builtin = String::from_utf8_lossy(&read()?).into_owned();
            } else if let Some(name) = module_name(path) {
                content.modules.insert(name, read()?);
            }
            Ok(())
        })?;
        if content.bzimage.is_empty() || content.builtin.is_empty() {
            let problem = "has no boot/vmlinuz-* or no modules.builtin".into();
            return Err(Error::Package { package: deb.display().to_string(), problem });
        }
        Ok(content)
    }

    /// The wanted modules and all they need, unpacked.
    fn closure(&self, wanted: &[&str]) -> Result<BTreeMap<String, Vec<u8>>> {
        let mut tree = ModuleTree::default();
        tree.add_builtin(&self.builtin);
        let mut unpacked = BTreeMap::new();
        let mut open: Vec<String> = wanted.iter().map(|name| name.to_string()).collect();
        while let Some(name) = open.pop() {
            let Some(packed) = self.modules.get(&name).filter(|_| !unpacked.contains_key(&name)) else {
                continue;
            };
            let elf = unxz(packed)
                .map_err(|error| Error::Module { module: name.clone(), problem: error.to_string() })?;
            open.extend(tree.add(&name, &elf)?.iter().cloned());
            unpacked.insert(name, elf);
        }
        // Says now, and by name, what the package lacks.
        tree.load_order(wanted)?;
        Ok(unpacked)
    }
}

fn unxz(packed: &[u8]) -> std::io::Result<Vec<u8>> {
    if !packed.starts_with(bzimage::XZ_MAGIC) {
        return Ok(packed.to_vec());
    }
    let mut out = Vec::new();
    lzma_rust2::XzReader::new(packed, true).read_to_end(&mut out)?;
    Ok(out)
}

/// Calls `visit` with the path of each regular file of a package and a way to read it.
pub(crate) fn each_file(
    deb: &Path,
    mut visit: impl FnMut(&str, &mut dyn FnMut() -> Result<Vec<u8>>) -> Result<()>,
) -> Result<()> {
    let mut command = Command::new("dpkg-deb");
    command.arg("--fsys-tarfile").arg(deb).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().map_err(|source| tool::missing(&command, source))?;
    let stdout = child.stdout.take().expect("stdout is piped");
    let visited = visit_tar(stdout, deb, &mut visit);
    let status = child.wait().file("read", deb)?;
    visited?;
    if !status.success() {
        return Err(Error::Tool { program: "dpkg-deb".into(), status, stderr: deb.display().to_string() });
    }
    Ok(())
}

/// Gets the path of a file, and a way to read it.
type Visit<'a> = dyn FnMut(&str, &mut dyn FnMut() -> Result<Vec<u8>>) -> Result<()> + 'a;

fn visit_tar(stream: impl Read, deb: &Path, visit: &mut Visit<'_>) -> Result<()> {
    let mut archive = tar::Archive::new(stream);
    for entry in archive.entries().file("read", deb)? {
        let mut entry = entry.file("read", deb)?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let path = entry.path().file("read", deb)?.to_string_lossy().into_owned();
        visit(path.trim_start_matches("./"), &mut || {
            let mut content = Vec::new();
            entry.read_to_end(&mut content).file("read", deb)?;
            Ok(content)
        })?;
    }
    // dpkg-deb must not be stopped by a closed pipe when the archive's padding is longer than one block.
    std::io::copy(&mut archive.into_inner(), &mut std::io::sink()).file("read", deb)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_have_a_text_form() {
        for series in KernelSeries::ALL {
            assert_eq!(series.to_string().parse(), Ok(series));
            assert_eq!(serde_json::to_string(&series).unwrap(), format!("\"{series}\""));
        }
        assert!("6.6".parse::<KernelSeries>().unwrap_err().contains("6.1 or 6.12"));
    }
}
