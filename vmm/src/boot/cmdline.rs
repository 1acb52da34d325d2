//! The kernel's command line: what a guest keeps of it, the same on both engines.

use crate::layout::CMDLINE_BYTES_MAX;

/// Why a command line does not reach the guest as it was given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CmdlineError {
    /// The kernel would cut it off, without a word.
    #[error(
        "The kernel command line has {bytes} bytes, {added} of which are words that vmm adds; a guest keeps {}: \
         shorten --cmdline by {}",
        CMDLINE_BYTES_MAX - 1,
        bytes - (CMDLINE_BYTES_MAX - 1)
    )]
    TooLong {
        /// Its length with the words that are added.
        bytes: usize,
        /// What those add to it.
        added: usize,
    },
    /// A character that does not arrive.
    #[error("The kernel command line has {character:?} at byte {at}: only printable ASCII reaches a guest")]
    Character {
        /// The first of its kind.
        character: char,
        /// Where it is in the words that were given.
        at: usize,
    },
}

/// Checks the words that the user gave, and the line that is made of them.
///
/// # Errors
/// When the line is too long (`COMMAND_LINE_SIZE` in arch/x86/include/asm/setup.h, with the zero at the end), or the
/// words have characters that a kernel does not take.
pub fn check(given: &str, line: &str) -> Result<(), CmdlineError> {
    let strange = given.char_indices().find(|(_, character)| !matches!(character, ' '..='~'));
    if let Some((at, character)) = strange {
        return Err(CmdlineError::Character { character, at });
    }
    let bytes = line.len();
    if bytes < CMDLINE_BYTES_MAX {
        return Ok(());
    }
    Err(CmdlineError::TooLong { bytes, added: bytes.saturating_sub(given.len()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_guest_keeps_is_accepted_and_one_byte_more_is_not() {
        let line = |bytes: usize| "x".repeat(bytes);
        assert_eq!(check("", ""), Ok(()));
        assert_eq!(check(&line(2000), &line(2047)), Ok(()));
        let error = check(&line(2000), &line(2050)).unwrap_err();
        assert_eq!(error, CmdlineError::TooLong { bytes: 2050, added: 50 });
        assert!(error.to_string().ends_with("a guest keeps 2047: shorten --cmdline by 3"), "{error}");
    }

    #[test]
    fn a_character_that_does_not_arrive_is_named() {
        for (text, character, at) in [("a\nb", '\n', 1), ("quiet é", 'é', 6), ("\u{7f}", '\u{7f}', 0)] {
            assert_eq!(check(text, text), Err(CmdlineError::Character { character, at }));
        }
    }
}
