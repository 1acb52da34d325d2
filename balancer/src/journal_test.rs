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

#[test]
fn an_older_journal_is_read_and_becomes_one_of_this_version_with_the_first_change() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("journal");
    let store = Database::create(&file).unwrap();
    let transaction = store.begin_write().unwrap();
    transaction.open_table(ABOUT).unwrap().insert("version", 1).unwrap();
    let record =
        br#"{"limits": {"min_bytes": 0, "low_bytes": 7, "high_bytes": null, "max_bytes": 9, "weight": 3},
        "transient": false, "owner": 5}"#;
    transaction.open_table(CONTAINERS).unwrap().insert("/old", record.as_slice()).unwrap();
    transaction.commit().unwrap();
    drop(store);
    let (mut journal, tree, _) = Journal::open(&file).unwrap();
    let limits = Limits { low_bytes: 7, max_bytes: Some(9), weight: 3, ..Default::default() };
    assert_eq!(tree.get(&path("/old")).unwrap().limits, limits);
    let version = |journal: &Journal| read(journal.store.as_ref().unwrap()).unwrap().version;
    assert_eq!(version(&journal), 1);
    let mut next = tree.clone();
    next.place(&path("/old"), Limits { max_fds: Some(10), ..limits.clone() }).unwrap();
    journal.commit(&tree, &next).unwrap();
    assert_eq!(version(&journal), JOURNAL_VERSION);
    drop(journal);
    let (_journal, tree, _) = Journal::open(&file).unwrap();
    assert_eq!(tree.get(&path("/old")).unwrap().limits, Limits { max_fds: Some(10), ..limits });
}

#[test]
fn bindings_and_trust_domains_are_there_again() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("journal");
    let (mut journal, tree, none) = Journal::open(&file).unwrap();
    assert!(none.is_empty());
    let mut next = tree.clone();
    next.place(&path("/web"), Limits { domain: Some("tenants".parse().unwrap()), ..Default::default() })
        .unwrap();
    journal.commit(&tree, &next).unwrap();
    let image = format!("sha256:{}", "7".repeat(64));
    let both: Bindings = [("/srv/lib", "/web"), (image.as_str(), "/common")]
        .iter()
        .map(|(subject, to)| (subject.parse().unwrap(), path(to)))
        .collect();
    journal.commit_bindings(&none, &both).unwrap();
    let mut last = both.clone();
    last.put("/srv/lib".parse().unwrap(), path("/common"));
    assert!(last.remove(&image.parse().unwrap()) && !last.remove(&image.parse().unwrap()));
    journal.commit_bindings(&both, &last).unwrap();
    drop(journal);
    let (_journal, tree, bindings) = Journal::open(&file).unwrap();
    assert_eq!(bindings, last);
    assert_eq!(tree.domain(&path("/web/a")).as_str(), "tenants");
}
