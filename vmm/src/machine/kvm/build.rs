//! Building a guest: RAM and KVM first, then the content of RAM, then devices, then vCPUs.

use super::attach::{AttachError, Attacher, EventFdIrq};
use super::console::ConsoleOutput;
use super::{Guest, KvmMachine};
use crate::arch::{cpuid, msr, regs};
use crate::attached::Attached;
use crate::boot::kernel::{self, LoadError};
use crate::boot::{acpi, cmdline, zero_page};
use crate::control::Control;
use crate::control::port::Port;
use crate::disk_cache::{DiskCache, DiskFile};
use crate::events::queues::Queues;
use crate::events::signals::Signals;
use crate::events::stdin::Stdin;
use crate::layout;
use crate::machine::inputs::{InputError, open_channel, open_disk};
use crate::machine::{floor, launch, root_images};
use crate::memory::images::{self, ImageError};
use crate::memory::{Images, MemoryError, Ram, RamBalloon};
use crate::reconciler::Reconciler;
use crate::spec::{Console as ConsoleSpec, GuestSpec};
use crate::vcpu::Shared;
use crate::vcpu::gate::Gate;
use crate::vcpu::images::ImageExits;
use devices::DeviceMemory;
use devices::bus::{Bus, BusError};
use devices::power::{RESET_PORT_LEN, ResetPort, SLEEP_CONTROL_LEN, SleepControl};
use devices::serial::Serial;
use devices::virtio::balloon::{Balloon, BalloonOptions};
use devices::virtio::block::Block;
use devices::virtio::console::Console;
use devices::virtio::entropy::Entropy;
use devices::virtio::pmem::Pmem;
use event_manager::MutEventSubscriber;
use kvm_bindings::{KVM_MEM_READONLY, kvm_pit_config, kvm_userspace_memory_region};
use kvm_ioctls::{Cap, Kvm, VcpuFd, VmFd};
use protocol::bytes::FRAME_BYTES;
use protocol::frames::{FrameTable, LayoutError, Region};
use protocol::run_dir::RunDir;
use std::fs::OpenOptions;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc;
use vm_memory::GuestMemoryError;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

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
        /// The step.
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
    /// A file or an image that the spec names.
    #[error(transparent)]
    Input(#[from] InputError),
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
    /// Threads, eventfds.
    #[error("The system refused a thread or a descriptor")]
    System(#[from] io::Error),
}

/// Builds a guest that is ready to run.
///
/// # Errors
/// When anything that it needs is missing; nothing is left behind then.
pub fn build(spec: GuestSpec, run_dir: Option<&RunDir>) -> Result<Guest, BuildError> {
    let name = launch::guest_name(&spec);
    let container = launch::container(spec.container.as_ref(), &name);
    if spec.kernel.is_none() {
        return Err(BuildError::NoKernel);
    }
    let (end, ends) = mpsc::channel();
    // Before any thread starts, so that all inherit the mask.
    let signals = Signals::new(end.clone())?;
    let (kvm, vm) = new_vm()?;
    let ram = Arc::new(Ram::new(spec.memory_bytes())?);
    // Before anything is mapped that could fail an access.
    images::install()?;
    let images = Arc::new(Images::map(root_images::open(&spec, &container, run_dir)?, ram.end())?);
    if !images.is_empty() && !vm.check_extension(Cap::ReadonlyMem) {
        return Err(BuildError::NoReadOnlySlots);
    }
    let regions: Vec<Region> = ram.slots().chain(images.slots()).map(|(region, _)| region).collect();
    let table = Arc::new(FrameTable::new(&regions)?);
    map_slots(&vm, &ram, &images)?;
    let boot = load(&spec, &ram, &images)?;
    let memory = images.beside(ram.guest())?;
    let devices = Devices::attach(&spec, &vm, &memory, (&ram, &images, &table))?;
    let rsdp = acpi::write_tables(ram.guest(), spec.cpu_count(), &devices.nodes)?;
    zero_page::write(ram.guest(), ram.bytes(), &boot.kernel, boot.initrd, rsdp)?;
    let vcpus = new_vcpus(&kvm, &vm, spec.cpu_count(), boot.kernel.entry)?;

    let disk_cache = DiskCache::new(devices.disk_files);
    let reconciler =
        Reconciler::start(Arc::clone(&ram), Arc::clone(&images), Arc::clone(&table), disk_cache)?;
    let gate = Arc::new(Gate::default());
    let machine = KvmMachine::new(devices.balloon, ram.bytes(), Arc::clone(&gate));
    let control = Control::new(machine, Arc::clone(&table), reconciler).with_port(devices.port);
    let wake = EventFd::new(EFD_NONBLOCK)?;
    let shared = Arc::new(Shared {
        pio: devices.pio,
        mmio: devices.mmio,
        images: ImageExits::new(Arc::clone(&images), memory, Arc::clone(&table)),
        stop: AtomicBool::new(false),
        gate,
        end,
        wake: wake.try_clone()?,
    });
    let mut subscribers: Vec<Box<dyn MutEventSubscriber>> = vec![Box::new(signals)];
    subscribers.extend(devices.subscribers);
    Ok(Guest {
        control,
        subscribers,
        disks: devices.disks,
        vcpus,
        shared,
        wake,
        ends,
        name,
        container,
        floor_bytes: boot.floor_bytes,
        devices: u32::try_from(devices.nodes.len()).expect("at most 19"),
        spec,
        table,
        _vm: vm,
        ram,
        images,
        run_dir: None,
    })
}

/// A failure of a step of KVM.
fn failed(step: &'static str) -> impl Fn(kvm_ioctls::Error) -> BuildError {
    move |source| BuildError::Kvm { step, source }
}

/// A VM with its interrupt controllers and its timer.
fn new_vm() -> Result<(Kvm, VmFd), BuildError> {
    let kvm = Kvm::new().map_err(|source| BuildError::NoKvm { source })?;
    let vm = kvm.create_vm().map_err(failed("create a VM"))?;
    vm.set_tss_address(layout::KVM_TSS).map_err(failed("place the task state segment"))?;
    vm.set_identity_map_address(layout::KVM_IDENTITY_MAP).map_err(failed("place the identity map"))?;
    vm.create_irq_chip().map_err(failed("create the interrupt controllers"))?;
    vm.create_pit2(kvm_pit_config::default()).map_err(failed("create the timer"))?;
    Ok((kvm, vm))
}

/// The content of RAM when the guest starts.
struct Boot {
    kernel: kernel::Kernel,
    /// Address and length of the initrd.
    initrd: Option<(u64, u64)>,
    floor_bytes: u64,
}

/// Loads kernel, initrd, command line and tables into RAM.
fn load(spec: &GuestSpec, ram: &Ram, images: &Images) -> Result<Boot, BuildError> {
    let path = spec.kernel.as_deref().ok_or(BuildError::NoKernel)?;
    let kernel = kernel::load_kernel(ram.guest(), path)?;
    let initrd =
        spec.initrd.as_deref().map(|path| kernel::load_initrd(ram.guest(), path, kernel.end)).transpose()?;
    let line = root_images::cmdline(spec.kernel_words(), images.count());
    cmdline::check(spec.kernel_words(), &line).map_err(LoadError::from)?;
    kernel::write_cmdline(ram.guest(), &line)?;
    regs::write_tables(ram.guest())?;
    let initrd_bytes = initrd.map_or(0, |(_, bytes)| bytes);
    let floor_bytes = floor::floor_bytes(&kernel, initrd_bytes, ram.bytes(), images.bytes());
    Ok(Boot { kernel, initrd, floor_bytes })
}

/// All devices of a guest, on their buses.
struct Devices {
    pio: Bus,
    mmio: Bus,
    balloon: Attached<Balloon>,
    disks: Vec<Queues<Block>>,
    disk_files: Vec<DiskFile>,
    port: Option<Port>,
    /// The other devices that the event loop serves.
    subscribers: Vec<Box<dyn MutEventSubscriber>>,
    /// Virtio devices, for the ACPI tables.
    nodes: Vec<acpi::MmioNode>,
}

impl Devices {
    fn attach(
        spec: &GuestSpec,
        vm: &VmFd,
        memory: &DeviceMemory,
        (ram, images, table): (&Arc<Ram>, &Images, &Arc<FrameTable>),
    ) -> Result<Self, BuildError> {
        let (pio, serial_input) = platform_devices(spec, vm)?;
        let mut subscribers: Vec<Box<dyn MutEventSubscriber>> = Vec::new();
        if let Some(stdin) = serial_input {
            subscribers.push(Box::new(stdin));
        }
        let mut mmio = Bus::default();
        let mut attacher = Attacher::new(vm, memory, &mut mmio);
        let backend = RamBalloon::new(Arc::clone(ram), Arc::clone(table))?;
        let options = BalloonOptions { deflate_on_oom: true, free_page_reporting: true, stats: true };
        let balloon = attacher.attach(Balloon::new(ram.bytes() / FRAME_BYTES, Box::new(backend), options))?;
        subscribers.push(Box::new(Queues(attacher.attach(Entropy::new())?)));
        for (region, _) in images.slots() {
            let device = Pmem::new(region.first * FRAME_BYTES, region.count * FRAME_BYTES);
            subscribers.push(Box::new(Queues(attacher.attach(device)?)));
        }
        let (mut disks, mut disk_files) = (Vec::new(), Vec::new());
        for disk in &spec.disks {
            let (device, file) = open_disk(disk)?;
            disks.push(Queues(attacher.attach(device)?));
            disk_files.push(file);
        }
        if let Some(listening) = open_channel(spec.channel.as_deref())? {
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
        Ok(Self { pio, mmio, balloon, disks, disk_files, port, subscribers, nodes })
    }
}

/// Devices of the platform: serial console, reset and power. Returns the input of the console if it is standard input.
fn platform_devices(spec: &GuestSpec, vm: &VmFd) -> Result<(Bus, Option<Stdin>), BuildError> {
    let mut pio = Bus::default();
    let console = spec.console.as_ref().unwrap_or(&ConsoleSpec::Stdio);
    let irq = Arc::new(EventFdIrq::new(vm, layout::COM1_GSI)?);
    let serial = Arc::new(Serial::new(console_output(console)?, irq));
    pio.insert(u64::from(layout::COM1), u64::from(layout::COM_PORTS), serial.clone())?;
    pio.insert(u64::from(layout::I8042), RESET_PORT_LEN, Arc::new(ResetPort))?;
    pio.insert(u64::from(layout::ACPI_PORTS), SLEEP_CONTROL_LEN, Arc::new(SleepControl))?;
    Ok((pio, (*console == ConsoleSpec::Stdio).then(|| Stdin::new(serial))))
}

/// All vCPUs; the first one starts at the kernel's entry.
fn new_vcpus(kvm: &Kvm, vm: &VmFd, cpus: u8, entry: u64) -> Result<Vec<VcpuFd>, BuildError> {
    let supported = cpuid::supported(kvm).map_err(failed("report its CPUID"))?;
    let mut vcpus = Vec::new();
    for index in 0..cpus {
        let vcpu = vm.create_vcpu(u64::from(index)).map_err(failed("create a vCPU"))?;
        vcpu.set_cpuid2(&cpuid::of_cpu(&supported, index, cpus)).map_err(failed("set CPUID"))?;
        vcpu.set_msrs(&msr::at_entry()).map_err(failed("set MSRs"))?;
        regs::set_fpu(&vcpu).map_err(failed("set floating point"))?;
        regs::set_local_apic(&vcpu).map_err(failed("set the local APIC"))?;
        if index == 0 {
            regs::set_entry(&vcpu, entry).map_err(failed("set registers"))?;
        }
        vcpus.push(vcpu);
    }
    Ok(vcpus)
}

#[allow(unsafe_code)]
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

fn console_output(console: &ConsoleSpec) -> Result<Box<dyn io::Write + Send>, InputError> {
    Ok(match console {
        ConsoleSpec::Stdio => Box::new(ConsoleOutput::new(io::stdout(), "standard output".into())),
        ConsoleSpec::None => Box::new(io::sink()),
        ConsoleSpec::File(path) => {
            let open = OpenOptions::new().create(true).append(true).open(path);
            let file =
                open.map_err(|source| InputError::File { what: "console", path: path.clone(), source })?;
            Box::new(ConsoleOutput::new(file, path.display().to_string()))
        }
    })
}
