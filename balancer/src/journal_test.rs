use super::*;
use protocol::limits::Limits;

fn path(text: &str) -> ContainerPath {
    text.parse().unwrap()
}

#[test]
fn what_was_committed_is_there_again() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("journal");
    let (mut journal, tree, _) = Journal::open(&file).unwrap();
    assert_eq!(tree, Tree::default());
    let mut next = tree.clone();
    let limits = Limits { max_bytes: Some(5), max_vcpus: Some(0), ..Default::default() };
    next.place(&path("/web/a"), limits).unwrap();
    next.place(&path("/db"), Limits::default()).unwrap();
    journal.commit(&tree, &next).unwrap();
    let mut last = next.clone();
    last.remove(&path("/db"), 0).unwrap();
    journal.commit(&next, &last).unwrap();
    drop(journal);
    let (_journal, found, _) = Journal::open(&file).unwrap();
    assert_eq!(found.iter().collect::<Vec<_>>(), last.iter().collect::<Vec<_>>());
}

#[test]
fn knobs_that_were_turned_are_there_again() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("journal");
    let (mut journal, ..) = Journal::open(&file).unwrap();
    assert_eq!(journal.knobs(), None);
    let knobs = Knobs { reserve_bytes: Some(7), idle_tax_percent: 5, ..Default::default() };
    journal.commit_knobs(&knobs).unwrap();
    drop(journal);
    assert_eq!(Journal::open(&file).unwrap().0.knobs(), Some(knobs));
}

#[test]
fn a_newer_journal_is_refused_with_both_versions() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("journal");
    let store = Database::create(&file).unwrap();
    let transaction = store.begin_write().unwrap();
    transaction.open_table(ABOUT).unwrap().insert("version", 99).unwrap();
    transaction.commit().unwrap();
    drop(store);
    let error = Journal::open(&file).unwrap_err().to_string();
    assert!(error.contains("99") && error.contains("up to 4"), "{error}");
}

#[test]
fn a_file_that_is_no_journal_is_refused_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    let good = dir.path().join("good");
    drop(Journal::open(&good).unwrap());
    let whole = std::fs::read(&good).unwrap();
    let other = dir.path().join("other");
    let store = Database::create(&other).unwrap();
    let transaction = store.begin_write().unwrap();
    transaction.open_table(TableDefinition::<&str, &str>::new("about")).unwrap();
    transaction.commit().unwrap();
    drop(store);
    for (name, content, words) in [
        ("empty", vec![], "it is empty"),
        ("text", b"[limits]\n".to_vec(), "other bytes"),
        ("noise", vec![7; 9000], "other bytes"),
        ("zeros", vec![0; whole.len()], "other bytes"),
        ("beginning", whole[..5].to_vec(), "other bytes"),
        ("other", std::fs::read(&other).unwrap(), "another program"),
    ] {
        let file = dir.path().join(name);
        std::fs::write(&file, &content).unwrap();
        let error = Journal::open(&file).unwrap_err();
        assert!(matches!(error, JournalError::Foreign { .. }), "{name}: {error}");
        let text = error.to_string();
        assert!(text.contains(words) && text.contains(&file.display().to_string()), "{text}");
        assert!(std::fs::read(&file).unwrap() == content, "{name} was changed");
    }
    for name in ["folder", "link"] {
        let file = dir.path().join(name);
        match name {
            "folder" => std::fs::create_dir(&file).unwrap(),
            _ => std::os::unix::fs::symlink("/nowhere/at/all", &file).unwrap(),
        }
        Journal::open(&file).unwrap_err();
        assert!(file.symlink_metadata().is_ok());
    }
}

#[test]
fn half_a_journal_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("journal");
    drop(Journal::open(&file).unwrap());
    let whole = std::fs::read(&file).unwrap();
    for bytes in [9, 64, 320, 4096, whole.len() / 2] {
        std::fs::write(&file, &whole[..bytes]).unwrap();
        Journal::open(&file).expect_err(&format!("{bytes} bytes"));
    }
}

#[test]
fn a_journal_whose_making_was_interrupted_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("journal.redb");
    std::fs::write(file.with_extension("new"), "half").unwrap();
    let (mut journal, ..) = Journal::open(&file).unwrap();
    journal.commit_events(7).unwrap();
    assert!(!file.with_extension("new").exists());
    drop(journal);
    assert_eq!(Journal::open(&file).unwrap().0.events(), 7);
}
