//! The keys that end a guest at whose console a user sits: `Ctrl-A x`, as with QEMU. All other keys are the guest's,
//! Ctrl-C as well.

/// Begins a sequence. Twice it is one for the guest.
const CTRL_A: u8 = 0x01;

/// What is known of the keys so far.
#[derive(Debug, Default)]
pub struct Escape {
    is_begun: bool,
}

impl Escape {
    /// Takes keys, and leaves those of the guest in front of `keys`. Returns their number, or `None` if the user ends
    /// the guest.
    pub fn filter(&mut self, keys: &mut [u8]) -> Option<usize> {
        let mut kept = 0;
        for at in 0..keys.len() {
            match (std::mem::take(&mut self.is_begun), keys[at]) {
                (false, CTRL_A) => self.is_begun = true,
                (true, b'x' | b'X') => return None,
                // A sequence that means nothing is left out, as QEMU leaves it out.
                (true, key) if key != CTRL_A => {}
                (_, key) => {
                    keys[kept] = key;
                    kept += 1;
                }
            }
        }
        Some(kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(escape: &mut Escape, keys: &str) -> Option<String> {
        let mut bytes = keys.as_bytes().to_vec();
        escape.filter(&mut bytes).map(|kept| String::from_utf8(bytes[..kept].to_vec()).unwrap())
    }

    #[test]
    fn a_guest_gets_all_keys_but_the_sequence() {
        let mut escape = Escape::default();
        assert_eq!(typed(&mut escape, "ls\x03\x1a\x04\n").as_deref(), Some("ls\x03\x1a\x04\n"));
        assert_eq!(typed(&mut escape, "a\x01\x01b").as_deref(), Some("a\x01b"), "twice it is a key");
        assert_eq!(typed(&mut escape, "a\x01yb").as_deref(), Some("ab"), "another key does nothing");
        assert_eq!(typed(&mut escape, "").as_deref(), Some(""));
    }

    #[test]
    fn the_sequence_ends_a_guest_also_in_two_parts() {
        assert_eq!(typed(&mut Escape::default(), "abc\x01xdef"), None);
        let mut escape = Escape::default();
        assert_eq!(typed(&mut escape, "\x01").as_deref(), Some(""));
        assert_eq!(typed(&mut escape, "x"), None);
    }
}
