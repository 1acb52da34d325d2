use super::*;
use crate::command::parse;
use crate::reply::line;

fn ask(session: &mut Session, text: &str) -> String {
    let command = parse(&format!("1 {text}")).unwrap().1;
    line(1, &session.execute(&command).0)
}

fn temporary(name: &str) -> String {
    std::env::temp_dir().join(format!("workload-{}-{name}", process::id())).display().to_string()
}

#[test]
fn what_is_held_is_proved_intact() {
    let mut session = Session::default();
    let expected = pattern::checksum_of_seed(7, 8192);
    assert!(
        ask(&mut session, "alloc a 5000 7").contains(&format!("\"bytes\":8192,\"checksum\":\"{expected}\""))
    );
    assert!(ask(&mut session, "verify a").contains("\"intact\":true"));
    assert!(ask(&mut session, "touch a").contains("\"pages\":2"));
    assert!(ask(&mut session, "holds").contains(&expected));
    assert!(ask(&mut session, "alloc a 1").contains("held already"));
    assert!(ask(&mut session, "rewrite a 8").contains(&pattern::checksum_of_seed(8, 8192)));
    assert!(ask(&mut session, "free a").contains("\"bytes\":8192"));
    assert!(ask(&mut session, "free a").contains("Nothing is held"));
}

#[test]
fn a_changed_page_is_found() {
    let mut session = Session::default();
    ask(&mut session, "alloc a 12288 7");
    let Some(Hold::Pattern { memory, .. }) = session.holds.get_mut("a") else { panic!() };
    memory.content_mut()[5000] ^= 1;
    let reply = ask(&mut session, "verify a");
    assert!(reply.contains("\"intact\":false") && reply.contains("\"bad_pages\":1"), "{reply}");
}

#[test]
fn files_are_written_read_and_mapped() {
    let (path, mut session) = (temporary("file"), Session::default());
    let expected = pattern::checksum_of_seed(3, 300_001);
    assert!(ask(&mut session, &format!("fill-file {path} 300001 3")).contains(&expected));
    let read = ask(&mut session, &format!("read-file {path}"));
    assert!(read.contains(&expected) && read.contains("\"bytes\":300001"), "{read}");
    assert!(ask(&mut session, &format!("read-file {path} 4096")).contains("\"bytes\":4096"));
    assert!(ask(&mut session, &format!("map-file m {path}")).contains("\"bytes\":303104"));
    assert!(ask(&mut session, "verify m").contains("\"intact\":true"));
    assert!(ask(&mut session, "rewrite m").contains("cannot be rewritten"));
    fs::remove_file(&path).unwrap();
    assert!(ask(&mut session, &format!("read-file {path}")).contains("No such file"));
}

#[test]
fn of_a_private_file_exactly_the_pages_asked_for_are_written() {
    let (path, mut session) = (temporary("private"), Session::default());
    let expected = pattern::checksum_of_seed(3, 1_000_001);
    ask(&mut session, &format!("fill-file {path} 1000001 3"));
    let reply = ask(&mut session, &format!("write-pages p {path} 10 4"));
    assert!(reply.contains("\"written_pages\":24"), "{reply}");
    assert!(ask(&mut session, "verify p").contains("\"intact\":true"));
    assert!(ask(&mut session, &format!("read-file {path}")).contains(&expected), "the file is as it was");
    let Some(Hold::Private { memory, .. }) = session.holds.get_mut("p") else { panic!() };
    memory.content_mut()[5000] ^= 1;
    assert!(ask(&mut session, "verify p").contains("\"bad_pages\":1"));
    assert!(ask(&mut session, &format!("write-pages q {path} 100")).contains("\"written_pages\":245"));
    fs::remove_file(&path).unwrap();
}

#[test]
fn programs_are_started_waited_for_and_stopped() {
    let mut session = Session::default();
    assert!(ask(&mut session, "start a echo begun; sleep 100").contains("\"ok\":true"));
    assert!(ask(&mut session, "start a true").contains("started already"));
    assert!(ask(&mut session, "wait a 300").contains("\"ended\":false,\"code\":0,\"output\":\"begun"));
    assert!(ask(&mut session, "stop a").contains("\"ended\":true,\"code\":137"));
    assert!(ask(&mut session, "wait a 1").contains("Nothing is started"));
    assert!(ask(&mut session, "run 20000 false").contains("\"code\":1"));
}

#[test]
fn disks_want_whole_sectors() {
    let mut session = Session::default();
    assert!(ask(&mut session, "read-disk /dev/null 1 512").contains("multiples of 512"));
    assert!(ask(&mut session, "read-disk /dev/null 18446744073709551104 1024").contains("overflow"));
}

#[test]
fn impossible_amounts_are_refused() {
    let mut session = Session::default();
    assert!(ask(&mut session, "alloc a 18446744073709551615").contains("\"ok\":false"));
    assert!(ask(&mut session, "leak 9223372036854775807").contains("\"ok\":false"));
}

#[test]
fn the_machine_ends_only_after_the_answer() {
    let outcome = Session::default().execute(&Command::PowerOff);
    assert_eq!(outcome.1, Some(End::PowerOff));
    assert!(outcome.0.is_ok());
}
