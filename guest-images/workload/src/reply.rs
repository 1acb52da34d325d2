//! Answers: one line of JSON each, written by hand, since the guest's program has no need of more.

use std::fmt::Write;

/// The members of an answer, in the order they were added.
#[derive(Debug, Clone, Default)]
pub struct Reply {
    members: String,
}

impl Reply {
    /// An answer with nothing but its success.
    pub fn new() -> Reply {
        Reply::default()
    }

    /// Adds a number.
    pub fn number(self, name: &str, value: u64) -> Reply {
        self.raw(name, &value.to_string())
    }

    /// Adds a truth value.
    pub fn flag(self, name: &str, value: bool) -> Reply {
        self.raw(name, if value { "true" } else { "false" })
    }

    /// Adds a string.
    pub fn text(self, name: &str, value: &str) -> Reply {
        let value = quoted(value);
        self.raw(name, &value)
    }

    /// Adds a list of answers' members.
    pub fn list(self, name: &str, items: &[Reply]) -> Reply {
        let items: Vec<String> =
            items.iter().map(|item| format!("{{{}}}", item.members.trim_start_matches(','))).collect();
        self.raw(name, &format!("[{}]", items.join(",")))
    }

    fn raw(mut self, name: &str, json: &str) -> Reply {
        self.members.push(',');
        self.members += &quoted(name);
        self.members.push(':');
        self.members += json;
        self
    }
}

/// The line that answers request `id`.
pub fn line(id: u64, outcome: &Result<Reply, String>) -> String {
    match outcome {
        Ok(reply) => format!("{{\"id\":{id},\"ok\":true{}}}\n", reply.members),
        Err(problem) => format!("{{\"id\":{id},\"ok\":false,\"error\":{}}}\n", quoted(problem)),
    }
}

/// A JSON string (RFC 8259, section 7).
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c < ' ' => write!(out, "\\u{:04x}", u32::from(c)).expect("a String takes everything"),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_come_in_order() {
        let hold = Reply::new().text("name", "a").number("bytes", 5);
        let reply = Reply::new().flag("good", true).list("holds", &[hold]);
        assert_eq!(
            line(3, &Ok(reply)),
            "{\"id\":3,\"ok\":true,\"good\":true,\"holds\":[{\"name\":\"a\",\"bytes\":5}]}\n"
        );
        assert_eq!(line(3, &Ok(Reply::new())), "{\"id\":3,\"ok\":true}\n");
    }

    #[test]
    fn an_error_is_always_one_valid_line() {
        let error = line(0, &Err("a \"quote\" \\ and\na line \u{1}".into()));
        assert_eq!(
            error,
            "{\"id\":0,\"ok\":false,\"error\":\"a \\\"quote\\\" \\\\ and\\u000aa line \\u0001\"}\n"
        );
    }
}
