use super::*;
use std::fs;

const SOON: Duration = Duration::from_secs(20);

/// A host with these processes: number, and files by name.
fn host(processes: &[(i32, &[(&str, &str)])], settings: &[(&str, &str)]) -> (tempfile::TempDir, Ksm) {
    let dir = tempfile::tempdir().unwrap();
    let (proc, sys) = (dir.path().join("proc"), dir.path().join("ksm"));
    fs::create_dir_all(&sys).unwrap();
    fs::create_dir_all(proc.join("self")).unwrap();
    for (pid, files) in processes {
        let dir = proc.join(pid.to_string());
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("comm"), "some\x1bthing\n").unwrap();
        for (name, text) in *files {
            fs::write(dir.join(name), text).unwrap();
        }
    }
    for (name, text) in settings {
        fs::write(sys.join(name), text).unwrap();
    }
    let ksm = Ksm::at(&proc, &sys);
    (dir, ksm)
}

const INIT: (i32, &[(&str, &str)]) = (1, &[("ksm_stat", "ksm_rmap_items 0\nksm_mergeable: no\n")]);

#[test]
fn a_process_is_mergeable_by_its_setting_its_items_or_a_flag_of_a_mapping() {
    let smaps = |flags: &str| format!("7f00-7f01 rw-p 0 00:00 0\nRss: 0 kB\nVmFlags: rd wr {flags}\n");
    let (plain, merged) = (smaps("mr mw me ac sd"), smaps("mr mw mg"));
    let hosts: [(i32, &[(&str, &str)]); 7] = [
        INIT,
        // The kernel's own threads have nothing.
        (2, &[("ksm_stat", ""), ("smaps", "")]),
        (3, &[("ksm_stat", "ksm_rmap_items 0\nksm_merge_any: no\nksm_mergeable: yes\n"), ("smaps", &plain)]),
        (4, &[("ksm_stat", "ksm_rmap_items 12\n"), ("smaps", &plain)]),
        (5, &[("ksm_stat", "ksm_rmap_items 0\n"), ("smaps", &plain)]),
        (6, &[("ksm_stat", "ksm_rmap_items 0\n"), ("smaps", &merged)]),
        (7, &[("smaps", &merged)]),
    ];
    let (_dir, ksm) = host(&hosts, &[]);
    let mut found = ksm.mergeable(SOON).unwrap();
    found.sort_by_key(|process| process.pid);
    assert_eq!(found.iter().map(|process| process.pid).collect::<Vec<_>>(), [3, 4, 6, 7]);
    assert_eq!(found[0].to_string(), "3 (something)");
}

#[test]
fn a_process_that_cannot_be_scanned_is_an_error() {
    let no_first: [(i32, &[(&str, &str)]); 1] = [(7, &[("ksm_stat", "ksm_mergeable: no\n")])];
    let (_dir, ksm) = host(&no_first, &[]);
    assert!(matches!(ksm.mergeable(SOON), Err(KsmError::Unreadable { pid: 1, .. })), "hidepid");

    let (dir, ksm) = host(&[INIT, (9, &[])], &[]);
    // A folder in the file's place is an error for root as well.
    fs::create_dir_all(dir.path().join("proc/9/ksm_stat")).unwrap();
    assert!(matches!(ksm.mergeable(SOON), Err(KsmError::Unreadable { pid: 9, .. })));

    let (_dir, ksm) = host(&[INIT], &[]);
    assert!(matches!(ksm.mergeable(Duration::ZERO), Err(KsmError::Slow { .. })));
}

#[test]
fn a_process_that_ended_meanwhile_is_skipped() {
    let (_dir, ksm) = host(&[INIT, (9, &[])], &[]);
    assert_eq!(ksm.mergeable(SOON).unwrap(), []);
}

#[test]
fn the_settings_must_be_on_and_leave_zeros_alone() {
    let told = |settings: &[(&str, &str)]| {
        let (_dir, ksm) = host(&[], settings);
        ksm.check_settings().map_err(|error| error.to_string())
    };
    assert_eq!(told(&[("run", "1\n"), ("use_zero_pages", "0\n")]), Ok(()));
    assert_eq!(told(&[("run", "1\n")]), Ok(()), "an old kernel");
    for (settings, words) in [
        (&[][..], "no KSM"),
        (&[("run", "0\n")], "run is 0 and must be 1"),
        (&[("run", "2\n")], "run is 2 and must be 1"),
        (&[("run", "lots")], "is not a number"),
        (&[("run", "1"), ("use_zero_pages", "1")], "use_zero_pages is on"),
    ] {
        let reason = told(settings).unwrap_err();
        assert!(reason.contains(words), "{reason}");
    }
}

#[test]
fn the_gain_and_the_cost_of_merging_are_read() {
    let stat = "ksm_rmap_items 1000\nksm_zero_pages 0\nksm_merging_pages 10\nksm_process_profit -23040\n";
    let hosts: [(i32, &[(&str, &str)]); 4] = [
        (5, &[("ksm_stat", stat)]),
        // Linux 6.1.
        (6, &[("ksm_stat", "ksm_rmap_items 1000\n")]),
        (7, &[("ksm_stat", "ksm_rmap_items lots\n")]),
        (8, &[]),
    ];
    let (_dir, ksm) = host(&hosts, &[]);
    let expected = Merged { merging_pages: 10, profit_bytes: 10 * 4096 - 64_000, cost_bytes: 64_000 };
    assert_eq!(ksm.merged(5), Some(expected));
    for pid in 6..=9 {
        assert_eq!(ksm.merged(pid), None, "{pid}");
    }
}

#[test]
fn figures_of_this_process_are_read_where_the_kernel_has_them() {
    let pid = i32::try_from(std::process::id()).unwrap();
    let told = std::fs::read_to_string("/proc/self/ksm_stat").unwrap_or_default();
    if told.contains("ksm_process_profit") {
        assert_eq!(Ksm::default().merged(pid), Some(Merged::default()));
    } else {
        skip::skip!(KsmStat, "this kernel does not report what is merged of a process (Linux 6.4)");
    }
}
