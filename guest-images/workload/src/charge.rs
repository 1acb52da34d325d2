//! The guest's control port: which container is charged for what the guest touches from now on.

use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;

use crate::channel::{open, set_raw};

/// The port of a guest that has a channel as well.
const PORT: &str = "/dev/hvc1";

/// Charges a container, or the guest's own again (`-`). Returns when that is so.
pub fn charge(container: &str) -> Result<(), String> {
    let path = Path::new(PORT);
    let failed = |error: io::Error| format!("{PORT}: {error}");
    let mut port = open(path).map_err(failed)?;
    set_raw(&port).map_err(failed)?;
    port.write_all(format!("charge {container}\n").as_bytes()).map_err(failed)?;
    let mut answer = String::new();
    BufReader::new(port).read_line(&mut answer).map_err(failed)?;
    granted(answer.trim())
}

fn granted(answer: &str) -> Result<(), String> {
    match answer.split_once(' ').unwrap_or((answer, "")) {
        ("ok", "") => Ok(()),
        ("error", why) => Err(why.to_owned()),
        _ => Err(format!("{PORT} answered {answer:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_ok_or_says_why_not() {
        assert_eq!(granted("ok"), Ok(()));
        assert_eq!(granted("error There is no room"), Err("There is no room".into()));
        assert!(granted("").is_err() && granted("okay").is_err() && granted("ok no").is_err());
    }
}
