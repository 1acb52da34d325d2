//! The QEMU of Debian 12, next to a newer one that is installed: unpacked in the cache, started by a script there.
//!
//! The libraries that it needs are the same that Debian's newer package brings; on a machine with others it does not
//! run, which
//! [`ensure`] says as an error.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::apt::Apt;
use crate::cache::{Cache, Staged};
use crate::error::{Error, FileContext, Result};
use crate::tool;

/// What holds the program, its loadable parts (TCG is one) and its firmware.
const PACKAGES: [&str; 3] = ["qemu-system-x86", "qemu-system-common", "qemu-system-data"];
/// The version that Debian 12 has.
const VERSION: &str = "7.2";

/// The script that starts it; what is missing is downloaded. The caller holds the cache's lock.
pub(crate) fn ensure(cache: &Cache) -> Result<PathBuf> {
    let folder = cache.path(format!("qemu-{VERSION}"));
    let script = folder.join("qemu");
    if !script.exists() {
        make(cache, &folder)?;
    }
    let printed = tool::output(Command::new(&script).arg("--version"))?;
    let printed = String::from_utf8_lossy(&printed).into_owned();
    if printed.contains(&format!("version {VERSION}.")) {
        return Ok(script);
    }
    let problem = format!("its version is {:?}", printed.lines().next().unwrap_or_default());
    Err(Error::Package { package: PACKAGES[0].into(), problem })
}

fn make(cache: &Cache, folder: &Path) -> Result<()> {
    eprintln!("guest-images: unpacking QEMU {VERSION}");
    let apt = Apt::update(cache)?;
    let staged = Staged::next_to(folder)?;
    for name in PACKAGES {
        let deb = apt.download(&apt.find(name, None)?)?;
        tool::output(Command::new("dpkg-deb").arg("-x").arg(&deb).arg(staged.path()))?;
    }
    let script = staged.path().join("qemu");
    fs::write(&script, text(folder)).file("write", &script)?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).file("write", &script)?;
    staged.commit()
}

fn text(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "#!/bin/sh\nexport QEMU_MODULE_DIR='{folder}/usr/lib/x86_64-linux-gnu/qemu'\n\
         exec '{folder}/usr/bin/qemu-system-x86_64' -L '{folder}/usr/share/qemu' -L /usr/share/seabios \"$@\"\n"
    )
}
