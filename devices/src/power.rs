//! How a guest powers itself off or resets itself.
//!
//! Two ways are served. [`ResetPort`] is the keyboard controller's pulse of the reset line, which Linux uses with
//! `reboot=k`. [`SleepControl`] are the sleep and reset registers of a hardware-reduced ACPI machine, which the
//! FADT points to; with them Linux powers off without any kernel argument.

use crate::bus::{Action, BusDevice};

/// First I/O port of [`ResetPort`].
pub const RESET_PORT_BASE: u64 = 0x60;
/// I/O ports that [`ResetPort`] occupies: data at 0x60, status and command at 0x64.
pub const RESET_PORT_LEN: u64 = 5;

const COMMAND_OFFSET: u64 = 4;
const COMMAND_PULSE_RESET: u8 = 0xfe;

/// As much of an i8042 as a reset needs.
///
/// Status reads as 0: the input buffer is empty, so Linux's `kb_wait` returns at once, and the output buffer is empty,
/// so a driver that probes for a keyboard finds none.
#[derive(Clone, Copy, Debug, Default)]
pub struct ResetPort;

impl BusDevice for ResetPort {
    fn read(&self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn write(&self, offset: u64, data: &[u8]) -> Action {
        match (offset, data) {
            (COMMAND_OFFSET, [COMMAND_PULSE_RESET]) => Action::Reset,
            _ => Action::None,
        }
    }
}

/// Offset of SLEEP_CONTROL_REG (ACPI 6.5, 4.8.3.7) within [`SleepControl`]. One byte wide, as all registers here.
pub const SLEEP_CONTROL_OFFSET: u64 = 0;
/// Offset of SLEEP_STATUS_REG (ACPI 6.5, 4.8.3.7).
pub const SLEEP_STATUS_OFFSET: u64 = 1;
/// Offset of RESET_REG (ACPI 6.5, 4.8.3.6).
pub const RESET_OFFSET: u64 = 2;
/// Bytes that [`SleepControl`] occupies, as ports or as memory.
pub const SLEEP_CONTROL_LEN: u64 = 4;

/// SLP_TYPx of the S5 (soft off) state: the first element of the DSDT's `\_S5` package (ACPI 6.5, 7.4.2).
pub const SLP_TYP_S5: u8 = 5;
/// RESET_VALUE of the FADT: what resets the machine when it is written to RESET_REG.
pub const RESET_VALUE: u8 = 1;

// SLP_EN is bit 5, SLP_TYPx bits 2 to 4 of SLEEP_CONTROL_REG (ACPI 6.5, table 4.19).
const SLP_EN: u8 = 1 << 5;
const SLP_TYP_SHIFT: u8 = 2;
const SLP_TYP_MASK: u8 = 0b111;

/// The sleep control, sleep status and reset registers of hardware-reduced ACPI.
///
/// Only S5 exists. The status register always reads as 0, as the machine never wakes from a sleep.
#[derive(Clone, Copy, Debug, Default)]
pub struct SleepControl;

impl BusDevice for SleepControl {
    fn read(&self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn write(&self, offset: u64, data: &[u8]) -> Action {
        let [value] = *data else { return Action::None };
        match offset {
            SLEEP_CONTROL_OFFSET
                if value & SLP_EN != 0 && (value >> SLP_TYP_SHIFT) & SLP_TYP_MASK == SLP_TYP_S5 =>
            {
                Action::PowerOff
            }
            RESET_OFFSET if value == RESET_VALUE => Action::Reset,
            _ => Action::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_pulse_command_resets() {
        for offset in 0..RESET_PORT_LEN {
            for value in 0..=255 {
                let expected = if (offset, value) == (4, 0xfe) { Action::Reset } else { Action::None };
                assert_eq!(ResetPort.write(offset, &[value]), expected);
            }
        }
        assert_eq!(ResetPort.write(4, &[0xfe, 0]), Action::None);
        let mut status = [0xff];
        ResetPort.read(4, &mut status);
        assert_eq!(status, [0]);
    }

    #[test]
    fn s5_with_sleep_enable_powers_off_and_nothing_else_does() {
        for value in 0..=255u8 {
            let s5 = value & 0x20 != 0 && (value >> 2) & 7 == SLP_TYP_S5;
            let expected = if s5 { Action::PowerOff } else { Action::None };
            assert_eq!(SleepControl.write(SLEEP_CONTROL_OFFSET, &[value]), expected, "{value:#x}");
            assert_eq!(SleepControl.write(SLEEP_STATUS_OFFSET, &[value]), Action::None);
        }
        // What Linux writes in acpi_hw_extended_sleep().
        assert_eq!(SleepControl.write(SLEEP_CONTROL_OFFSET, &[(SLP_TYP_S5 << 2) | 0x20]), Action::PowerOff);
    }

    #[test]
    fn the_reset_value_resets() {
        assert_eq!(SleepControl.write(RESET_OFFSET, &[RESET_VALUE]), Action::Reset);
        assert_eq!(SleepControl.write(RESET_OFFSET, &[RESET_VALUE + 1]), Action::None);
        assert_eq!(SleepControl.write(RESET_OFFSET, &[RESET_VALUE, 0]), Action::None);
    }
}
