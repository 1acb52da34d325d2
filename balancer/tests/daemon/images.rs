//! `balancer image`: the program, its signals and its exit codes.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use wait::Activity;

fn image(store: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_balancer"));
    command.arg("image").args(arguments).env("BALLAST_STORE", store);
    command
}

fn run(store: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = image(store, arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

#[test]
fn build_list_check_and_rm() {
    let dir = tempfile::tempdir().unwrap();
    let (store, source) = (dir.path().join("store"), dir.path().join("source"));
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), "contents").unwrap();
    let text = source.display().to_string();
    let (code, out, err) = run(&store, &["build", &text]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    let digest = out.trim().to_owned();
    assert!(digest.starts_with("sha256:") && digest.len() == 71, "{out}");
    assert_eq!(run(&store, &["build", &text]).1, out);
    let (_, out, _) = run(&store, &["list"]);
    assert!(out.contains(&digest) && out.contains("2M") && out.contains(&text), "{out}");
    let (_, out, _) = run(&store, &["list", "--json"]);
    let list: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&list[0]["digest"], &list[0]["files"]), (&digest.clone().into(), &1.into()));
    let short = &digest[7..20];
    let (code, out, _) = run(&store, &["check", short]);
    assert!(code == Some(0) && out.contains("good, 2M; 1 files of"), "{out}");
    let file = store.join("images").join(format!("{}.erofs", &digest[7..]));
    assert_eq!(run(&store, &["check", &file.display().to_string(), "--json"]).0, Some(0));
    for (arguments, code, words) in [
        (&["rm", "00000000"][..], 1, "No image 00000000 in the store"),
        (&["rm", "x"], 1, "names no image"),
        (&["check", "/etc/passwd"], 1, "it is not an EROFS image"),
        (&["check", "/etc"], 1, "It is not a regular file"),
        (&["build", "/does/not/exist"], 1, "No such file"),
        (&["build"], 2, "DIR|TAR|OCI-IMAGE"),
    ] {
        let (found, out, err) = run(&store, arguments);
        assert_eq!((found, out.as_str()), (Some(code), ""), "{arguments:?}: {err}");
        assert!(err.contains(words), "{arguments:?}: {err:?} does not say {words:?}");
    }
    assert_eq!(run(&store, &["rm", short]), (Some(0), String::new(), String::new()));
    assert_eq!(run(&store, &["list", "--json"]).1, "[]\n");
}

/// A header of a tar for an empty file or folder of a name, and its contents' length.
fn header(name: &str, bytes: u64) -> Vec<u8> {
    let mut block = vec![0; 512];
    block[..name.len()].copy_from_slice(name.as_bytes());
    block[100..107].copy_from_slice(b"0000644");
    block[124..135].copy_from_slice(format!("{bytes:011o}").as_bytes());
    block[148..156].fill(b' ');
    block[156] = b'0';
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    block
}

#[test]
fn the_layers_of_an_image_are_one_line_for_root_and_a_list_in_json() {
    let dir = tempfile::tempdir().unwrap();
    let (store, source) = (dir.path().join("store"), dir.path().join("saved"));
    fs::create_dir(&source).unwrap();
    let digests: Vec<String> = ["a", "b", "c"]
        .map(|name| {
            let path = source.join(name);
            fs::write(&path, [header(name, 0), vec![0; 1024]].concat()).unwrap();
            format!("\"{}\"", ::image::digest(&fs::File::open(path).unwrap()).unwrap())
        })
        .into();
    let config = format!("{{\"rootfs\": {{\"diff_ids\": [{}]}}}}", digests.join(", "));
    fs::write(source.join("config"), config).unwrap();
    let list = r#"[{"Config": "config", "Layers": ["a", "b", "c"]}]"#;
    fs::write(source.join("manifest.json"), list).unwrap();
    let text = source.display().to_string();
    let (code, out, err) = run(&store, &["build", &text]);
    assert_eq!((code, err.as_str(), out.lines().count()), (Some(0), "", 1));
    let digests: Vec<&str> = out.trim().split(',').collect();
    assert!(digests.len() == 3 && digests.iter().all(|digest| digest.len() == 71), "{out}");
    let (_, out, _) = run(&store, &["build", &text, "--json"]);
    let list: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&list[2]["digest"], &list[2]["layer"]["index"]), (&digests[2].into(), &2.into()));
}

/// The archive is a hole but for its headers, so that it costs no disk.
#[test]
fn a_build_of_a_large_archive_takes_little_memory() {
    let bytes = if cfg!(debug_assertions) { 64 << 20 } else { 2 << 30 };
    let dir = tempfile::tempdir().unwrap();
    let (store, source) = (dir.path().join("store"), dir.path().join("large.tar"));
    fs::write(&source, header("large", bytes)).unwrap();
    fs::File::options().write(true).open(&source).unwrap().set_len(bytes + 512 + 1024).unwrap();
    let mut child =
        image(&store, &["build", &source.display().to_string()]).stdout(Stdio::null()).spawn().unwrap();
    let mut most = 0;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        let text = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        most = most.max(line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok()).unwrap_or(0));
        std::thread::sleep(std::time::Duration::from_millis(10));
    };
    assert!(status.success() && (1..64 << 10).contains(&most), "{status}, {most} KiB");
}

#[test]
fn an_interrupted_build_leaves_nothing_and_a_killed_one_nothing_after_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let (store, source) = (dir.path().join("store"), dir.path().join("source"));
    fs::create_dir(&source).unwrap();
    // Holes: quick to make, not quick to build.
    fs::File::create(source.join("holes")).unwrap().set_len(8 << 30).unwrap();
    let text = source.display().to_string();
    let left = || fs::read_dir(store.join("images")).map_or(0, Iterator::count);
    for (signal, after) in [(libc::SIGINT, 0), (libc::SIGTERM, 0), (libc::SIGKILL, 1)] {
        let mut child = image(&store, &["build", &text]).stderr(Stdio::piped()).spawn().unwrap();
        wait::until("a draft", &Activity::of(child.id()), || Ok(left()), |count| *count > 0).unwrap();
        // SAFETY: a signal to a child that was not waited for yet.
        assert_eq!(unsafe { libc::kill(i32::try_from(child.id()).unwrap(), signal) }, 0);
        let mut err = String::new();
        std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut err).unwrap();
        let status = child.wait().unwrap();
        assert_eq!(left(), after, "signal {signal}");
        if signal != libc::SIGKILL {
            assert_eq!((status.code(), err.as_str()), (Some(1), "balancer: Cancelled: nothing was stored\n"));
        }
    }
    fs::remove_file(source.join("holes")).unwrap();
    assert_eq!(run(&store, &["build", &text]).0, Some(0));
    assert_eq!(left(), 2);
}
