//! Generated blocks of Markdown pages.

/// The document with the text between its lines `<!-- NAME:begin -->` and `<!-- NAME:end -->` replaced. `None` if it
/// does not have these lines.
#[must_use]
pub fn into_markers(name: &str, document: &str, text: &str) -> Option<String> {
    let (begin, end) = (format!("<!-- {name}:begin -->"), format!("<!-- {name}:end -->"));
    let (before, rest) = document.split_once(&begin)?;
    let (_, after) = rest.split_once(&end)?;
    Some(format!("{before}{begin}\n\n{}\n\n{end}{after}", text.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_goes_between_the_markers_and_nowhere_else() {
        let document = "before\n<!-- models:begin -->\nold\n<!-- models:end -->\nafter\n";
        let new = into_markers("models", document, "new\n").unwrap();
        assert_eq!(new, "before\n<!-- models:begin -->\n\nnew\n\n<!-- models:end -->\nafter\n");
        assert_eq!(into_markers("models", &new, "new").as_ref(), Some(&new));
        assert_eq!(into_markers("versus", &new, "new"), None);
        assert_eq!(into_markers("models", "no markers", "new"), None);
    }
}
