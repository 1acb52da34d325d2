//! Amounts of memory as people write them: `512M`, `1.5G`, `4096`.

use std::fmt;

/// Bytes of a 4 KiB frame, the unit of the frame table and of virtio-balloon.
pub const FRAME_BYTES: u64 = 4096;

/// Bytes of a 2 MiB block, the unit of transparent huge pages and of the frame table's summaries.
pub const BLOCK_BYTES: u64 = 2 << 20;

/// The largest amount that is accepted anywhere: 64 TiB, beyond what x86-64 guests can address with 46 bits.
pub const BYTES_MAX: u64 = 64 << 40;

/// Why a text is not an amount of memory.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an amount of memory: {reason} (write 512M, 1.5G or a number of bytes)")]
pub struct ParseBytesError {
    /// What was given.
    pub text: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

/// Reads `512M`, `1.5G`, `64KiB`, `4096`. Units are powers of 1024; a fraction must come out as whole bytes.
///
/// # Errors
/// When the text is not a non-negative amount of at most [`BYTES_MAX`].
pub fn parse(text: &str) -> Result<u64, ParseBytesError> {
    let fail = |reason| ParseBytesError { text: text.chars().take(64).collect(), reason };
    let trimmed = text.trim();
    if trimmed.starts_with('-') {
        return Err(fail("it is negative"));
    }
    if !trimmed.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(fail("it does not begin with a number"));
    }
    let digits_end = trimmed.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(digits_end);
    let shift = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err(fail("the unit is none of K, M, G, T")),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if number.ends_with('.') {
        return Err(fail("a digit is missing behind the point"));
    }
    if whole.len() > 20 || fraction.len() > 12 {
        return Err(fail("it has too many digits"));
    }
    // 20 + 12 digits and a factor of 2^40 fit into 128 bits together with the scale.
    let scale = 10u128.pow(u32::try_from(fraction.len()).expect("at most 12 digits"));
    let scaled: u128 = format!("{whole}{fraction}").parse().map_err(|_| fail("the number is malformed"))?;
    let bytes_scaled = scaled.checked_mul(1 << shift).ok_or_else(|| fail("it is above the bound of 64T"))?;
    if bytes_scaled % scale != 0 {
        return Err(fail("it is not a whole number of bytes"));
    }
    match u64::try_from(bytes_scaled / scale) {
        Ok(bytes) if bytes <= BYTES_MAX => Ok(bytes),
        _ => Err(fail("it is above the bound of 64T")),
    }
}

/// Shows bytes in the largest unit that needs at most one digit behind the point: `512M`, `1.5G`.
#[derive(Debug, Clone, Copy)]
pub struct Human(pub u64);

impl fmt::Display for Human {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (shift, unit) = match self.0 {
            b if b >= 1 << 40 => (40, "T"),
            b if b >= 1 << 30 => (30, "G"),
            b if b >= 1 << 20 => (20, "M"),
            b if b >= 1 << 10 => (10, "K"),
            _ => (0, "B"),
        };
        // Tenths, rounded half up, without floating point.
        let tenths = (u128::from(self.0) * 10 + (1u128 << shift) / 2) >> shift;
        let text = if tenths.is_multiple_of(10) || tenths >= 1000 {
            format!("{}{unit}", tenths / 10)
        } else {
            format!("{}.{}{unit}", tenths / 10, tenths % 10)
        };
        f.pad(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn amounts_as_people_write_them() {
        for (text, bytes) in [
            ("512M", 512 << 20),
            ("1.5G", 3 << 29),
            ("64KiB", 65536),
            ("4096", 4096),
            ("0", 0),
            (" 1 g ", 1 << 30),
        ] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn amounts_that_are_refused_name_the_text() {
        for text in [
            "lots",
            "-1",
            "1e30",
            "",
            ".",
            "1.",
            ".5G",
            "1.0000000000001K",
            "65T",
            "99999999999999999999999",
            "1X",
        ] {
            let error = parse(text).expect_err(text);
            assert_eq!(error.text, text);
        }
    }

    #[test]
    fn refusals_say_what_is_wrong() {
        for (text, reason) in [
            ("lots", "begin"),
            ("", "begin"),
            ("-1", "negative"),
            ("1e30", "unit"),
            ("1.", "point"),
            ("65T", "64T"),
        ] {
            let error = parse(text).expect_err(text).to_string();
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn human_amounts() {
        for (bytes, text) in
            [(0, "0B"), (1023, "1023B"), (512 << 20, "512M"), (3 << 29, "1.5G"), ((1 << 30) - 1, "1024M")]
        {
            assert_eq!(Human(bytes).to_string(), text);
        }
    }

    proptest! {
        #[test]
        fn any_text_is_an_amount_or_an_error(text in ".{0,40}") {
            if let Ok(bytes) = parse(&text) { prop_assert!(bytes <= BYTES_MAX); }
        }
        #[test]
        fn whole_bytes_survive(bytes in 0..=BYTES_MAX) {
            prop_assert_eq!(parse(&bytes.to_string()), Ok(bytes));
        }
    }
}
