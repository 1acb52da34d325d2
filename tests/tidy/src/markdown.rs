//! Links that lead somewhere, files that are there, headings that are told apart.

use crate::Offence;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Lines outside of code blocks, with their numbers.
pub fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut is_fenced = false;
    text.lines().enumerate().filter_map(move |(at, line)| {
        let is_fence = line.trim_start().starts_with("```");
        is_fenced ^= is_fence;
        (!is_fenced && !is_fence && !line.starts_with("    ")).then_some((at + 1, line))
    })
}

/// Headings: line, depth and text.
fn headings(text: &str) -> impl Iterator<Item = (usize, usize, &str)> {
    prose(text).filter_map(|(line, text)| {
        let depth = text.len() - text.trim_start_matches('#').len();
        let title = text[depth..].strip_prefix(' ')?;
        (1..=6).contains(&depth).then_some((line, depth, title.trim()))
    })
}

/// Headings that a page has twice under the same heading.
#[must_use]
pub fn duplicate_headings(path: &Path, text: &str) -> Vec<Offence> {
    let (mut above, mut seen, mut offences) = (Vec::<&str>::new(), BTreeSet::new(), Vec::new());
    for (line, depth, title) in headings(text) {
        above.resize(depth.saturating_sub(1), "");
        above.push(title);
        if !seen.insert(above.clone()) {
            let what = format!("the heading {title:?} is there twice");
            offences.push(Offence { path: path.into(), line, what });
        }
    }
    offences
}

/// What a heading is called in a link: as GitHub makes it.
fn anchor(title: &str) -> String {
    let text = title.replace('`', "").to_lowercase();
    let kept = text.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// Relative links to files or headings that are not there. `read` gives the text of a file, and `None` where there is
/// no file or folder.
pub fn dead_links(path: &Path, text: &str, read: &dyn Fn(&Path) -> Option<String>) -> Vec<Offence> {
    let mut offences = Vec::new();
    for (line, target) in prose(text).flat_map(|(line, text)| targets(text).map(move |target| (line, target)))
    {
        if target.contains("://") || target.starts_with("mailto:") {
            continue;
        }
        let (file, heading) = target.split_once('#').unwrap_or((target, ""));
        let to = if file.is_empty() { path.into() } else { normal(&path.with_file_name("").join(file)) };
        let what = match read(&to) {
            None => format!("the link {target:?} leads to no file"),
            Some(page) if !heading.is_empty() && !has_heading(&page, heading) => {
                format!("the link {target:?} leads to no heading")
            }
            Some(_) => continue,
        };
        offences.push(Offence { path: path.into(), line, what });
    }
    offences
}

fn has_heading(page: &str, heading: &str) -> bool {
    headings(page).any(|(_, _, title)| anchor(title) == heading)
}

/// Files of Rust that a page names in code, like `pool/image.rs`, but that no path of the repository ends with.
#[must_use]
pub fn missing_files(path: &Path, text: &str, files: &[PathBuf]) -> Vec<Offence> {
    let is_missing = |name: &&str| {
        name.ends_with(".rs") && !name.contains('*') && !files.iter().any(|file| file.ends_with(name))
    };
    let missing = |(line, text)| {
        let offence =
            move |name| Offence { path: path.into(), line, what: format!("no file ends with {name:?}") };
        code(text).filter(is_missing).map(offence).collect::<Vec<_>>()
    };
    prose(text).flat_map(missing).collect()
}

/// Words of a line that are set as code: every second part between backticks.
fn code(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2).flat_map(str::split_whitespace).map(|word| word.trim_matches(','))
}

/// Targets of the links and pictures in a line, code left out.
fn targets(line: &str) -> impl Iterator<Item = &str> {
    line.match_indices("](").filter_map(move |(at, _)| {
        let is_code = line[..at].matches('`').count() % 2 == 1;
        let target = &line[at + 2..];
        let target = &target[..target.find(')')?];
        (!is_code).then(|| target.split(' ').next().unwrap_or_default())
    })
}

/// The path without `.` and `..`.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => drop(normal.pop()),
            std::path::Component::CurDir => {}
            part => normal.push(part),
        }
    }
    normal
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &Path) -> Option<String> {
        match path.to_str()? {
            "docs/a.md" => Some("# One\n## Who `pays` for it?\n".into()),
            "src" => Some(String::new()),
            _ => None,
        }
    }

    fn dead(text: &str) -> Vec<usize> {
        dead_links(Path::new("docs/b.md"), text, &read).iter().map(|offence| offence.line).collect()
    }

    #[test]
    fn links_that_lead_somewhere_are_fine() {
        assert_eq!(dead("[a](a.md) [b](../docs/a.md#who-pays-for-it) [c](../src) [d](https://x/y)"), [0; 0]);
        assert_eq!(dead("`[a](none.md)`\n```\n[a](none.md)\n```"), [0; 0]);
    }

    #[test]
    fn dead_links_are_found() {
        assert_eq!(dead("ok\n[a](none.md) and [b](a.md#two)\n![c](../none.svg)"), [2, 2, 3]);
        assert_eq!(dead("[here](#nowhere)"), [1], "the page itself is not readable in this test");
    }

    #[test]
    fn a_file_that_a_page_names_is_missed_when_it_is_gone() {
        let files = [PathBuf::from("vmm/src/control/mod.rs")];
        let missing = |text| missing_files(Path::new("a.md"), text, &files).len();
        assert_eq!(missing("see `control/mod.rs` and `vmm/src/control/mod.rs`, not gone.rs"), 0);
        assert_eq!(missing("`trol/mod.rs` and `gone.rs`"), 2, "a name is whole");
        assert_eq!(missing("```\n`gone.rs`\n```"), 0);
    }

    #[test]
    fn a_heading_may_be_repeated_under_another_one_only() {
        let found = |text| duplicate_headings(Path::new("a.md"), text).len();
        assert_eq!(found("# a\n## b\n### Added\n## c\n### Added\n"), 0);
        assert_eq!(found("# a\n## Images\n### x\n## Images\n"), 1);
        assert_eq!(found("# a\n```\n# a\n```\n#[x]\n"), 0);
    }
}
