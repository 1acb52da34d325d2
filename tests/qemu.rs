//! Guests on QEMU, on this machine as it is, without KVM and without the lab: the scenarios that the `kvm` engine runs
//! too, from the same source, and what only this engine has: a QEMU that is killed, stopped, old, or started by another
//! program.

#[path = "qemu/attached.rs"]
mod attached;
#[path = "qemu/hand.rs"]
mod hand;
#[path = "qemu/own.rs"]
mod own;
#[path = "qemu/starving.rs"]
mod starving;

use anyhow::Result;
use e2e::ground::Ground;
use e2e::{evidence, runs};
use libtest_mimic::{Arguments, Failed, Trial};
use std::process::ExitCode;

type Test = (&'static str, fn() -> Result<()>);

/// Before the names of scenarios, so that words choose among both.
const PREFIX: &str = "qemu: ";

const TESTS: &[Test] = &[
    ("qemu: a guest of 512M boots and holds a limit of 256M", own::holds),
    ("qemu: a guest on the QEMU 7.2 of Debian 12 boots and holds a limit of 256M", own::holds_on_old_qemu),
    ("qemu: a limit is held without a balancer", own::holds_alone),
    ("qemu: a killed QEMU ends its guest with a message and leaves nothing behind", own::machine_killed),
    ("qemu: a killed vmm ends its QEMU and leaves nothing behind", own::vmm_killed),
    ("qemu: a QEMU that stops answering is reported, and gets its target when it answers", own::stops),
    ("qemu: a start that hangs ends by a signal", own::start_ends_by_signal),
    ("qemu: a killed QEMU ends its guest's wait for memory", own::machine_killed_while_it_waits),
    ("qemu: ctrl-c goes to the guest at a terminal, and ctrl-a x ends it", own::terminal),
    ("qemu: standard input blocks again after its guest has ended", own::input_waits_again),
    ("qemu: a guest without a balloon driver is charged for what it holds", own::no_driver),
    (
        "qemu: a guest waits until another one leaves, and not again when its balancer is killed",
        starving::waits,
    ),
    ("qemu: a guest is paused while the host is out of memory, and resumes as it was", starving::is_paused),
    ("qemu: an option that QEMU cannot serve is refused by name", own::refuses),
    (
        "attach: a guest started by hand is resized, squeezed next to another, and left as it was",
        attached::lives,
    ),
    (
        "attach: a guest on the QEMU 7.2 of Debian 12 is resized, squeezed and left as it was",
        attached::lives_on_old_qemu,
    ),
    ("attach: a guest without a balloon is watched and charged", attached::without_balloon),
    ("attach: RAM in a file is reported as memory whose frames are not seen", attached::in_a_file),
    ("attach: a killed helper lets the guest run on, and another takes it", attached::helper_killed),
    ("attach: a guest that does not answer stays attached and is released when it does", attached::stuck),
    (
        "attach: a guest is left as it was found first, whichever process was killed in between",
        attached::found_first,
    ),
    ("attach: a socket that is not a free monitor of a guest is refused by name", attached::refuses),
];

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let own = || {
        let trial = |(name, test): &Test| {
            let (name, test) = (*name, *test);
            Trial::test(name, move || skip::named(name, || evidence::with(test)).map_err(Failed::from))
        };
        TESTS.iter().map(trial)
    };
    if arguments.list {
        return libtest_mimic::run(&arguments, own().chain(runs::list(PREFIX)).collect()).exit_code();
    }
    let filter = arguments.filter.clone().unwrap_or_default();
    let chosen = own().zip(TESTS).filter(|(_, (name, _))| name.contains(&filter)).map(|(trial, _)| trial);
    // The scenarios run on the other CPU: together they take as long as the scenarios alone.
    let scenarios = runs::trials_meanwhile(Ground::Qemu, PREFIX, &filter);
    let arguments = Arguments { filter: None, test_threads: arguments.test_threads.or(Some(2)), ..arguments };
    libtest_mimic::run(&arguments, chosen.chain(scenarios).collect()).exit_code()
}
