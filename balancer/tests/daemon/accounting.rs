//! The accounting system of a host: what is shown, and what usage it makes.

use crate::support::{Daemon, MIB, Vmm, about, command, run_dir};
use accounting::System;
use balancer::objects::ContainerObject;

/// True for frames of so many bytes and the page tables of this process: some, and less than a mebibyte.
fn is_with_page_tables(usage: u64, frames_bytes: u64) -> bool {
    (frames_bytes + 4096..frames_bytes + MIB).contains(&usage)
}

#[tokio::test]
async fn static_is_the_default_and_counts_the_larger_figure() {
    let (_dir, run_dir) = run_dir();
    let daemon = Daemon::start(&run_dir).await;
    let (vmm, _) = Vmm::register(&run_dir, about("a", "/web/a", None)).await;
    vmm.touch(300 * MIB);
    assert_eq!(daemon.host().await.accounting, System::Static);
    // This process is the vmm: its resident set is far below what its table claims.
    for path in ["/web/a", "/web", "/"] {
        let right = |container: &ContainerObject| is_with_page_tables(container.usage_bytes, 300 * MIB);
        let container = daemon.until_container(path, right).await;
        assert_eq!(container.usage_error_bytes, 0, "{container:#?}");
    }
    daemon.until_guest("a", |guest| is_with_page_tables(guest.usage_bytes, 300 * MIB)).await;
    assert!(is_with_page_tables(daemon.host().await.guests_usage_bytes, 300 * MIB));
    let guest = daemon.guest("a").await;
    let page_tables = guest.page_tables_bytes.unwrap();
    assert_eq!(guest.usage_bytes, 300 * MIB + page_tables, "to the byte: {guest:#?}");
    let out = String::from_utf8(command(&run_dir, &["ps"]).output().unwrap().stdout).unwrap();
    assert!(out.ends_with("USAGE is counted by static.\n"), "{out}");
}

#[tokio::test]
async fn the_system_is_chosen_per_host() {
    for system in System::ALL {
        let (_dir, run_dir) = run_dir();
        let daemon = Daemon::start_with(&run_dir, &["--accounting", system.name()]).await;
        let (vmm, _) = Vmm::register(&run_dir, about("a", "/a", None)).await;
        vmm.touch(301 * MIB);
        assert_eq!(daemon.host().await.accounting, system);
        // A tick reads the kernel's figure of this process as well.
        let container = daemon
            .until_container("/a", |object| object.usage_bytes != 0 && object.usage_error_bytes == 0)
            .await;
        let usage = container.usage_bytes;
        let error = container.usage_error_bytes;
        match system {
            System::Zones => {
                assert!(is_with_page_tables(usage, 302 * MIB) && error == 0, "{usage} {error}");
                // One frame alone in its block is charged as a block.
                vmm.table.set(400 * MIB / 4096, 1, protocol::frames::State::Private);
                let more = |object: &ContainerObject| is_with_page_tables(object.usage_bytes, 304 * MIB);
                daemon.until("/v1/containers/a", more).await;
            }
            System::Rss => assert!(usage < 301 * MIB && error == 0, "{usage} by the kernel's word"),
            _ => assert!(is_with_page_tables(usage, 301 * MIB) && error == 0, "{usage} {error}"),
        }
        let json = command(&run_dir, &["ps", "--json"]).output().unwrap().stdout;
        let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
        assert_eq!(json["accounting"], system.name());
    }
}

#[test]
fn an_unknown_accounting_system_is_refused() {
    let (_dir, run_dir) = run_dir();
    let output = command(&run_dir, &["serve", "--accounting", "fair"]).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(text.contains("fair") && text.contains("zones, static, partial, rss"), "{text}");
}
