//! Objects for tests.

use super::{ContainerObject, GuestObject, ObjectsObject, OutOfMemoryState, RunState};
use policy::Health;
use protocol::domain::Domain;
use protocol::engine::Engine;
use protocol::frames::Totals;
use protocol::limits::Limits;
use protocol::message::Balloon;

/// A container that is empty.
pub(crate) fn container(path: &str) -> ContainerObject {
    ContainerObject {
        path: path.parse().unwrap(),
        limits: Limits::default(),
        transient: false,
        owner: 1,
        trust_domain: Domain::host().to_string(),
        usage_bytes: 0,
        usage_error_bytes: 0,
        usage_age_ms: None,
        target_bytes: 0,
        objects: ObjectsObject::default(),
        guests: vec![],
        containers: vec![],
        shortfall: None,
    }
}

/// A guest that just registered, with 1 GiB of RAM.
pub(crate) fn guest(name: &str, container: &str) -> GuestObject {
    let bytes = 1 << 30;
    GuestObject {
        name: name.into(),
        container: container.parse().unwrap(),
        owner: 1,
        charge_to: None,
        may_charge: vec![],
        charge_pending: false,
        pid: 42,
        engine: Engine::Kvm,
        machine_pid: None,
        attached: false,
        stuck: None,
        stuck_age_ms: None,
        cpus: 1,
        devices: 2,
        fds: 30,
        threads: 4,
        ram_bytes: bytes,
        floor_bytes: 64 << 20,
        target_bytes: bytes,
        target_reason: "no limit".into(),
        actual_bytes: bytes,
        usage_bytes: 0,
        usage_error_bytes: 0,
        other_images_bytes: 0,
        resident_bytes: None,
        resident_age_ms: None,
        page_tables_bytes: None,
        disk_cache_bytes: 0,
        disk_cache_error_bytes: 0,
        disk_cache_held_bytes: None,
        disk_cache_age_ms: None,
        overhead_bytes: 0,
        used_bytes: None,
        working_set_bytes: None,
        working_set_age_ms: None,
        health: Health::Well,
        state: RunState::Running,
        out_of_memory: OutOfMemoryState::No,
        has_balloon: true,
        balloon: Balloon {
            driver_ready: true,
            target_bytes: bytes,
            actual_bytes: bytes,
            ..Default::default()
        },
        balloon_age_ms: 0,
        statistics: None,
        statistics_age_ms: None,
        merge: None,
        pool: None,
        frames: Totals::default(),
        ram_unseen: None,
        trusted: true,
        registered_age_ms: 0,
    }
}
