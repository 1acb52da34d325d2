//! The VMM with guests that have no operating system: milliseconds each, on any `/dev/kvm`, a software one included.

mod balancers;
mod bystanders;
mod disk_cache;
mod disks;
mod hostile;
mod images;
mod invariants;
mod life;
mod managed;
mod memory;
mod merge;
mod starving;
mod tenants;

use anyhow::{Result, ensure};
use e2e::{Guest, Host, evidence, kvm};
use libtest_mimic::{Arguments, Failed, Trial};
use protocol::frames::Totals;
use std::fs;
use std::process::ExitCode;

const MIB: u64 = 1 << 20;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let missing = kvm::missing();
    for (name, _) in missing.iter().filter(|_| !arguments.list).flat_map(|_| TESTS) {
        skip::named(name, || skip::skip!(Kvm, "{}", missing.as_deref().unwrap_or_default()));
    }
    let trials = TESTS
        .iter()
        .map(|(name, test)| {
            let run = move || skip::named(name, || evidence::with(test)).map_err(Failed::from);
            Trial::test(*name, run).with_ignored_flag(missing.is_some())
        })
        .collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

type Test = (&'static str, fn() -> Result<()>);

const TESTS: &[Test] = &[
    ("a guest boots, speaks and powers itself off", life::boots),
    ("a guest boots with as many cpus as there can be", life::boots_with_all_cpus),
    ("a guest asks for a reset", life::resets),
    ("a guest crashes and vmm reports it", life::crashes),
    ("sigterm and ctrl-c end a guest that spins", life::signals),
    ("a guest gets the keys of its terminal, ctrl-c too, and ctrl-a x ends it", life::terminal),
    ("a hang-up ends a guest, but not one that nohup started", life::hang_ups),
    ("an inflated balloon releases memory and keeps every other byte", memory::inflates),
    ("free page reporting releases a block", memory::reports),
    ("a limit set over REST becomes the guest's target and host memory follows", memory::limit_moves_memory),
    ("a killed balancer comes back with every limit while the guest runs on", balancers::balancer_killed),
    ("a killed guest leaves nothing behind", life::guest_killed),
    ("a second guest of the same name is refused", life::same_name),
    ("two guests share the limit of their parent", memory::parent_limit),
    ("a guest serves two tenants in turn and charges follow", tenants::serves),
    ("a moved guest takes its charges along or leaves them", tenants::moves),
    ("a move that breaks a limit is refused with the shortfall", tenants::refused_moves),
    ("a guest beyond a limit on objects is refused, and one inside is counted", memory::object_limits),
    ("a guest is paused while the host is out of memory, and resumes", starving::is_paused),
    ("a paused guest ends by a signal", starving::ends_while_it_is_paused),
    ("a guest waits until another one leaves, and ctrl-c ends its wait", starving::waits),
    ("vmm starts a balancer that ends with its last guest", balancers::balancer_started),
    ("a guest reads an image's bytes, behind more than 3 GiB of RAM too", images::reads),
    ("i8 guests that share an image hold it once, each with one mapping and one descriptor", images::shares),
    ("i2 stores into an image are dropped and counted, and the other guest reads old bytes", images::stores),
    ("i2 a storm of stores into an image ends only its guest", images::storms),
    ("i3 no device writes into an image, and all of them read from it", images::devices),
    ("i4 balloon and reporting refuse frames of an image", images::ballooned),
    ("i1 an image that is truncated while it is used ends no guest", images::cut),
    (
        "i5 pages of a guest that ends leave its account and are charged to the remaining guests",
        invariants::leaves,
    ),
    ("i6 a file that is not an image is refused with its name and the bound", images::refused),
    (
        "i7 only digest, place and length of an image are kept, and a dump does not have its pages",
        invariants::kept,
    ),
    (
        "i9 guests that break all sharing at once stay within their limits, and no other guest is charged",
        invariants::broken,
    ),
    ("a guest boots with as many images as there can be", images::sixteen),
    (
        "guests of one domain are merged on demand, other guests are not, and their tables stay true",
        merge::merges,
    ),
    ("a managed image is filled where it is touched, exactly, and two guests hold it once", managed::exact),
    ("a managed image that does not fit is evicted and read again with the same bytes", managed::evicts),
    ("a guest that thrashes a managed pool takes nothing from another domain", managed::thrashes),
    ("many guests that fill a managed pool take nothing from another domain", managed::fills_through_many),
    (
        "a guest that only reads gains what its accounting system gives, and no other guest is charged more",
        bystanders::gain_nothing_beyond,
    ),
    ("a guest that only reads does not take room of a full budget", bystanders::take_no_room),
    (
        "a guest on a managed image runs on without its balancer, and waits for what it lacks",
        managed::survives,
    ),
    ("figures that are sampled are within their published bound of exact ones", managed::sampled_and_exact),
    ("a hostile balloon driver is counted, answered and harmless", hostile::balloon),
    ("a hostile transport driver does no harm", hostile::transport),
    ("a hostile block driver does no harm", hostile::block),
    ("a disk keeps what was written and flushed", disks::keeps),
    (
        "page cache of a disk is charged, and dropped before the guest is asked",
        disk_cache::charged_and_dropped,
    ),
    ("a shared disk's page cache is charged once", disk_cache::shared),
    ("a read-only disk refuses writes", disks::read_only),
    ("two guests cannot write to one disk", disks::in_use),
    ("bad input ends with a clear error and the right exit code", life::bad_input),
    ("a balancer that cannot start is reported at once", balancers::no_balancer),
    ("a run directory of another user is not trusted", balancers::foreign_folder),
    ("a balancer that hangs does not delay its guest", balancers::hanging_balancer),
    ("without kvm a guest does not start", life::no_kvm),
    ("a full disk behind the console is reported", life::full_console),
];

const ELF: &str = env!("BALLAST_BAREMETAL");

fn start(host: &Host, name: &str, scenario: &str, flags: &[&str]) -> Result<Guest> {
    let mut all = vec!["--kernel", ELF, "--memory", "128M", "--cmdline", scenario];
    all.extend(flags);
    host.guest(name, &all)
}

fn alone(scenario: &str) -> Result<(Host, Guest)> {
    let host = Host::without_balancer()?;
    let guest = start(&host, "guest", scenario, &["--balancer", "none"])?;
    Ok((host, guest))
}

fn expect_code(guest: &mut Guest, code: i32) -> Result<()> {
    let status = guest.wait_end()?;
    ensure!(
        status.code() == Some(code),
        "{status}, expected {code}\n{}\n{}",
        guest.console(),
        guest.errors()
    );
    Ok(())
}

fn finish(guest: &mut Guest) -> Result<()> {
    guest.wait_for("done")?;
    expect_code(guest, 0)
}

fn totals(host: &Host, guest: &str) -> Result<Totals> {
    Ok(host.frames(guest)?.totals)
}

/// A disk of a MiB of zeros.
fn image(host: &Host) -> Result<String> {
    let path = host.path("disk.img");
    fs::write(&path, vec![0u8; 1 << 20])?;
    Ok(path.display().to_string())
}
