use super::*;
use crate::scratch::Scratch;

#[test]
fn a_file_appears_whole_or_not_at_all() {
    let scratch = Scratch::new("cache-file");
    let path = scratch.path().join("deep/er/file");
    write_file(&path, b"first").unwrap();
    let staged = Staged::next_to(&path).unwrap();
    fs::write(staged.path(), b"half").unwrap();
    drop(staged);
    assert_eq!(fs::read(&path).unwrap(), b"first");
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
}

#[test]
fn remains_of_an_interrupted_run_are_removed() {
    let scratch = Scratch::new("cache-remains");
    let wanted = scratch.path().join("entry");
    let interrupted = Staged::next_to(&wanted).unwrap();
    fs::create_dir(interrupted.path()).unwrap();
    fs::write(interrupted.path().join("half"), b"x").unwrap();
    std::mem::forget(interrupted);

    let staged = Staged::next_to(&wanted).unwrap();
    assert!(!staged.path().exists());
    fs::create_dir(staged.path()).unwrap();
    fs::write(staged.path().join("whole"), b"x").unwrap();
    staged.commit().unwrap();
    assert!(wanted.join("whole").exists() && !wanted.join("half").exists());
}

#[test]
fn only_one_process_builds_at_a_time() {
    let scratch = Scratch::new("cache-lock");
    let cache = Cache::at(scratch.path()).unwrap();
    let lock = cache.lock().unwrap();
    let other = File::open(cache.path("lock")).unwrap();
    assert!(other.try_lock().is_err());
    drop(lock);
    assert!(other.try_lock().is_ok());
}

#[test]
fn lists_of_inputs_do_not_collide() {
    assert_ne!(sha256_of([b"ab".as_slice(), b"c"]), sha256_of([b"a".as_slice(), b"bc"]));
    let scratch = Scratch::new("cache-hash");
    let path = scratch.path().join("abc");
    fs::write(&path, "abc").unwrap();
    // FIPS 180-2, appendix B.1.
    assert_eq!(
        sha256_file(&path).unwrap(),
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    );
}
