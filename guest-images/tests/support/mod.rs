//! A guest in QEMU, with every device that the images have a driver for.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use guest_images::scratch::Scratch;
use guest_images::{ImageSet, KernelSeries, pattern};

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

    pub fn wait_for(&mut self, text: &str, deadline: Duration) {
        self.wait_until(deadline, &format!("console does not say {text:?}"), |guest| {
            guest.text("console").contains(text)
        });
    }

    pub fn wait_for_end(&mut self, deadline: Duration) {
        self.wait_until(deadline, "QEMU does not end", |guest| guest.qemu.try_wait().unwrap().is_some());
    }

    /// The checksum of what the host finds in the guest's disk.
    pub fn disk_checksum(&self, offset: u64, bytes: u64) -> String {
        let mut content = vec![0; bytes as usize];
        File::open(self.scratch.path().join("disk")).unwrap().read_exact_at(&mut content, offset).unwrap();
        pattern::checksum(&content)
    }

    fn wait_until(&mut self, deadline: Duration, problem: &str, mut done: impl FnMut(&mut Self) -> bool) {
        let end = Instant::now() + deadline;
        while !done(self) {
            let ended = self.qemu.try_wait().unwrap();
            assert!(
                Instant::now() < end && ended.is_none(),
                "{problem} within {deadline:?}; QEMU: {ended:?} {}; console:\n{}",
                self.text("stderr"),
                self.text("console")
            );
            thread::sleep(Duration::from_millis(50));
        }
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
