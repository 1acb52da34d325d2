use super::*;

fn command(line: &str) -> Command {
    parse(line).unwrap().1
}

fn problem(line: &str) -> (u64, String) {
    parse(line).unwrap_err()
}

#[test]
fn ids_and_arguments_are_read() {
    let alloc = Command::Alloc { name: "heap".into(), bytes: 4096, seed: 9 };
    assert_eq!(parse("7 alloc heap 4096 9").unwrap(), (7, alloc));
    assert_eq!(parse("18446744073709551615 ping\r").unwrap(), (u64::MAX, Command::Ping));
}

#[test]
fn what_is_optional_has_a_default() {
    assert_eq!(command("1 alloc a 5"), Command::Alloc { name: "a".into(), bytes: 5, seed: 0 });
    assert_eq!(command("1 read-file /f"), Command::ReadFile { path: "/f".into(), bytes: u64::MAX });
    assert_eq!(command("1 vmstat"), Command::Vmstat { names: vec![] });
    assert_eq!(command("1 vmstat a b"), Command::Vmstat { names: vec!["a".into(), "b".into()] });
    let Command::Mount { read_only, .. } = command("1 mount /dev/vda /m ext4 ro") else { panic!() };
    assert!(read_only);
}

#[test]
fn a_shells_command_is_the_rest_of_the_line() {
    let expected = Command::Run { ms: 9, command: "echo 'a b' | cat".into() };
    assert_eq!(command("1 run 9 echo 'a  b' |\tcat"), expected);
}

#[test]
fn every_command_has_a_text_form() {
    for line in [
        "charge /a",
        "touch a",
        "rewrite a 3",
        "verify a",
        "free a",
        "holds",
        "leak 1",
        "fill-file /f 1",
        "map-file a /f",
        "write-pages a /f 10 3",
        "read-tree /root",
        "run 5 true",
        "start a true",
        "wait a 5",
        "stop a",
        "drop-caches",
        "meminfo",
        "idle 5",
        "mount d f ext4",
        "umount f",
        "sync",
        "write-disk d 0 512 1",
        "clear-disk d 0 512",
        "read-disk d 0 512",
        "oom 1",
        "rmmod-balloon",
        "insmod-balloon",
        "poweroff",
        "reboot",
    ] {
        assert!(parse(&format!("1 {line}")).is_ok(), "{line}");
    }
}

#[test]
fn bad_input_names_what_is_wrong_and_keeps_the_id() {
    assert_eq!(problem("").0, 0);
    assert_eq!(problem("ping").0, 0);
    assert_eq!(problem("-1 ping").0, 0);
    assert_eq!(problem("3"), (3, "Unknown command \"\"".into()));
    assert_eq!(problem("3 dance"), (3, "Unknown command \"dance\"".into()));
    assert_eq!(problem("3 alloc"), (3, "alloc: NAME is missing".into()));
    assert_eq!(problem("3 alloc a"), (3, "alloc: BYTES is missing".into()));
    assert_eq!(problem("3 alloc a 0"), (3, "alloc: BYTES must be above 0".into()));
    assert_eq!(problem("3 alloc a 1e30"), (3, "alloc: BYTES must be a number, got \"1e30\"".into()));
    assert_eq!(problem("3 alloc a 5 6 7"), (3, "alloc: unexpected argument \"7\"".into()));
    assert_eq!(problem("3 mount a b c maybe"), (3, "mount: expected ro or rw, got \"maybe\"".into()));
    assert_eq!(
        problem("3 write-pages a /f 0"),
        (3, "write-pages: PERCENT must be from 1 to 100, got 0".into())
    );
    assert_eq!(problem("3 run 5"), (3, "run: COMMAND is missing".into()));
    assert_eq!(problem("3 ping \u{0}").0, 3);
}
