use super::*;
use crate::state::admission::admit::tests::{MIB, about, balancer};
use policy::Budget;

#[test]
fn a_guest_needs_its_floor_and_what_its_engine_takes_in_addition() {
    let (_dir, _kernel, balancer) = balancer();
    let (state, now) = (&mut *balancer.lock(), Instant::now());
    let mut tree = state.containers.tree().clone();
    tree.ensure(&about("a").container).unwrap();
    // The floor is 64 MiB; a vmm takes 16 MiB, a QEMU 128 MiB until it was measured.
    for (of, beside) in [("kvm", 16 * MIB), ("qemu", 128 * MIB)] {
        let needed = 64 * MIB + beside;
        let about = Register { engine: of.into(), ..about("a") };
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
