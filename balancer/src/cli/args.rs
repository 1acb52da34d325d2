//! Arguments of the whole program. The arguments of a command are in the file that executes it.

use super::attach::{Attach, Detach};
use super::charge::{Charge, Move};
use super::events::Events;
use super::explain::Explain;
use super::image::Image;
use super::policy::Policy;
use super::pool::{Bind, Pool, Unbind};
use super::ps::Ps;
use super::record::Record;
use super::serve::Serve;
use super::set::{Rm, Set};
use super::simulate::Simulate;
use clap::{Parser, Subcommand};
use std::path::PathBuf;

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  the balancer refused, another error occurred, or a simulation broke an invariant of the policy
  2  the command line is wrong
  3  no balancer is running
  4  another balancer uses the folder, or its journal is of a newer version

Files, in the folder that --run-dir names (else $BALLAST_RUN_DIR; else /run/ballast for root,
$XDG_RUNTIME_DIR/ballast or /tmp/ballast-UID for others):
  api.sock       REST API, see GET /openapi.json
  guests.sock    where guests register
  journal.redb   every container with its limits, every binding, the policy's knobs
  balancer.log   log of a balancer that a vmm started

Environment:
  BALLAST_VMM    program that serves an attached guest [default: vmm, in the folder of this program or on the path]

Examples:
  balancer set /web/a --max 1G --max-vcpus 8 --create
  balancer move db /tenants/a --charges leave
  balancer charge db /tenants/b
  balancer ps
  balancer attach --qmp /run/legacy/db.qmp --container /legacy/db --limit 2G
  balancer detach db
  balancer image build ./rootfs
  balancer bind /srv/images/debian/lib /common
  balancer set /web --domain tenants
  balancer explain db
  balancer set /web/a --max 1G --dry-run
  balancer policy --reserve 2G
  curl --unix-socket /run/ballast/api.sock -X PATCH http://balancer/v1/containers/web/a \\
    -d '{\"max_bytes\": 1073741824}'";

/// Memory limits of virtual machines that are used as containers.
///
/// A balancer knows every guest of a host and the container that each guest is attached to, turns the containers'
/// limits into balloon targets at once, and answers over REST. A vmm starts a balancer for its user if none runs.
#[derive(Debug, Parser)]
#[command(name = "balancer", version, after_help = EXIT_CODES, max_term_width = 100)]
pub(super) struct Arguments {
    /// Folder of the balancer: its sockets, journal and log
    #[arg(long, global = true, value_name = "DIR")]
    pub run_dir: Option<PathBuf>,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run a balancer
    Serve(Serve),
    /// Show containers and guests
    Ps(Ps),
    /// Change the limits of a container
    Set(Set),
    /// Attach a QEMU guest that another program started, without a restart
    ///
    /// The guest needs a QMP monitor that no other program uses. Its frames can be scanned if QEMU has its RAM as
    /// private memory; limits, policy and statistics use its virtio-balloon. A helper process serves it, which survives
    /// this balancer. To add the monitor: libvirt: -qmp unix:/run/a.qmp,server=on,wait=off in <qemu:commandline>;
    /// Proxmox: args: -qmp ...; a script: the same option.
    Attach(Attach),
    /// Detach a guest that was attached: its balloon and its polling interval become what they were
    Detach(Detach),
    /// Move a guest to another container
    Move(Move),
    /// Charge a container for the frames that a guest touches from now on
    Charge(Charge),
    /// Show what guests share, which containers are charged for it, and what it saves
    Pool(Pool),
    /// Charge a container for all that the host holds of an image, or of the images built from a path
    Bind(Bind),
    /// Remove a binding
    Unbind(Unbind),
    /// Remove an empty container
    Rm(Rm),
    /// Show events
    Events(Events),
    /// Explain why a guest, or each guest in a container, has its target
    Explain(Explain),
    /// Show or change the policy's knobs, which survive a restart
    Policy(Policy),
    /// Record the policy's input, one JSON object per tick, for `balancer simulate --trace`
    Record(Record),
    /// Run the policy on simulated hosts, or on a recording
    Simulate(Simulate),
    /// Build and manage images that guests share
    Image(Image),
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }
}
