use super::*;
use crate::state::admission::admit::tests::{MIB, about, balancer};
use policy::Budget;

#[test]
fn a_guest_needs_its_floor_and_what_its_engine_takes_beside_it() {
    let (_dir, balancer) = balancer();
    let state = &mut *balancer.state();
    let mut tree = state.tree.clone();
    tree.ensure(&about("a").container).unwrap();
    // The floor is 64 MiB; a vmm takes 16 MiB, a QEMU 128 MiB until it was measured.
    for (of, beside) in [("kvm", 16 * MIB), ("qemu", 128 * MIB)] {
        let needed = 64 * MIB + beside;
        let about = Register { engine: of.into(), ..about("a") };
        let mut room = |bytes| {
            state.budget = Some(Budget { bytes, reserve_bytes: 0, stalled: false });
            state.check_memory(&about, &tree, 0)
        };
        assert_eq!(room(needed), Ok(()), "{of}");
        let Err(Refusal::NoRoom { at, reason }) = room(needed - MIB) else { panic!("{of} is let in") };
        assert_eq!(at, ContainerPath::root());
        let told = format!("needs 64M to start and {} beside its RAM", Human(beside));
        assert!(reason.contains(&told) && reason.contains("1M are missing"), "{of}: {reason}");
    }
}

#[test]
fn what_a_process_took_since_the_last_plan_makes_no_room_for_others() {
    let (_dir, balancer) = balancer();
    let state = &mut *balancer.state();
    let mut tree = state.tree.clone();
    tree.ensure(&about("a").container).unwrap();
    tree.ensure(&"/b".parse().unwrap()).unwrap();
    // Another container is promised 100 MiB; the guest needs 64 MiB and 16 MiB of overhead.
    tree.alter(
        &"/b".parse().unwrap(),
        &serde_json::from_str(&format!(r#"{{"min_bytes": {}}}"#, 100 * MIB)).unwrap(),
    )
    .unwrap();
    state.budget = Some(Budget { bytes: 100 * MIB, reserve_bytes: 0, stalled: false });
    assert_eq!(
        state.check_memory(&about("a"), &tree, 80 * MIB),
        Ok(()),
        "it holds already all that it needs"
    );
    state.budget = Some(Budget { bytes: 90 * MIB, reserve_bytes: 0, stalled: false });
    assert!(
        state.check_memory(&about("a"), &tree, 500 * MIB).is_err(),
        "100 MiB for the other container are not there"
    );
}
