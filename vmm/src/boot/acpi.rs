//! ACPI tables: how the guest finds its processors, its serial port and its virtio devices.
//!
//! Debian's cloud kernels know neither an MP table nor virtio-mmio devices on the command line, so everything is here.
//! The platform is hardware-reduced (ACPI 6.5, section 4.1): no legacy timers, no SCI; power-off goes through the sleep
//! control register, reset through the reset register.

use crate::layout;
use acpi_tables::Aml;
use acpi_tables::aml::{
    self, Device, EISAName, IO, Interrupt, Memory32Fixed, Name, Package, Path, ResourceTemplate,
};
use acpi_tables::fadt::{FADTBuilder, Flags};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::madt::{EnabledStatus, IoApic, LocalInterruptController, MADT, ProcessorLocalApic};
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use acpi_tables::xsdt::XSDT;
use devices::GuestRam;
use devices::power;
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

const OEM: [u8; 6] = *b"BALLST";
const TABLE: [u8; 8] = *b"BALLAST ";

/// A virtio-mmio device as the guest finds it.
#[derive(Debug, Clone, Copy)]
pub struct MmioNode {
    /// First byte of its window.
    pub base: u32,
    /// Its interrupt line.
    pub gsi: u32,
}

/// Writes all tables and returns the address of the RSDP.
///
/// # Errors
/// When guest RAM does not reach up to the tables.
pub fn write_tables(ram: &GuestRam, cpus: u8, nodes: &[MmioNode]) -> Result<u64, GuestMemoryError> {
    let mut at = layout::ACPI + Rsdp::len().next_multiple_of(16) as u64;
    let mut put = |bytes: &[u8]| -> Result<u64, GuestMemoryError> {
        let here = at;
        at += bytes.len().next_multiple_of(16) as u64;
        assert!(at <= layout::ACPI_END, "16 CPUs and 19 devices need less than 128 KiB of tables");
        ram.write_slice(bytes, GuestAddress(here))?;
        Ok(here)
    };
    let dsdt = put(dsdt(nodes).as_slice())?;
    let fadt = put(&bytes_of(&fadt(dsdt)))?;
    let madt = put(&bytes_of(&madt(cpus)))?;
    let mut xsdt = XSDT::new(OEM, TABLE, 1);
    xsdt.add_entry(fadt);
    xsdt.add_entry(madt);
    let xsdt = put(&bytes_of(&xsdt))?;
    ram.write_slice(&bytes_of(&Rsdp::new(OEM, xsdt)), GuestAddress(layout::ACPI))?;
    Ok(layout::ACPI)
}

fn bytes_of(table: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    table.to_aml_bytes(&mut bytes);
    bytes
}

fn dsdt(nodes: &[MmioNode]) -> Sdt {
    let mut code = Vec::new();
    Device::new(
        "_SB_.COM1".into(),
        vec![
            &Name::new("_HID".into(), &EISAName::new("PNP0501")),
            &Name::new("_UID".into(), &aml::ZERO),
            &Name::new(
                "_CRS".into(),
                &ResourceTemplate::new(vec![
                    &IO::new(layout::COM1, layout::COM1, 1, layout::COM_PORTS),
                    &Interrupt::new(true, true, false, false, layout::COM1_GSI),
                ]),
            ),
        ],
    )
    .to_aml_bytes(&mut code);
    for (index, node) in nodes.iter().enumerate() {
        let index = u8::try_from(index).expect("at most 19 devices");
        Device::new(
            Path::new(&format!("_SB_.V{index:03}")),
            vec![
                // Linux's virtio_mmio driver binds to this id.
                &Name::new("_HID".into(), &"LNRO0005"),
                &Name::new("_UID".into(), &index),
                &Name::new("_CCA".into(), &aml::ONE),
                &Name::new(
                    "_CRS".into(),
                    &ResourceTemplate::new(vec![
                        &Memory32Fixed::new(true, node.base, 0x1000),
                        &Interrupt::new(true, true, false, false, node.gsi),
                    ]),
                ),
            ],
        )
        .to_aml_bytes(&mut code);
    }
    // ACPI 6.5, section 7.4.2.6: the value for the sleep control register.
    Name::new("_S5_".into(), &Package::new(vec![&power::SLP_TYP_S5, &aml::ZERO, &aml::ZERO, &aml::ZERO]))
        .to_aml_bytes(&mut code);
    let mut table = Sdt::new(*b"DSDT", 36, 6, OEM, TABLE, 1);
    table.append_slice(&code);
    table
}

fn fadt(dsdt: u64) -> acpi_tables::fadt::FADT {
    let port = |offset: u64| {
        GAS::new(AddressSpace::SystemIo, 8, 0, AccessSize::ByteAccess, u64::from(layout::ACPI_PORTS) + offset)
    };
    let mut fadt = FADTBuilder::new(OEM, TABLE, 1)
        .dsdt_64(dsdt)
        .flag(Flags::HwReducedAcpi)
        .flag(Flags::ResetRegSup)
        .flag(Flags::Headless)
        .flag(Flags::PwrButton)
        .flag(Flags::SlpButton);
    // No VGA, no CMOS clock: Linux would poll a clock that is not there for seconds (section 5.2.9.3).
    fadt.iapc_boot_arch = (1 << 2 | 1 << 5).into();
    fadt.sleep_control_reg = port(power::SLEEP_CONTROL_OFFSET);
    fadt.sleep_status_reg = port(power::SLEEP_STATUS_OFFSET);
    fadt.reset_reg = port(power::RESET_OFFSET);
    fadt.reset_value = power::RESET_VALUE;
    fadt.finalize()
}

fn madt(cpus: u8) -> MADT {
    let mut madt = MADT::new(OEM, TABLE, 1, LocalInterruptController::Address(layout::LOCAL_APIC));
    for cpu in 0..cpus {
        madt.add_structure(ProcessorLocalApic::new(cpu, cpu, EnabledStatus::Enabled));
    }
    madt.add_structure(IoApic::new(0, layout::IOAPIC, 0));
    madt
}
