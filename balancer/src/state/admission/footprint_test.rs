use super::*;
use crate::state::admission::admit::tests::{MIB, about, balancer};
use policy::Budget;
use protocol::engine::Engine;

#[test]
fn a_guest_needs_its_floor_and_what_its_engine_takes_in_addition() {
    let (_dir, _kernel, balancer) = balancer();
    let (state, now) = (&mut *balancer.lock(), Instant::now());
    let mut tree = state.containers.tree().clone();
    tree.ensure(&about("a").container).unwrap();
    // The floor is 64 MiB; a vmm takes 16 MiB, a QEMU 128 MiB until it was measured.
    for (of, beside) in [(Engine::Kvm, 16 * MIB), (Engine::Qemu, 128 * MIB)] {
        let needed = 64 * MIB + beside;
        let about = Register { engine: of, ..about("a") };
        let mut room = |bytes| {
            state.decisions.budget = Some(Budget { bytes, reserve_bytes: 0, stalled: false });
            state.check_memory(&about, &tree, 0, now)
        };
        assert_eq!(room(needed), Ok(()), "{of}");
        let Err(Refusal::NoRoom { at, reason }) = room(needed - MIB) else { panic!("{of} is let in") };
        assert_eq!(at, ContainerPath::root());
        let told = format!("needs 64M to start and {} beside its RAM", Human(beside));
        assert!(reason.contains(&told) && reason.contains("1M are missing"), "{of}: {reason}");
    }
}

#[test]
fn memory_that_a_process_took_since_the_last_plan_makes_no_room_for_others() {
    let (_dir, _kernel, balancer) = balancer();
    let (state, now) = (&mut *balancer.lock(), Instant::now());
    let mut tree = state.containers.tree().clone();
    tree.ensure(&about("a").container).unwrap();
    tree.ensure(&"/b".parse().unwrap()).unwrap();
    // Another container is promised 100 MiB; the guest needs 64 MiB, and its vmm 16 MiB.
    tree.alter(
        &"/b".parse().unwrap(),
        &serde_json::from_str(&format!(r#"{{"min_bytes": {}}}"#, 100 * MIB)).unwrap(),
    )
    .unwrap();
    state.decisions.budget = Some(Budget { bytes: 100 * MIB, reserve_bytes: 0, stalled: false });
    let checked = state.check_memory(&about("a"), &tree, 80 * MIB, now);
    assert_eq!(checked, Ok(()), "it holds already all that it needs");
    state.decisions.budget = Some(Budget { bytes: 90 * MIB, reserve_bytes: 0, stalled: false });
    let checked = state.check_memory(&about("a"), &tree, 500 * MIB, now);
    assert!(checked.is_err(), "the other one's 100 MiB are not there");
}
