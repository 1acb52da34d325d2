//! The spec of a guest: one struct behind the command line and the spec file, with the same keys. Flags win.

use clap::Args;
use protocol::bytes::{self, BLOCK_BYTES};
use protocol::limits::LimitsPatch;
use protocol::path::ContainerPath;
use serde::{Deserialize, Deserializer};
use std::path::PathBuf;
use std::str::FromStr;

/// Least RAM: a Linux kernel and an initramfs need this much to unpack. Bytes.
pub const MEMORY_BYTES_MIN: u64 = 16 << 20;
/// Most RAM. Bytes.
pub const MEMORY_BYTES_MAX: u64 = 1 << 40;
/// Most virtual CPUs.
pub const CPUS_MAX: u8 = 16;
/// Longest name, bytes.
pub const NAME_BYTES_MAX: usize = 64;

/// A disk: `PATH`, and after commas `ro` or `rw`, and `raw`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// A raw image or a block device.
    pub path: PathBuf,
    /// Writes are refused.
    pub read_only: bool,
    /// It is raw, whatever its first bytes are.
    pub is_raw: bool,
}

impl FromStr for Disk {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let mut words = text.split(',');
        let path = words.next().filter(|path| !path.is_empty()).ok_or("the path is missing")?;
        let mut disk = Self { path: path.into(), read_only: false, is_raw: false };
        for word in words {
            match word {
                "ro" => disk.read_only = true,
                "rw" => disk.read_only = false,
                "raw" => disk.is_raw = true,
                other => {
                    return Err(format!("{other:?} is not an option of a disk; there are ro, rw and raw"));
                }
            }
        }
        Ok(disk)
    }
}

/// An image: a path, if there is a `/` in it, or the digest of an image in the balancer's store: `sha256:` and 64
/// digits, or at least the first 8 of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageName {
    /// A file that this process opens.
    Path(PathBuf),
    /// An image that the balancer opens.
    InStore(String),
}

/// Fewest digits of a digest that name an image.
const IMAGE_DIGITS_MIN: usize = 8;

impl ImageName {
    /// The name of an image that the balancer opens.
    #[must_use]
    pub fn in_store(&self) -> Option<&str> {
        match self {
            Self::Path(_) => None,
            Self::InStore(name) => Some(name),
        }
    }
}

impl FromStr for ImageName {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if text.contains('/') {
            return Ok(Self::Path(text.into()));
        }
        let digits = text.strip_prefix("sha256:").unwrap_or(text);
        let plain = digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
        if plain && (IMAGE_DIGITS_MIN..=64).contains(&digits.len()) {
            return Ok(Self::InStore(text.into()));
        }
        let shown: String = text.chars().take(80).collect();
        Err(format!(
            "{shown:?} is not an image: a path has a / in it, and an image of the store is named by its digest, \
             sha256: and its 64 digits or at least the first {IMAGE_DIGITS_MIN}"
        ))
    }
}

/// Where the guest's serial console goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Console {
    /// Standard input and output of this process.
    Stdio,
    /// Appended to a file.
    File(PathBuf),
    /// Nowhere.
    None,
}

impl FromStr for Console {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            None if text == "stdio" => Ok(Self::Stdio),
            None if text == "none" => Ok(Self::None),
            Some(("file", path)) if !path.is_empty() => Ok(Self::File(path.into())),
            _ => Err(format!("{text:?} is not a console; there are stdio, none and file=PATH")),
        }
    }
}

/// The engine that the user chose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EngineChoice {
    /// `kvm` if the processor virtualizes, else `qemu`.
    Auto,
    /// KVM, used by this process.
    Kvm,
    /// A QEMU that this process starts.
    Qemu,
}

impl FromStr for EngineChoice {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "kvm" => Ok(Self::Kvm),
            "qemu" => Ok(Self::Qemu),
            other => Err(format!("{other:?} is not an engine; there are auto, kvm and qemu")),
        }
    }
}

/// The balancer with which the guest registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Balancer {
    /// The user's balancer, which is started if there is none.
    Auto,
    /// No balancer: this process enforces the limit.
    None,
}

impl FromStr for Balancer {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "none" => Ok(Self::None),
            other => Err(format!("{other:?} is neither auto nor none")),
        }
    }
}

/// How long a guest waits for memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Until there is enough.
    Forever,
    /// At most this time.
    For(std::time::Duration),
}

/// Longest wait with an end: a year. Seconds.
const WAIT_S_MAX: u64 = 365 * 24 * 3600;

impl FromStr for Wait {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if text == "forever" {
            return Ok(Self::Forever);
        }
        let seconds = text.parse().ok().filter(|seconds| *seconds <= WAIT_S_MAX);
        let seconds =
            seconds.ok_or_else(|| format!("{text:?} is neither forever nor a number of seconds"))?;
        Ok(Self::For(std::time::Duration::from_secs(seconds)))
    }
}

fn memory(text: &str) -> Result<u64, String> {
    let bytes = bytes::parse(text).map_err(|error| error.to_string())?;
    if !(MEMORY_BYTES_MIN..=MEMORY_BYTES_MAX).contains(&bytes) {
        return Err(format!("{text} is out of bounds: guest RAM is 16M to 1T"));
    }
    if bytes.is_multiple_of(BLOCK_BYTES) { Ok(bytes) } else { Err(format!("{text} is not a multiple of 2M")) }
}

fn cpus(text: &str) -> Result<u8, String> {
    let cpus = text.parse().ok().filter(|cpus| (1..=CPUS_MAX).contains(cpus));
    cpus.ok_or_else(|| format!("cpus is {text}, but must be between 1 and {CPUS_MAX}"))
}

pub(crate) fn name(text: &str) -> Result<String, String> {
    let plain = text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    // A container may get the same name, and `.` and `..` are not names in a path.
    let in_path = format!("/{text}").parse::<ContainerPath>().is_ok();
    if text.is_empty() || text.len() > NAME_BYTES_MAX || !plain || !in_path {
        return Err(format!("a name is 1 to {NAME_BYTES_MAX} letters, digits and -_."));
    }
    Ok(text.into())
}

fn parsed<'de, D: Deserializer<'de>, T: FromStr<Err: std::fmt::Display>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map(Some).map_err(serde::de::Error::custom)
}

fn parsed_memory<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    memory(&String::deserialize(deserializer)?).map(Some).map_err(serde::de::Error::custom)
}

fn parsed_cpus<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u8>, D::Error> {
    cpus(&i64::deserialize(deserializer)?.to_string()).map(Some).map_err(serde::de::Error::custom)
}

/// An empty path is a mistake, and would mean something else: a socket without a name.
fn parsed_path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PathBuf>, D::Error> {
    let path = PathBuf::deserialize(deserializer)?;
    if path.as_os_str().is_empty() {
        Err(serde::de::Error::custom("the path is missing"))
    } else {
        Ok(Some(path))
    }
}

fn parsed_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    name(&String::deserialize(deserializer)?).map(Some).map_err(serde::de::Error::custom)
}

fn parsed_list<'de, D: Deserializer<'de>, T: FromStr<Err: std::fmt::Display>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    Vec::<String>::deserialize(deserializer)?
        .iter()
        .map(|text| text.parse())
        .collect::<Result<_, _>>()
        .map_err(serde::de::Error::custom)
}

/// A guest, as the command line and a spec file describe it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct GuestSpec {
    /// Name of the guest, unique on its balancer [default: guest-PID]
    #[arg(long, value_parser = name)]
    #[serde(deserialize_with = "parsed_name")]
    pub name: Option<String>,

    /// Container of the guest; created if it does not exist [default: /NAME]
    #[arg(long, value_name = "PATH")]
    #[serde(deserialize_with = "parsed")]
    pub container: Option<ContainerPath>,

    /// Limits of that container: 512M, or any of max=2G,high=1.5G,low=512M,min=256M,weight=200 and
    /// max-vcpus=4,max-guests=2,max-devices=8,max-fds=200,max-threads=20
    #[arg(long, value_name = "LIMIT", allow_negative_numbers = true)]
    #[serde(deserialize_with = "parsed")]
    pub container_limit: Option<LimitsPatch>,

    /// Container that the guest may charge by its own choice, with all containers inside it. It may always charge
    /// containers inside its own. May be given several times. The guest gets a control port, /dev/hvc1 (/dev/hvc0
    /// without --channel)
    #[arg(long, value_name = "PATH")]
    pub may_charge: Vec<ContainerPath>,

    /// RAM of the guest: 512M, 2G; a multiple of 2M [default: 512M]
    #[arg(long, value_parser = memory, allow_negative_numbers = true)]
    #[serde(deserialize_with = "parsed_memory")]
    pub memory: Option<u64>,

    /// Virtual CPUs, 1 to 16 [default: 1]
    #[arg(long, value_parser = cpus, allow_negative_numbers = true)]
    #[serde(deserialize_with = "parsed_cpus")]
    pub cpus: Option<u8>,

    /// Hypervisor of the guest. kvm: this program itself uses /dev/kvm. qemu: this program starts a
    /// qemu-system-x86_64 (with KVM if the processor virtualizes, else TCG). auto: kvm if the processor virtualizes
    /// (vmx or svm in its flags, a usable /dev/kvm), else qemu [default: $BALLAST_ENGINE, else auto]
    #[arg(long, value_name = "auto|kvm|qemu")]
    #[serde(deserialize_with = "parsed")]
    pub engine: Option<EngineChoice>,

    /// Kernel: an ELF file (vmlinux) or a bzImage
    #[arg(long, value_name = "FILE")]
    #[serde(deserialize_with = "parsed_path")]
    pub kernel: Option<PathBuf>,

    /// Initial RAM disk
    #[arg(long, value_name = "FILE")]
    #[serde(deserialize_with = "parsed_path")]
    pub initrd: Option<PathBuf>,

    /// Kernel command line [default: console=ttyS0 reboot=k panic=-1 pci=off]
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub cmdline: Option<String>,

    /// Disk: a raw image or block device, PATH or PATH,ro; may be given several times. PATH,raw: it is raw although it
    /// begins like an image of another format
    #[arg(long = "disk", value_name = "PATH[,ro][,raw]")]
    #[serde(deserialize_with = "parsed_list", rename = "disk")]
    pub disks: Vec<Disk>,

    /// Images that the guest maps read-only and shares with other guests, lowest layer of its root first, at most 16:
    /// paths of EROFS files, which contain a /, or digests of images in the balancer's store (sha256:..., or its
    /// first 8 digits). Their number is on the kernel's command line as ballast.root=N
    #[arg(long, value_name = "IMAGE[,IMAGE...]", value_delimiter = ',')]
    #[serde(deserialize_with = "parsed_list")]
    pub root: Vec<ImageName>,

    /// Let the kernel merge equal pages of RAM of the guests that have this flag (KSM, which the operator of the host
    /// switches on). The balancer admits it in one trust domain per host only, and only if no other process on the
    /// host is merged: a guest that shares a page can learn from the time of a write that another guest has the same
    /// content
    #[arg(long)]
    pub merge: bool,

    /// Serial console of the guest: stdio, none or file=PATH [default: stdio]
    #[arg(long, value_name = "WHERE")]
    #[serde(deserialize_with = "parsed")]
    pub console: Option<Console>,

    /// Unix socket that is connected to the guest's /dev/hvc0
    #[arg(long, value_name = "SOCKET")]
    #[serde(deserialize_with = "parsed_path")]
    pub channel: Option<PathBuf>,

    /// Wait if there is not enough memory for the guest, for this time or until there is: first come, first served.
    /// Ctrl-C ends the wait. Without this flag the guest is refused
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true, default_missing_value = "forever")]
    #[serde(deserialize_with = "parsed")]
    pub wait: Option<Wait>,

    /// Balancer to register with. auto: this user's, which is started if there is none. none: no balancer, this
    /// program enforces the limit [default: auto]
    #[arg(long, value_name = "auto|none")]
    #[serde(deserialize_with = "parsed")]
    pub balancer: Option<Balancer>,
}

/// Kernel command line if none is given: serial console, end instead of a hang after a panic, reset through port
/// 0x64, no search for a PCI bus.
pub const CMDLINE_DEFAULT: &str = "console=ttyS0 reboot=k panic=-1 pci=off";

impl GuestSpec {
    /// This spec, with fields that it leaves open from another one: `flags.or(file)`.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            name: self.name.or(other.name),
            container: self.container.or(other.container),
            container_limit: self.container_limit.or(other.container_limit),
            may_charge: if self.may_charge.is_empty() { other.may_charge } else { self.may_charge },
            memory: self.memory.or(other.memory),
            cpus: self.cpus.or(other.cpus),
            engine: self.engine.or(other.engine),
            kernel: self.kernel.or(other.kernel),
            initrd: self.initrd.or(other.initrd),
            cmdline: self.cmdline.or(other.cmdline),
            disks: if self.disks.is_empty() { other.disks } else { self.disks },
            root: if self.root.is_empty() { other.root } else { self.root },
            merge: self.merge || other.merge,
            console: self.console.or(other.console),
            channel: self.channel.or(other.channel),
            wait: self.wait.or(other.wait),
            balancer: self.balancer.or(other.balancer),
        }
    }

    /// RAM, bytes.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        self.memory.unwrap_or(512 << 20)
    }

    /// Words for the kernel.
    #[must_use]
    pub fn kernel_words(&self) -> &str {
        self.cmdline.as_deref().unwrap_or(CMDLINE_DEFAULT)
    }

    /// Virtual CPUs.
    #[must_use]
    pub fn cpu_count(&self) -> u8 {
        self.cpus.unwrap_or(1)
    }
}

#[cfg(test)]
#[path = "spec_test.rs"]
mod tests;
