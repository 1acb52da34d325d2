//! Guests whose RAM the kernel merges: one trust domain per host, and no other process.

use crate::support::{Daemon, Vmm, about, run_dir};
use hyper::Method;
use protocol::message::{Register, ToVmm};

fn merged(name: &str, container: &str, comes_back: bool) -> Register {
    Register { merge: true, comes_back, ..about(name, container, None) }
}

async fn refusal(vmm: &Vmm) -> String {
    match vmm.hear().await {
        ToVmm::Refused { reason } => reason,
        other => panic!("taken in: {other:?}"),
    }
}

#[tokio::test]
async fn one_domain_alone_is_merged_and_its_guests_stay_in_it() {
    let (_dir, run_dir) = run_dir();
    let daemon = Daemon::start(&run_dir).await;
    // Guests that come back: whether the host lets a new one in is another question.
    let (_a, _) = Vmm::register(&run_dir, merged("a", "/web/a", true)).await;
    let (_b, _) = Vmm::register(&run_dir, merged("b", "/web/b", true)).await;
    let reason = refusal(&Vmm::connect(&run_dir, merged("c", "/db", true)).await).await;
    for word in ["merge is refused", "domain web", "domain db", "\"a\""] {
        assert!(reason.contains(word), "{reason}");
    }
    // Without it nothing is shared, and nothing is asked.
    let (_c, _) = Vmm::register(&run_dir, about("c", "/db", None)).await;
    let problem = daemon.refused("/v1/guests/a", r#"{"container": "/db"}"#).await;
    assert!(problem.detail.contains("shares pages of domain web"), "{}", problem.detail);
    let problem = daemon.refused("/v1/containers/web", r#"{"domain": "other"}"#).await;
    assert!(problem.detail.contains("share pages of their domain: a, b"), "{}", problem.detail);
    // Inside the domain it may go where it likes, and two containers in the root may be one domain.
    daemon.patch("/v1/guests/a", r#"{"container": "/web/b"}"#).await;
    daemon.call(Method::PUT, "/v1/containers/cache", r#"{"domain": "web"}"#).await.unwrap();
    let (_d, _) = Vmm::register(&run_dir, merged("d", "/cache/d", true)).await;
}

#[tokio::test]
async fn a_new_guest_is_merged_only_where_ksm_runs_for_no_other_process() {
    let (_dir, run_dir) = run_dir();
    let _daemon = Daemon::start(&run_dir).await;
    let run = std::fs::read_to_string("/sys/kernel/mm/ksm/run").unwrap_or_default();
    if run.trim() == "1" {
        skip::skip!(Ksm, "KSM runs on this host");
        return;
    }
    let reason = refusal(&Vmm::connect(&run_dir, merged("a", "/web/a", false)).await).await;
    let expected =
        if run.is_empty() { "This kernel has no KSM" } else { "Ballast does not switch it on by itself" };
    assert!(reason.contains("merge is refused") && reason.contains(expected), "{reason}");
    let (_a, _) = Vmm::register(&run_dir, about("a", "/web/a", None)).await;
}
