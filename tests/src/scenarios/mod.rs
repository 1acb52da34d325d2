//! End-to-end scenarios with Linux guests. Each is a sentence; the same run natively and in the lab.

mod boot;
mod limit;
mod overcommit;
mod roots;
mod stress;
mod survive;
mod tenants;

use crate::engine::Engine;
use crate::linux::Images;
use anyhow::Result;

/// A scenario: what it says, and how it is shown.
pub type Scenario = (&'static str, fn(&Images) -> Result<()>);

const SERVICES_UNDER_LIMITS: &str = "redis and postgres run from a shared image while limits change";
const OVERCOMMIT: &str =
    "limits of twice the memory of the host: memory of idle guests moves to guests in need";
const OVERCOMMIT_WITHOUT_BALLOON: &str =
    "limits of twice the memory of the host: a guest whose balloon driver is unloaded disturbs no other";
const ONE_IMAGE_FOR_ALL: &str = "a shared image costs each guest nothing of its own page cache";
const FILLED_BY_THE_BALANCER: &str = "guests read an image that the balancer fills within its budget, \
    and sampled figures agree with the exact ones";
const ON_ITS_OWN_DISK: &str = "a guest keeps what it writes over an image on a disk of its own";

/// The demo is not a scenario, but its guests boot from a root as well.
const DEMO: &str = "demo";

/// Whether a scenario needs the layers of a root ([`crate::library`]).
#[must_use]
pub fn needs_library(name: &str) -> bool {
    [SERVICES_UNDER_LIMITS, ONE_IMAGE_FOR_ALL, FILLED_BY_THE_BALANCER, ON_ITS_OWN_DISK, DEMO].contains(&name)
}

/// What is not shown on QEMU, and why.
const NOT_ON_QEMU: &[(&str, &str)] = &[
    (OVERCOMMIT, A_HOST_OF_ITS_OWN),
    (OVERCOMMIT_WITHOUT_BALLOON, A_HOST_OF_ITS_OWN),
    (
        FILLED_BY_THE_BALANCER,
        "QEMU cannot be given images that the balancer fills: it maps what it opens by itself",
    ),
];
/// The budget is what guests hold and what is available next to them, less the reserve.
const A_HOST_OF_ITS_OWN: &str = "it needs a host of its own: a reserve could leave guests 1 GiB of this one, \
    but the other tests take and free as much meanwhile";

/// Why guests on an engine do not show a scenario, if they do not.
#[must_use]
pub fn cannot(engine: Engine, name: &str) -> Option<&'static str> {
    match engine {
        Engine::Kvm => None,
        Engine::Qemu => NOT_ON_QEMU.iter().find(|(not, _)| *not == name).map(|(_, why)| *why),
    }
}

/// Memory of the lab's machine that a scenario asks for, MiB; `None` where it does not matter.
#[must_use]
pub fn lab_memory_mib(name: &str) -> Option<u32> {
    [OVERCOMMIT, OVERCOMMIT_WITHOUT_BALLOON].contains(&name).then_some(overcommit::HOST_MIB)
}

/// All of them, in the order in which they run.
pub const ALL: &[Scenario] = &[
    ("linux 6.1 boots with one cpu", boot::old_kernel),
    ("linux 6.1 boots with four cpus", boot::old_kernel_four_cpus),
    ("linux 6.12 boots with one cpu", boot::new_kernel),
    ("linux 6.12 boots with four cpus", boot::new_kernel_four_cpus),
    ("a bzimage boots as a vmlinux does", boot::bzimage),
    ("a limit of 256M on a guest of 512M holds after boot", limit::holds_after_boot),
    ("raising and lowering a limit over rest moves host memory", limit::moves_host_memory),
    ("a guest that frees memory releases it without being asked", limit::free_pages_come_back),
    ("the balloon works without any agent in the guest", limit::without_agent),
    ("the working set that the host's kernel finds is what the guest touches", limit::working_set),
    ("a guest out of memory deflates instead of dying and its target follows", survive::out_of_memory),
    ("contents survive ballooning", survive::contents),
    ("a disk keeps its bytes through limits and a power-off", survive::disk),
    ("a killed balancer comes back while a linux guest runs on", survive::balancer_killed),
    ("a linux guest serves two tenants in turn and charges follow", tenants::served_in_turn),
    ("a linux guest moves from tenant to tenant with its charges or without them", tenants::moved),
    (SERVICES_UNDER_LIMITS, roots::services_under_limits),
    (ONE_IMAGE_FOR_ALL, roots::one_image_for_all),
    (FILLED_BY_THE_BALANCER, roots::filled_by_the_balancer),
    (ON_ITS_OWN_DISK, roots::on_its_own_disk),
    ("four guests live through random steps of limits and loads", stress::random_steps),
    (OVERCOMMIT, overcommit::moves_to_the_needy),
    (OVERCOMMIT_WITHOUT_BALLOON, overcommit::works_around_one_without_balloon),
];
