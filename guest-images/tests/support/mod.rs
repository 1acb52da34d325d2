//! A guest in QEMU, with every device that the images have a driver for.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use guest_images::scratch::Scratch;
use guest_images::{ImageSet, KernelSeries, pattern};
use wait::Activity;

const DISK_BYTES: u64 = 64 << 20;

pub struct QemuGuest {
    qemu: Child,
    scratch: Scratch,
}

impl QemuGuest {
    pub fn boot(series: KernelSeries, words: &str) -> QemuGuest {
        let guest = ImageSet::of_user().unwrap().ensure(series).unwrap();
        let scratch = Scratch::new(&format!("guest-{series}"));
        let at = |name: &str| scratch.path().join(name).display().to_string();
        make_disk(&scratch.path().join("disk"));
        let qemu = Command::new("qemu-system-x86_64")
            .args([
                "-accel",
                "tcg",
                "-cpu",
                "max",
                "-m",
                "256",
                "-nodefaults",
                "-no-reboot",
                "-display",
                "none",
            ])
            .args(["-kernel", guest.bzimage.to_str().unwrap(), "-initrd", guest.initramfs.to_str().unwrap()])
            .args(["-append", &format!("console=ttyS0 quiet panic=-1 no_timer_check {words}")])
            .args(["-serial", &format!("file:{}", at("console"))])
            .args([
                "-device",
                "virtio-balloon-pci",
                "-device",
                "virtio-rng-pci",
                "-device",
                "virtio-serial-pci",
            ])
            .args(["-chardev", &format!("socket,id=agent,path={},server=on,wait=off", at("agent"))])
            .args(["-device", "virtconsole,chardev=agent"])
            .args(["-drive", &format!("file={},if=none,id=d,format=raw", at("disk"))])
            .args(["-device", "virtio-blk-pci,drive=d"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(scratch.path().join("stderr")).unwrap())
            .spawn()
            .expect("QEMU is missing: run scripts/setup.sh, which installs it");
        QemuGuest { qemu, scratch }
    }

    pub fn socket(&self) -> PathBuf {
        self.scratch.path().join("agent")
    }

    /// What it does: the CPU time of QEMU, and what comes to the console.
    pub fn activity(&self) -> Activity {
        Activity::of(self.qemu.id()).with_file(&self.scratch.path().join("console"))
    }

    pub fn wait_for(&mut self, text: &str) {
        self.wait_until(&format!("the console shows {text:?}"), |guest| guest.text("console").contains(text));
    }

    pub fn wait_for_end(&mut self) {
        self.wait_until("QEMU ends", |guest| guest.qemu.try_wait().unwrap().is_some());
    }

    /// The checksum of what the host finds in the guest's disk.
    pub fn disk_checksum(&self, offset: u64, bytes: u64) -> String {
        let mut content = vec![0; bytes as usize];
        File::open(self.scratch.path().join("disk")).unwrap().read_exact_at(&mut content, offset).unwrap();
        pattern::checksum(&content)
    }

    fn wait_until(&mut self, what: &str, done: impl Fn(&mut Self) -> bool) {
        let activity = self.activity();
        let look = || {
            let ended = self.qemu.try_wait()?;
            Ok((done(self), ended))
        };
        let waited = wait::until(what, &activity, look, |(done, ended)| *done || ended.is_some());
        assert!(
            waited.as_ref().is_ok_and(|(done, _)| *done),
            "{what}: {waited:?} {}; console:\n{}",
            self.text("stderr"),
            self.text("console")
        );
    }

    fn text(&self, file: &str) -> String {
        String::from_utf8_lossy(&fs::read(self.scratch.path().join(file)).unwrap_or_default()).into_owned()
    }
}

impl Drop for QemuGuest {
    fn drop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

/// An ext4 file system on the first half; the second half is for raw access.
fn make_disk(path: &std::path::Path) {
    File::create(path).unwrap().set_len(DISK_BYTES).unwrap();
    let program =
        ["/usr/sbin/mke2fs", "/sbin/mke2fs"].into_iter().find(|path| fs::exists(path).unwrap_or(false));
    let made = Command::new(program.expect("mke2fs is missing: run scripts/setup.sh"))
        .args(["-q", "-F", "-t", "ext4", path.to_str().unwrap(), "32M"])
        .status()
        .unwrap();
    assert!(made.success());
}
