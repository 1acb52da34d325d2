use super::*;
use protocol::limits::Limits;

fn path(text: &str) -> ContainerPath {
    text.parse().unwrap()
}

#[test]
fn what_was_committed_is_there_again() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("journal");
    let (mut journal, tree) = Journal::open(&file).unwrap();
    assert_eq!(tree, Tree::default());
    let mut next = tree.clone();
    next.put(&path("/web/a"), Limits { max_bytes: Some(5), ..Default::default() }).unwrap();
    next.put(&path("/db"), Limits::default()).unwrap();
    journal.commit(&tree, &next).unwrap();
    let mut last = next.clone();
    last.remove(&path("/db"), 0).unwrap();
    journal.commit(&next, &last).unwrap();
    drop(journal);
    let (_journal, found) = Journal::open(&file).unwrap();
    assert_eq!(found.iter().collect::<Vec<_>>(), last.iter().collect::<Vec<_>>());
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
    assert!(error.contains("99") && error.contains("up to 1"), "{error}");
}

#[test]
fn a_file_that_is_no_journal_is_refused_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("journal");
    std::fs::write(&file, vec![7; 9000]).unwrap();
    let error = Journal::open(&file).unwrap_err();
    assert!(matches!(error, JournalError::Store { .. }), "{error}");
    assert_eq!(std::fs::read(&file).unwrap(), vec![7; 9000]);
}

#[test]
fn a_store_that_another_process_holds_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("journal");
    let _first = Journal::open(&file).unwrap();
    assert!(Journal::open(&file).is_err());
}
