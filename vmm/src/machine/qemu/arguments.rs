//! The command line of QEMU for a guest.
//!
//! The machine is always `q35`. `microvm` has the same devices as the engine `kvm`, but under TCG its kernels hang at
//! boot (Debian's 6.1: 10 of 12 starts with QEMU 10, none with `q35`), and it has neither PCI for virtio-pmem nor
//! memory devices. So devices are on PCI: the guest needs `virtio_pci`, and `pci=off` is removed from its command
//! line.

use super::child::Descriptors;
use super::images::SharedImages;
use crate::machine::root_images;
use crate::spec::{Console, Disk, GuestSpec};
use std::ffi::{OsStr, OsString};
use std::io::IsTerminal;
use std::os::fd::RawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

/// Id of guest RAM.
const RAM: &str = "ram";
/// Id of the balloon.
const BALLOON: &str = "balloon";
/// Memory for translated code under TCG, MiB. QEMU's default is 1 GiB, and a busy guest fills all of it; 32 MiB hold
/// what a booted Linux runs.
const TB_MIB: u32 = 32;
/// Word of a kernel's command line for its buffers for devices that do not reach all memory.
const BOUNCE_WORD: &str = "swiotlb=";
/// No such buffers. Linux 4.10 and newer.
const NO_BOUNCE: &str = "swiotlb=noforce";
/// Linux does not check the timer at boot: on a busy host the interrupts of a translated machine come so late that
/// Linux takes the timer for broken and stops (`check_timer` in arch/x86/kernel/apic/io_apic.c). Under KVM it does
/// not check either.
const NO_TIMER_CHECK: &str = "no_timer_check";

/// How QEMU executes instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accelerator {
    /// The processor executes them.
    Kvm,
    /// QEMU translates them.
    Tcg,
}

/// A list of words.
#[derive(Debug, Default)]
struct Words(Vec<OsString>);

impl Words {
    fn add(&mut self, option: &str, value: impl AsRef<OsStr>) {
        self.0.push(option.into());
        self.0.push(value.as_ref().into());
    }
}

/// The command line, and the number of virtio devices.
pub(super) fn arguments(
    spec: &GuestSpec,
    name: &str,
    accelerator: Accelerator,
    descriptors: &Descriptors,
    images: &SharedImages,
) -> (Vec<OsString>, u32) {
    let mut words = Words::default();
    for word in ["-nodefaults", "-no-user-config", "-no-reboot", "-S"] {
        words.0.push(word.into());
    }
    words.add("-name", name);
    words.add("-display", "none");
    words.add(
        "-machine",
        format!(
            "q35,usb=off,sata=off,smbus=off,hpet=off,vmport=off,dump-guest-core=off,mem-merge=off,memory-backend={RAM}"
        ),
    );
    match accelerator {
        Accelerator::Kvm => {
            words.add("-accel", "kvm");
            words.add("-cpu", "host");
        }
        Accelerator::Tcg => {
            words.add("-accel", format!("tcg,thread=multi,tb-size={TB_MIB}"));
            // Four levels of page tables: software would have to walk a fifth as well.
            words.add("-cpu", "max,la57=off");
        }
    }
    words.add("-smp", spec.cpu_count().to_string());
    words.add("-m", images.memory_option(spec.memory_bytes()));
    words.add("-object", ram(spec.memory_bytes(), reserves_always()));
    if let Some(kernel) = &spec.kernel {
        words.add("-kernel", kernel);
    }
    if let Some(initrd) = &spec.initrd {
        words.add("-initrd", initrd);
    }
    words.add("-append", kernel_line(spec));
    words.add("-chardev", console(spec.console.as_ref().unwrap_or(&Console::Stdio)));
    words.add("-serial", "chardev:console");
    stream(&mut words, "monitor", descriptors.monitor, false);
    words.add("-mon", "chardev=monitor,mode=control");
    let devices = devices(&mut words, spec, descriptors, images);
    (words.0, devices)
}

/// Adds all virtio devices, and returns their number.
fn devices(words: &mut Words, spec: &GuestSpec, descriptors: &Descriptors, images: &SharedImages) -> u32 {
    let mut count = 0;
    let mut device = |words: &mut Words, text: String| {
        words.add("-device", text);
        count += 1;
    };
    device(words, format!("virtio-balloon-pci,id={BALLOON},deflate-on-oom=on,free-page-reporting=on"));
    device(words, "virtio-rng-pci".into());
    for (memory, pmem) in images.options() {
        words.add("-object", memory);
        device(words, pmem);
    }
    for (index, disk) in spec.disks.iter().enumerate() {
        words.add("-drive", drive(index, disk));
        device(words, format!("virtio-blk-pci,drive=disk{index}"));
    }
    for (name, descriptor, listens) in
        [("channel", descriptors.channel, true), ("port", descriptors.port, false)]
    {
        if let Some(descriptor) = descriptor {
            stream(words, name, descriptor, listens);
            // One port: the guest's console, without QEMU's protocol for many.
            device(words, format!("virtio-serial-pci,id={name}s,max_ports=1"));
            words.add("-device", format!("virtconsole,bus={name}s.0,chardev={name}"));
        }
    }
    count
}

/// Guest RAM: private anonymous memory. A guest may have more of it than the host, because its limit counts: the
/// kernel reserves nothing for memory that is not touched, as with the engine `kvm`.
fn ram(bytes: u64, reserves_always: bool) -> String {
    let reserve = if reserves_always { "on" } else { "off" };
    format!("memory-backend-ram,id={RAM},size={}M,reserve={reserve}", bytes >> 20)
}

/// True if the kernel always reserves memory (`vm.overcommit_memory` is 2): then QEMU does not accept `reserve=off`.
fn reserves_always() -> bool {
    std::fs::read_to_string("/proc/sys/vm/overcommit_memory").is_ok_and(|text| text.trim() == "2")
}

/// The kernel's command line, with all that is added to the user's words.
pub(super) fn kernel_line(spec: &GuestSpec) -> String {
    cmdline(&root_images::cmdline(spec.kernel_words(), spec.root.len()))
}

/// The kernel's command line without the word that would hide the devices, with a word for a slow host, and with a
/// word against buffers that no device needs: Linux reserves 64 MiB for devices that reach only 4 GiB
/// (`pci_swiotlb_detect` in arch/x86/kernel/pci-dma.c) if memory may be plugged in above, and the room for images is
/// such memory. Virtio reaches all of it. A word that the user gives counts.
fn cmdline(text: &str) -> String {
    let mut words: Vec<&str> = text.split(' ').filter(|word| *word != "pci=off").collect();
    if !words.iter().any(|word| word.starts_with(BOUNCE_WORD)) {
        // First: words behind `--` are not for the kernel.
        words.insert(0, NO_BOUNCE);
    }
    words.insert(0, NO_TIMER_CHECK);
    words.join(" ")
}

fn stream(words: &mut Words, name: &str, descriptor: RawFd, listens: bool) {
    let server = if listens { "server=on,wait=off" } else { "server=off" };
    words.add("-chardev", format!("socket,id={name},fd={descriptor},{server}"));
}

fn console(console: &Console) -> OsString {
    match console {
        // `mux` has the keys that end QEMU, which are for users: bytes of a pipe are all the guest's.
        Console::Stdio if std::io::stdin().is_terminal() => "stdio,id=console,signal=on,mux=on".into(),
        Console::Stdio => "stdio,id=console,signal=on".into(),
        Console::None => "null,id=console".into(),
        Console::File(path) => with_path("file,id=console,append=on,path=", path),
    }
}

fn drive(index: usize, disk: &Disk) -> OsString {
    let read_only = if disk.read_only { "on" } else { "off" };
    with_path(
        &format!(
            "if=none,id=disk{index},format=raw,cache=writeback,discard=unmap,readonly={read_only},file="
        ),
        &disk.path,
    )
}

/// A path as the last value of an option: each comma in it is doubled, and it starts with a slash or a dot, because
/// QEMU takes a word before a colon for a protocol.
fn with_path(option: &str, path: &Path) -> OsString {
    let mut bytes = option.as_bytes().to_vec();
    if path.is_relative() {
        bytes.extend_from_slice(b"./");
    }
    for byte in path.as_os_str().as_bytes() {
        bytes.push(*byte);
        if *byte == b',' {
            bytes.push(b',');
        }
    }
    OsString::from_vec(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(spec: &GuestSpec, descriptors: &Descriptors) -> (String, u32) {
        let images = SharedImages::open(spec, &"/a".parse().unwrap(), None).unwrap();
        let (words, devices) = arguments(spec, "a", Accelerator::Tcg, descriptors, &images);
        (words.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" "), devices)
    }

    #[test]
    fn a_guest_becomes_a_command_line() {
        let spec = GuestSpec {
            memory: Some(256 << 20),
            cpus: Some(2),
            kernel: Some("k".into()),
            disks: vec!["a,ro".parse().unwrap(), "/x/b".parse().unwrap()],
            console: Some(Console::File("/c,d".into())),
            ..GuestSpec::default()
        };
        let (text, devices) =
            line(&spec, &Descriptors { monitor: 5, channel: Some(6), port: None, images: vec![] });
        for words in [
            "-smp 2 -m 256M -object memory-backend-ram,id=ram,size=256M,reserve=",
            ",memory-backend=ram ",
            " -kernel k -append no_timer_check swiotlb=noforce console=ttyS0 reboot=k panic=-1 -chardev ",
            " file,id=console",
            "id=console,append=on,path=/c,,d ",
            "readonly=on,file=./a -device virtio-blk-pci,drive=disk0",
            "readonly=off,file=/x/b -device virtio-blk-pci,drive=disk1",
            "socket,id=channel,fd=6,server=on,wait=off -device virtio-serial-pci,id=channels,max_ports=1",
            "max_ports=1 -device virtconsole,bus=channels.0",
            "socket,id=monitor,fd=5,server=off -mon chardev=monitor,mode=control",
            "free-page-reporting=on",
        ] {
            assert!(text.contains(words), "{words}\n{text}");
        }
        assert_eq!(devices, 5);
        assert!(!text.contains("id=port"));
    }

    #[test]
    fn untouched_ram_is_not_reserved_unless_the_kernel_always_reserves() {
        assert_eq!(ram(40 << 30, false), "memory-backend-ram,id=ram,size=40960M,reserve=off");
        assert!(ram(40 << 30, true).ends_with("reserve=on"));
    }

    #[test]
    fn only_the_word_that_hides_pci_is_removed() {
        let text = cmdline("swiotlb=1 pci=off  b=\"c d\" xpci=off");
        assert_eq!(text, "no_timer_check swiotlb=1  b=\"c d\" xpci=off");
    }

    #[test]
    fn a_kernel_reserves_no_bounce_buffers_unless_the_user_wants_them() {
        assert_eq!(cmdline("quiet -- x"), "no_timer_check swiotlb=noforce quiet -- x");
        assert_eq!(cmdline("swiotlb=512 quiet"), "no_timer_check swiotlb=512 quiet");
    }
}
