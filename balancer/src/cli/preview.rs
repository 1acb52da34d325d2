//! `--dry-run`: what a change would do.

use super::print::{print, print_outcome, shown};
use crate::objects::{Changed, Preview};
use protocol::bytes::Human;
use serde::Serialize;

/// Shows a thing that was changed, or what the change would do.
pub(super) fn show<T: Serialize>(
    changed: &Changed<T>,
    as_json: bool,
    text: impl FnOnce(&T) -> String,
) -> anyhow::Result<()> {
    match changed {
        Changed::Done(thing) => {
            print_outcome(&shown(thing.as_ref(), as_json, text));
            Ok(())
        }
        Changed::Previewed(preview) => show_preview(preview, as_json),
    }
}

/// Shows what a change would do.
pub(super) fn show_preview(preview: &Preview, as_json: bool) -> anyhow::Result<()> {
    print(&shown(preview, as_json, sentences)).map(drop)
}

fn sentences(preview: &Preview) -> String {
    let mut text = String::new();
    for target in &preview.targets {
        let now = target.now_bytes.map_or("none".into(), |bytes| Human(bytes).to_string());
        let next = Human(target.target_bytes);
        text += &format!("{}: target {now} -> {next}: {}\n", target.guest, target.reason);
    }
    for shortfall in &preview.shortfalls {
        let (needed, budget) = (Human(shortfall.needed_bytes), Human(shortfall.budget_bytes));
        text += &format!("{}: its guests need {needed}, and may use {budget}\n", shortfall.container);
    }
    if text.is_empty() { "No target would change\n".into() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::PlannedTarget;
    use policy::Shortfall;

    #[test]
    fn a_preview_is_shown_in_sentences() {
        let mut preview = Preview {
            targets: vec![PlannedTarget {
                guest: "a".into(),
                now_bytes: None,
                target_bytes: 2 << 20,
                share_bytes: 2 << 20,
                rule: "limit".into(),
                reason: "because".into(),
            }],
            shortfalls: vec![Shortfall {
                container: "/x".parse().unwrap(),
                needed_bytes: 3 << 20,
                budget_bytes: 1 << 20,
            }],
        };
        let text = "a: target none -> 2M: because\n/x: its guests need 3M, and may use 1M\n";
        assert_eq!(sentences(&preview), text);
        (preview.targets, preview.shortfalls) = (vec![], vec![]);
        assert_eq!(sentences(&preview), "No target would change\n");
    }
}
