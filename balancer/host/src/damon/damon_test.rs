use super::*;

/// The kernel's files as plain ones: what is written can be read again.
fn kernel(operations: &str, kdamonds: &str) -> (tempfile::TempDir, PathBuf, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let files = dir.path().join("kdamonds");
    let context = files.join("0/contexts/0");
    for folder in ["monitoring_attrs/intervals", "monitoring_attrs/nr_regions"] {
        fs::create_dir_all(context.join(folder)).unwrap();
    }
    for i in 0..2 {
        fs::create_dir_all(context.join(format!("targets/{i}/regions/0"))).unwrap();
        let scheme = context.join(format!("schemes/{i}"));
        for folder in [
            "access_pattern/sz",
            "access_pattern/nr_accesses",
            "access_pattern/age",
            "filters/0",
            "tried_regions",
        ] {
            fs::create_dir_all(scheme.join(folder)).unwrap();
        }
        fs::write(scheme.join("tried_regions/total_bytes"), format!("{}\n", (i + 1) << 20)).unwrap();
    }
    fs::write(context.join("avail_operations"), operations).unwrap();
    fs::write(files.join("nr_kdamonds"), kdamonds).unwrap();
    let marker = dir.path().join("damon");
    (dir, files, marker)
}

fn guest(pid: i32) -> Watched {
    Watched { pid, from: 4096, to: 8192 }
}

#[test]
fn each_guest_has_a_target_and_a_scheme_that_counts_it_alone() {
    let (_dir, files, marker) = kernel("vaddr\nfvaddr\npaddr\n", "0\n");
    let read = |name: &str| fs::read_to_string(files.join(name)).unwrap();
    let mut damon = Damon::open(&files, &marker).unwrap();
    assert_eq!(damon.working_sets().unwrap(), [0; 0]);
    damon.watch(vec![guest(7), guest(8)]).unwrap();
    assert_eq!(read("0/state"), "on");
    let context = |name: &str| read(&format!("0/contexts/0/{name}"));
    assert_eq!((context("operations"), context("targets/nr_targets")), ("fvaddr".into(), "2".into()));
    assert_eq!(
        (context("targets/1/pid_target"), context("targets/1/regions/0/end")),
        ("8".into(), "8192".into())
    );
    assert_eq!(
        (context("schemes/1/filters/0/damon_target_idx"), context("schemes/1/action")),
        ("1".into(), "stat".into())
    );
    assert_eq!(damon.working_sets().unwrap(), [1 << 20, 2 << 20]);
    drop(damon);
    assert_eq!(read("nr_kdamonds"), "0");
    assert!(!marker.exists());
}

#[test]
fn files_in_use_are_refused_and_files_of_a_killed_balancer_are_taken_over() {
    let (_dir, files, marker) = kernel("fvaddr\n", "1\n");
    let number = || fs::read_to_string(files.join("nr_kdamonds")).unwrap();
    assert!(matches!(Damon::open(&files, &marker), Err(DamonError::InUse { found }) if found == "1"));
    assert_eq!((number(), marker.exists()), ("1\n".into(), false));
    fs::write(&marker, boot_id()).unwrap();
    let mut damon = Damon::open(&files, &marker).unwrap();
    damon.watch(vec![guest(7)]).unwrap();
    std::mem::forget(damon);
    // Killed, and another one comes.
    let damon = Damon::open(&files, &marker).unwrap();
    assert!(damon.watched().is_empty());
}

#[test]
fn a_kernel_without_the_feature_is_an_error_with_the_reason() {
    let (_dir, files, marker) = kernel("paddr\n", "0\n");
    let error = Damon::open(&files, &marker).unwrap_err();
    assert!(matches!(&error, DamonError::NoProcesses { known } if known == "paddr"), "{error}");
    // It is as it was.
    assert_eq!(fs::read_to_string(files.join("nr_kdamonds")).unwrap(), "0");
    assert!(matches!(Damon::open(Path::new("/nowhere"), &marker), Err(DamonError::Missing)));
}

#[test]
fn ram_is_the_run_of_anonymous_mappings_that_has_room_for_it() {
    let maps = "\
55d0c0000000-55d0c1000000 rw-p 00000000 00:00 0 [heap]
7f0000000000-7f0000200000 rw-p 00000000 00:00 0
7f0000200000-7f0000400000 rw-p 00000000 00:00 0
7f0000400000-7f0000600000 r--s 00000000 00:05 12 /memfd:x (deleted)
7f1000000000-7f1010000000 rw-p 00000000 00:00 0
nonsense
7f2000000000-7f2000001000 ---p 00000000 00:00 0
";
    assert_eq!(find_ram(maps, 4 << 20), Some((0x7f00_0000_0000, 0x7f00_0040_0000)));
    assert_eq!(find_ram(maps, 5 << 20), Some((0x7f10_0000_0000, 0x7f10_1000_0000)));
    assert_eq!(find_ram(maps, 1 << 40), None);
    assert_eq!(find_ram("", 1), None);
}
