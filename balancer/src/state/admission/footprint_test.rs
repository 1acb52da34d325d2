use super::*;
use crate::state::admission::admit::tests::{MIB, about, balancer};
use policy::Budget;
use protocol::engine::Engine;

#[test]
fn a_guest_needs_its_floor_and_what_its_engine_takes_beside_it() {
    let (_dir, balancer) = balancer();
    let state = &mut *balancer.state();
    let mut tree = state.tree.clone();
    tree.ensure(&about("a").container).unwrap();
    // The floor is 64 MiB; a vmm takes 16 MiB, a QEMU 128 MiB until it was measured.
    for (of, beside) in [(Engine::Kvm, 16 * MIB), (Engine::Qemu, 128 * MIB)] {
        let needed = 64 * MIB + beside;
        let about = Register { engine: of, ..about("a") };
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
