//! The images that guests boot, and which packages they were made from.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::apt::{Apt, Package};
use crate::cache::{self, Cache};
use crate::error::{Error, FileContext, Result};
use crate::initramfs::{self, Parts};
use crate::kernel::{self, GUEST_MODULES, Kernel, KernelSeries, OUTER_MODULES, ROOT_MODULES};
use crate::old_qemu;
use crate::root::{self, Root};

/// The metapackage that depends on the newest kernel of a suite.
const KERNEL_METAPACKAGE: &str = "linux-image-cloud-amd64";
const BUSYBOX: &str = "busybox-static";

/// What a VMM needs for booting a guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Guest {
    /// Which series was asked for.
    pub series: KernelSeries,
    /// The kernel's release, as `uname -r` prints it.
    pub version: String,
    /// The kernel as an ELF file: boots fastest.
    pub vmlinux: PathBuf,
    /// The kernel as the package has it.
    pub bzimage: PathBuf,
    /// Busybox, drivers, `workload`.
    pub initramfs: PathBuf,
}

/// What the outer machine boots.
pub(crate) struct Outer {
    pub vmlinux: PathBuf,
    pub initramfs: PathBuf,
}

/// The packages that a series is made from. Kept until [`ImageSet::refresh`], so that the same cache gives
/// the same images, with or without a network.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Pins {
    kernel: Package,
    busybox: Package,
}

/// The images in one cache.
#[derive(Debug, Clone)]
pub struct ImageSet {
    cache: Cache,
}

impl ImageSet {
    /// The images of a cache; nothing is made yet.
    pub fn new(cache: Cache) -> ImageSet {
        ImageSet { cache }
    }

    /// The images of the user's cache.
    pub fn of_user() -> Result<ImageSet> {
        Cache::of_user().map(ImageSet::new)
    }

    /// The cache.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// The images of a series; what is missing is downloaded and made. Waits for another process that does so.
    pub fn ensure(&self, series: KernelSeries) -> Result<Guest> {
        let _lock = self.cache.lock()?;
        let (kernel, busybox) = self.parts(series)?;
        let modules = kernel.modules(&GUEST_MODULES)?;
        let mut root_modules = kernel.modules(&ROOT_MODULES)?;
        root_modules.retain(|(name, _)| modules.iter().all(|(loaded, _)| loaded != name));
        let init = include_str!("init/guest.sh");
        let parts = Parts { busybox: &busybox, modules: &modules, root_modules: &root_modules, init };
        let initramfs = initramfs::ensure(&self.cache, &format!("guest-{}", kernel.release), &parts)?;
        Ok(Guest {
            series,
            vmlinux: kernel.vmlinux(),
            bzimage: kernel.bzimage(),
            initramfs,
            version: kernel.release,
        })
    }

    /// The outer machine's kernel and initramfs.
    pub(crate) fn ensure_outer(&self, series: KernelSeries) -> Result<Outer> {
        let _lock = self.cache.lock()?;
        let (kernel, busybox) = self.parts(series)?;
        let modules = kernel.modules(&OUTER_MODULES)?;
        let init = include_str!("init/outer.sh");
        let parts = Parts { busybox: &busybox, modules: &modules, root_modules: &[], init };
        let initramfs = initramfs::ensure(&self.cache, &format!("outer-{}", kernel.release), &parts)?;
        Ok(Outer { vmlinux: kernel.vmlinux(), initramfs })
    }

    /// Asks the archive for the newest packages of a series; [`ImageSet::ensure`] uses them from then on.
    pub fn refresh(&self, series: KernelSeries) -> Result<()> {
        let _lock = self.cache.lock()?;
        self.pin(&Apt::update(&self.cache)?, series).map(|_| ())
    }

    /// The layers of a Debian root with services; made when missing. Waits for another process that does so.
    pub fn root(&self) -> Result<Root> {
        let _lock = self.cache.lock()?;
        root::ensure(&self.cache)
    }

    /// The program of the QEMU that Debian 12 has; unpacked when missing. Waits for another process that does so.
    pub fn old_qemu(&self) -> Result<PathBuf> {
        let _lock = self.cache.lock()?;
        old_qemu::ensure(&self.cache)
    }

    /// Makes them again, from the newest packages.
    pub fn refresh_root(&self) -> Result<()> {
        let _lock = self.cache.lock()?;
        root::refresh(&self.cache)
    }

    /// The series that are complete in the cache: no download, nothing made.
    pub fn list(&self) -> Result<Vec<Guest>> {
        let complete = |series: &KernelSeries| {
            self.pins(*series).is_ok_and(|pins| {
                let kernel = kernel::cached(&self.cache, &pins.kernel.sha256);
                kernel.is_some() && self.busybox_path(&pins.busybox).exists()
            })
        };
        KernelSeries::ALL.into_iter().filter(complete).map(|series| self.ensure(series)).collect()
    }

    /// Kernel and busybox, from the cache where it has them.
    fn parts(&self, series: KernelSeries) -> Result<(Kernel, Vec<u8>)> {
        if let Ok(pins) = self.pins(series)
            && let Some(kernel) = kernel::cached(&self.cache, &pins.kernel.sha256)
            && let Ok(busybox) = fs::read(self.busybox_path(&pins.busybox))
        {
            return Ok((kernel, busybox));
        }
        eprintln!("guest-images: asking the Debian archive for kernel {series}");
        let apt = Apt::update(&self.cache)?;
        let pins = self.pin(&apt, series)?;
        let busybox = self.busybox(&apt, &pins.busybox)?;
        let kernel = match kernel::cached(&self.cache, &pins.kernel.sha256) {
            Some(kernel) => kernel,
            None => {
                let deb = apt.download(&pins.kernel)?;
                eprintln!("guest-images: unpacking {}", pins.kernel.name);
                kernel::unpack(&self.cache, &deb, &pins.kernel.sha256)?
            }
        };
        Ok((kernel, busybox))
    }

    /// Looks the newest packages up and writes their names down.
    fn pin(&self, apt: &Apt, series: KernelSeries) -> Result<Pins> {
        let metapackage = apt.find(KERNEL_METAPACKAGE, series.suite())?;
        let image = metapackage.depends.iter().find(|name| name.starts_with("linux-image-"));
        let image = image.ok_or_else(|| Error::Package {
            package: KERNEL_METAPACKAGE.into(),
            problem: format!("version {} depends on no linux-image-*", metapackage.version),
        })?;
        let kernel = apt.find(image, series.suite())?;
        if !kernel.version.starts_with(&format!("{series}.")) {
            let problem = format!("version {} is not of the series {series}", kernel.version);
            return Err(Error::Package { package: kernel.name, problem });
        }
        let pins = Pins { kernel, busybox: apt.find(BUSYBOX, None)? };
        let text = serde_json::to_vec_pretty(&pins).expect("strings have a JSON form");
        cache::write_file(&self.pins_path(series), &text)?;
        Ok(pins)
    }

    fn pins(&self, series: KernelSeries) -> Result<Pins> {
        let path = self.pins_path(series);
        let text = fs::read(&path).file("read", &path)?;
        serde_json::from_slice(&text).map_err(std::io::Error::from).file("read", &path)
    }

    fn pins_path(&self, series: KernelSeries) -> PathBuf {
        self.cache.path(format!("packages-{series}.json"))
    }

    fn busybox_path(&self, package: &Package) -> PathBuf {
        self.cache.path("busybox").join(&package.sha256[..16])
    }

    fn busybox(&self, apt: &Apt, package: &Package) -> Result<Vec<u8>> {
        let path = self.busybox_path(package);
        if !path.exists() {
            cache::write_file(&path, &program(&apt.download(package)?, "busybox")?)?;
        }
        fs::read(&path).file("read", &path)
    }
}

/// The program `name` of a package, wherever it is installed to.
fn program(deb: &Path, name: &str) -> Result<Vec<u8>> {
    let mut found = None;
    kernel::each_file(deb, |path, read| {
        if path.ends_with(&format!("bin/{name}")) {
            found = Some(read()?);
        }
        Ok(())
    })?;
    found.ok_or_else(|| Error::Package {
        package: deb.display().to_string(),
        problem: format!("has no program {name}"),
    })
}
