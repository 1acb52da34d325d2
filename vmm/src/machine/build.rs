//! Building a guest: RAM and KVM first, then what is in RAM, then devices, then vCPUs.

use super::attach::{AttachError, Attacher, EventFdIrq};
use super::console::ConsoleOutput;
use super::{Machine, layout, roots};
use crate::arch::{cpuid, msr, regs};
use crate::boot::kernel::{self, LoadError};
use crate::boot::{acpi, zero_page};
use crate::disk_cache::{DiskCache, DiskFile};
use crate::events::channel::Listening;
use crate::events::control::Control;
use crate::events::port::Port;
use crate::events::queues::Queues;
use crate::events::stdin::Stdin;
use crate::files;
use crate::link;
use crate::memory::images::{self, ImageError};
use crate::memory::{Images, MemoryError, Ram, RamBalloon};
use crate::reconciler::Reconciler;
use crate::spec::{Console as ConsoleSpec, Disk, GuestSpec};
use crate::vcpu::Shared;
use crate::vcpu::gate::Gate;
use crate::vcpu::images::ImageExits;
use devices::bus::{Bus, BusError};
use devices::power::{RESET_PORT_LEN, ResetPort, SLEEP_CONTROL_LEN, SleepControl};
use devices::serial::Serial;
use devices::virtio::balloon::{Balloon, BalloonOptions};
use devices::virtio::block::{Block, SECTOR_BYTES};
use devices::virtio::console::Console;
use devices::virtio::entropy::Entropy;
use devices::virtio::pmem::Pmem;
use event_manager::MutEventSubscriber;
use kvm_bindings::{KVM_MEM_READONLY, kvm_pit_config, kvm_userspace_memory_region};
use kvm_ioctls::{Cap, Kvm, VmFd};
use protocol::bytes::FRAME_BYTES;
use protocol::frames::{FrameTable, LayoutError, Region};
use protocol::path::ContainerPath;
use protocol::place::Place;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc;
use vm_memory::GuestMemoryError;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// What a Linux guest needs beside its kernel and initrd: slabs, page tables, a shell. Measured with Debian's cloud
/// kernels and a busybox initramfs, rounded up.
pub(crate) const LIVING_BYTES: u64 = 24 << 20;
/// An initramfs is there twice while it is unpacked, and unpacks to more than its compressed length.
pub(crate) const INITRD_FACTOR: u64 = 4;
/// The kernel's own description of RAM and of images: 64 bytes per 4 KiB page (`struct page`).
pub(crate) const MEMMAP_DIVISOR: u64 = 64;

/// Why a guest cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// No `/dev/kvm`, or no right to use it.
    #[error("{}", match source.errno() {
        libc::ENOENT => "There is no /dev/kvm: this kernel has no KVM, or the processor does not virtualize",
        libc::EACCES => "No permission to use /dev/kvm: join the group kvm, or run as root",
        _ => "Cannot open /dev/kvm",
    })]
    NoKvm {
        /// The system's answer.
        source: kvm_ioctls::Error,
    },
    /// KVM refused a step.
    #[error("KVM refused to {step}")]
    Kvm {
        /// What was tried.
        step: &'static str,
        /// KVM's answer.
        source: kvm_ioctls::Error,
    },
    /// No kernel was named.
    #[error("No kernel: give --kernel FILE")]
    NoKernel,
    /// RAM.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// An image cannot be mapped.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// An image is named that is in a store, and there is no balancer to ask for it.
    #[error(
        "The image {name} is one of the balancer's store, and there is no balancer (--balancer none); name a path instead"
    )]
    NoStore {
        /// The image.
        name: String,
    },
    /// No balancer can be started.
    #[error("No balancer")]
    NoBalancer(#[from] link::StartError),
    /// It does not answer.
    #[error("Cannot ask the balancer for images")]
    AskImages(#[source] io::Error),
    /// It does not give them.
    #[error("{0}")]
    ImagesRefused(String),
    /// This KVM would let the guest write into images.
    #[error(
        "This KVM has no read-only memory slots (KVM_CAP_READONLY_MEM), without which images cannot be mapped"
    )]
    NoReadOnlySlots,
    /// Frame table.
    #[error("Cannot make the frame table")]
    Table(#[from] LayoutError),
    /// Kernel, initrd or command line.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// RAM is too small for the boot structures.
    #[error("Cannot write the boot structures into RAM")]
    Boot(#[from] GuestMemoryError),
    /// A device cannot be attached.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// Two devices at one address.
    #[error("Cannot place a device on the bus")]
    Bus(#[from] BusError),
    /// A file behind a device.
    #[error("Cannot use {} as {what}", path.display())]
    File {
        /// `disk`, `console` or `channel`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Another guest has the disk.
    #[error("The disk {} is in use by another process; only read-only disks (PATH,ro) can be shared", path.display())]
    DiskInUse {
        /// The file.
        path: PathBuf,
    },
    /// Threads, eventfds.
    #[error("The system refused a thread or a descriptor")]
    System(#[from] io::Error),
}

/// Builds a guest that is ready to run.
///
/// # Errors
/// When anything that it needs is missing; nothing is left behind then.
#[allow(clippy::too_many_lines, reason = "the order of construction is read best from top to bottom")]
pub fn build(spec: GuestSpec, place: Option<&Place>) -> Result<Machine, BuildError> {
    let failed = |step| move |source| BuildError::Kvm { step, source };
    let cpus = spec.cpu_count();
    let name = spec.name.clone().unwrap_or_else(|| format!("guest-{}", std::process::id()));
    let container = spec.container.clone().unwrap_or_else(|| {
        format!("/{name}").parse::<ContainerPath>().expect("a guest's name is a name in a path")
    });
    let kernel_path = spec.kernel.as_deref().ok_or(BuildError::NoKernel)?;

    let (end, ends) = mpsc::channel();
    // Before any thread starts, so that all inherit the mask.
    let signals = super::signals(&end)?;
    let kvm = Kvm::new().map_err(|source| BuildError::NoKvm { source })?;
    let vm = kvm.create_vm().map_err(failed("create a VM"))?;
    vm.set_tss_address(layout::KVM_TSS).map_err(failed("place the task state segment"))?;
    vm.set_identity_map_address(layout::KVM_IDENTITY_MAP).map_err(failed("place the identity map"))?;
    vm.create_irq_chip().map_err(failed("create the interrupt controllers"))?;
    vm.create_pit2(kvm_pit_config::default()).map_err(failed("create the timer"))?;

    let ram = Arc::new(Ram::new(spec.memory_bytes())?);
    // Before anything is mapped that could fail an access.
    images::install()?;
    let images = Arc::new(Images::map(roots::open(&spec, &container, place)?, ram.end())?);
    if !images.is_empty() && !vm.check_extension(Cap::ReadonlyMem) {
        return Err(BuildError::NoReadOnlySlots);
    }
    let regions: Vec<Region> = ram.slots().chain(images.slots()).map(|(region, _)| region).collect();
    let table = Arc::new(FrameTable::new(&regions)?);
    map_slots(&vm, &ram, &images)?;
    let loaded = kernel::load_kernel(ram.guest(), kernel_path)?;
    let initrd =
        spec.initrd.as_deref().map(|path| kernel::load_initrd(ram.guest(), path, loaded.end)).transpose()?;
    let cmdline = spec.cmdline.as_deref().unwrap_or(crate::spec::CMDLINE_DEFAULT);
    kernel::write_cmdline(ram.guest(), &roots::cmdline(cmdline, images.count()))?;
    regs::write_tables(ram.guest())?;

    let (mut pio, mut mmio) = (Bus::default(), Bus::default());
    let mut subscribers: Vec<Box<dyn MutEventSubscriber>> = vec![Box::new(signals)];
    let console = spec.console.clone().unwrap_or(ConsoleSpec::Stdio);
    let irq = Arc::new(EventFdIrq::new(&vm, layout::COM1_GSI)?);
    let serial = Arc::new(Serial::new(console_output(&console)?, irq));
    pio.insert(u64::from(layout::COM1), u64::from(layout::COM_PORTS), serial.clone())?;
    pio.insert(u64::from(layout::I8042), RESET_PORT_LEN, Arc::new(ResetPort))?;
    pio.insert(u64::from(layout::ACPI_PORTS), SLEEP_CONTROL_LEN, Arc::new(SleepControl))?;
    if console == ConsoleSpec::Stdio {
        subscribers.push(Box::new(Stdin::new(serial)));
    }

    let (mut disks, mut disk_files) = (Vec::new(), Vec::new());
    let memory = images.beside(ram.guest())?;
    let mut attacher = Attacher::new(&vm, &memory, &mut mmio);
    let backend = RamBalloon::new(Arc::clone(&ram), Arc::clone(&table))?;
    let options = BalloonOptions { deflate_on_oom: true, free_page_reporting: true, stats: true };
    let balloon = attacher.attach(Balloon::new(ram.bytes() / FRAME_BYTES, Box::new(backend), options))?;
    subscribers.push(Box::new(Queues(attacher.attach(Entropy::new())?)));
    for (region, _) in images.slots() {
        let device = Pmem::new(region.first * FRAME_BYTES, region.count * FRAME_BYTES);
        subscribers.push(Box::new(Queues(attacher.attach(device)?)));
    }
    for disk in &spec.disks {
        let (device, file) = open_disk(disk)?;
        disks.push(Queues(attacher.attach(device)?));
        disk_files.push(file);
    }
    if let Some(path) = &spec.channel {
        let refused = |source| BuildError::File { what: "channel", path: path.clone(), source };
        let listening = Listening::new(path).map_err(refused)?;
        let device = attacher.attach(Console::new(listening.output()))?;
        subscribers.push(Box::new(listening.attached(device)));
    }
    // Behind the channel's console, which is the guest's first one.
    let port = if spec.may_charge.is_empty() {
        None
    } else {
        let (output, lines) = Port::output();
        Some(Port::new(attacher.attach(Console::new(output))?, lines))
    };
    let nodes = attacher.nodes();
    let devices = u32::try_from(nodes.len()).expect("at most 19");
    let rsdp = acpi::write_tables(ram.guest(), cpus, &nodes)?;
    zero_page::write(ram.guest(), ram.bytes(), &loaded, initrd, rsdp)?;

    let supported = cpuid::supported(&kvm).map_err(failed("tell its CPUID"))?;
    let mut vcpus = Vec::new();
    for index in 0..cpus {
        let vcpu = vm.create_vcpu(u64::from(index)).map_err(failed("create a vCPU"))?;
        vcpu.set_cpuid2(&cpuid::of_cpu(&supported, index, cpus)).map_err(failed("set CPUID"))?;
        vcpu.set_msrs(&msr::at_entry()).map_err(failed("set MSRs"))?;
        regs::set_fpu(&vcpu).map_err(failed("set floating point"))?;
        regs::set_local_apic(&vcpu).map_err(failed("set the local APIC"))?;
        if index == 0 {
            regs::set_entry(&vcpu, loaded.entry).map_err(failed("set registers"))?;
        }
        vcpus.push(vcpu);
    }

    let disk_cache = DiskCache::new(disk_files);
    let reconciler =
        Reconciler::start(Arc::clone(&ram), Arc::clone(&images), Arc::clone(&table), disk_cache)?;
    let gate = Arc::new(Gate::default());
    let control = Control::new(balloon, Arc::clone(&table), ram.bytes(), reconciler)
        .with_port(port)
        .with_gate(Arc::clone(&gate));
    let wake = EventFd::new(EFD_NONBLOCK)?;
    let shared = Arc::new(Shared {
        pio,
        mmio,
        images: ImageExits::new(Arc::clone(&images), memory, Arc::clone(&table)),
        stop: AtomicBool::new(false),
        gate,
        end,
        wake: wake.try_clone()?,
    });
    let initrd_bytes = initrd.map_or(0, |(_, bytes)| bytes);
    let floor_bytes = floor_bytes(&loaded, initrd_bytes, ram.bytes(), images.bytes());
    Ok(Machine {
        control,
        subscribers,
        disks,
        vcpus,
        shared,
        wake,
        ends,
        name,
        container,
        spec,
        floor_bytes,
        devices,
        table,
        _vm: vm,
        ram,
        images,
        place: None,
    })
}

/// What a guest needs to boot and live, bytes.
pub(crate) fn floor_bytes(
    loaded: &kernel::Kernel,
    initrd_bytes: u64,
    ram_bytes: u64,
    image_bytes: u64,
) -> u64 {
    let kernel_bytes = loaded.end - loaded.entry.min(loaded.end);
    let described = (ram_bytes + image_bytes) / MEMMAP_DIVISOR;
    let needed = kernel_bytes + initrd_bytes * INITRD_FACTOR + described + LIVING_BYTES;
    needed.next_multiple_of(1 << 20).min(ram_bytes)
}

fn map_slots(vm: &VmFd, ram: &Ram, images: &Images) -> Result<(), BuildError> {
    let ram = ram.slots().map(|slot| (0, slot));
    let images = images.slots().map(|slot| (KVM_MEM_READONLY, slot));
    for (slot, (flags, (region, host))) in (0..).zip(ram.chain(images)) {
        let region = kvm_userspace_memory_region {
            slot,
            flags,
            guest_phys_addr: region.first * FRAME_BYTES,
            memory_size: region.count * FRAME_BYTES,
            userspace_addr: host,
        };
        // SAFETY: the memory is RAM's reservation or an image's mapping, which the machine drops after the VM.
        unsafe { vm.set_user_memory_region(region) }
            .map_err(|source| BuildError::Kvm { step: "map guest memory", source })?;
    }
    Ok(())
}

fn console_output(console: &ConsoleSpec) -> Result<Box<dyn io::Write + Send>, BuildError> {
    Ok(match console {
        ConsoleSpec::Stdio => Box::new(ConsoleOutput::new(io::stdout(), "standard output".into())),
        ConsoleSpec::None => Box::new(io::sink()),
        ConsoleSpec::File(path) => {
            let open = OpenOptions::new().create(true).append(true).open(path);
            let file =
                open.map_err(|source| BuildError::File { what: "console", path: path.clone(), source })?;
            Box::new(ConsoleOutput::new(file, path.display().to_string()))
        }
    })
}

pub(crate) fn open_disk(disk: &Disk) -> Result<(Block, DiskFile), BuildError> {
    let refused = |source| BuildError::File { what: "disk", path: disk.path.clone(), source };
    let file = files::open(&disk.path, !disk.read_only, files::Kind::Disk).map_err(refused)?;
    lock(&file, disk.read_only).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => BuildError::DiskInUse { path: disk.path.clone() },
        _ => refused(error),
    })?;
    let id = disk.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let same = file.try_clone().map_err(refused)?;
    let device = Block::new(file, disk.read_only, &id).map_err(refused)?;
    let bytes = device.sectors() * SECTOR_BYTES;
    let cached = DiskFile::open(&same, bytes, device.moved_bytes()).map_err(refused)?;
    Ok((device, cached))
}

/// One writer or many readers, for as long as the descriptor is open.
fn lock(file: &File, shared: bool) -> io::Result<()> {
    let operation = if shared { libc::LOCK_SH } else { libc::LOCK_EX } | libc::LOCK_NB;
    // SAFETY: a system call on a descriptor that we own.
    if unsafe { libc::flock(file.as_raw_fd(), operation) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
