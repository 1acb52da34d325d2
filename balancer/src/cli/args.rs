//! Arguments.

use crate::accounting::System;
use crate::engine::KnobsPatch;
use crate::policy::{IDLE_TAX_RANGE, INTERVAL_MS_RANGE, OomPolicy};
use clap::{Args, Parser, Subcommand, ValueEnum};
use protocol::bytes;
use protocol::domain::{Domain, DomainError};
use protocol::image::Backing;
use protocol::limits::{LimitsPatch, WEIGHT_RANGE};
use protocol::path::ContainerPath;
use std::fmt::Display;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  the balancer refused, something went wrong, or an invariant of the policy broke in a simulation
  2  the command line is wrong
  3  no balancer is running
  4  another balancer holds the folder, or its journal is of a newer version

Files, in the folder that --run-dir names (else $BALLAST_RUN_DIR; else /run/ballast for root,
$XDG_RUNTIME_DIR/ballast or /tmp/ballast-UID for others):
  api.sock       REST API, see GET /openapi.json
  guests.sock    where guests register
  journal.redb   every container with its limits, every binding, the policy's knobs
  balancer.log   log of a balancer that a vmm started

Environment:
  BALLAST_VMM    program that keeps an attached guest [default: vmm, beside this program or on the path]

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
  curl --unix-socket /run/ballast/api.sock -X PATCH http://balancer/v1/containers/web/a -d '{\"max_bytes\": 1073741824}'";

/// Memory limits of virtual machines that are used as containers.
///
/// A balancer knows every guest of a host and the container that each is attached to, turns the containers' limits
/// into balloon targets at once, and answers over REST. A vmm starts one for its user when there is none.
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
    /// Take a QEMU guest that somebody else started under the balancer, without a restart
    ///
    /// It needs a QMP monitor that nobody else uses, and RAM that QEMU has as private memory for its frames to be seen; limits,
    /// policy and statistics work by its virtio-balloon. A helper process keeps it, which survives this balancer. libvirt:
    /// add -qmp unix:/run/a.qmp,server=on,wait=off by <qemu:commandline>; Proxmox: args: -qmp ...; a script: the same.
    Attach(Attach),
    /// Let go of a guest that was attached: its balloon and its polling interval become what they were
    Detach(Detach),
    /// Move a guest to another container
    Move(Move),
    /// Charge a container for what a guest touches from now on
    Charge(Charge),
    /// Show what guests share, who pays for it, and what it saves
    Pool(Pool),
    /// Let a container pay for all that is held of an image, or of the images built from a path
    Bind(Bind),
    /// Take such a binding away
    Unbind(Unbind),
    /// Remove an empty container
    Rm(Rm),
    /// Show what happened
    Events(Events),
    /// Measure the accounting systems against each other
    Models(Models),
    /// Say why a guest, or the guests in a container, have what they have
    Explain(Explain),
    /// Show the policy's knobs, or turn them; they stay as they are over a restart
    Policy(Policy),
    /// Write down what the policy is told, one JSON object a turn, for `balancer simulate --trace`
    Record(Record),
    /// Run the policy on made-up hosts, or on a recording
    Simulate(Simulate),
    /// Build and keep images that guests share
    Image(Image),
}

#[derive(Debug, Args)]
pub(super) struct Image {
    /// Folder with images: else $BALLAST_STORE; else /var/lib/ballast for root, $XDG_DATA_HOME/ballast or ~/.local/share/ballast
    #[arg(long, global = true, value_name = "DIR")]
    pub store: Option<PathBuf>,
    /// JSON instead of text
    #[arg(long, global = true)]
    pub json: bool,
    #[command(subcommand)]
    pub command: ImageCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum ImageCommand {
    /// Build an image from a folder or a tar, or one per layer of an OCI image layout
    ///
    /// Prints the digests, the lowest layer first. The same tree gives the same digest on every machine: all times are 0, and
    /// of the extended attributes only user.*, trusted.*, security.capability and access control lists are kept. A tar
    /// may be compressed with gzip or zstd. A folder with a file oci-layout is an OCI image layout. Files must not change
    /// meanwhile. Interrupted, it leaves nothing.
    Build {
        /// A folder, a tar, or an OCI image layout
        #[arg(value_name = "DIR|TAR|OCI-LAYOUT")]
        source: PathBuf,
    },
    /// Show the images of the store
    List,
    /// Remove an image that nobody uses
    Rm {
        /// sha256:.., at least 8 of its digits, or a path in the store
        image: String,
    },
    /// Look whether an image is what its name says, and DAX serves all its files
    Check {
        /// sha256:.., at least 8 of its digits; or, with a slash, the path of any EROFS file
        #[arg(value_name = "IMAGE|FILE")]
        image: String,
    },
}

#[derive(Debug, Args)]
pub(super) struct Serve {
    /// End 2 s after the last guest left, or 30 s after the start if none came
    #[arg(long)]
    pub exit_when_idle: bool,
    /// Serve the API over TCP as well, to clients that show the token
    #[arg(long, value_name = "ADDRESS:PORT", requires = "token_file")]
    pub listen: Option<SocketAddr>,
    /// File whose first line is the token, at least 32 characters
    #[arg(long, value_name = "FILE", requires = "listen")]
    pub token_file: Option<PathBuf>,
    /// Who pays for a frame: the accounting system behind every usage
    #[arg(long, value_name = "SYSTEM", value_enum, default_value_t)]
    pub accounting: System,
    /// Folder with images: else $BALLAST_STORE; else /var/lib/ballast for root, $XDG_DATA_HOME/ballast or ~/.local/share/ballast
    #[arg(long, value_name = "DIR")]
    pub store: Option<PathBuf>,
    /// What holds the pages of images that guests share
    #[arg(long, value_name = "BACKING", value_enum, default_value_t)]
    pub pool: PoolBacking,
    /// Learn what guests use of what they hold from the kernel's data access monitor (DAMON), where this user may and nobody else uses it
    #[arg(long)]
    pub working_sets: bool,
    #[command(flatten)]
    pub knobs: Knobs,
}

/// The knobs of the policy. What is not given is as it was turned last, or its default.
#[derive(Debug, Args)]
pub(super) struct Knobs {
    /// Memory that guests leave to the host: 2G, or default for a sixteenth of it, at most 4G
    #[arg(long, value_name = "BYTES", value_parser = reserve, allow_negative_numbers = true)]
    pub reserve: Option<Reserve>,
    /// How much dearer a byte that a guest holds and does not use is to it than one that it uses: 75, the default, makes it four
    /// times as dear
    #[arg(long, value_name = "PERCENT", value_parser = idle_tax, allow_negative_numbers = true)]
    pub idle_tax: Option<u32>,
    /// Time between two turns of sampling and deciding, milliseconds, 1000 by default; a changed limit does not wait for a turn, nor
    /// does a host that stalls for memory
    #[arg(long, value_name = "MS", value_parser = interval, allow_negative_numbers = true)]
    pub interval_ms: Option<u64>,
    /// What happens when the host is about to run out of memory
    #[arg(long, value_name = "WHAT", value_enum)]
    pub oom_policy: Option<OomPolicy>,
}

impl Knobs {
    /// The change that is asked for.
    pub(super) fn patch(&self) -> KnobsPatch {
        KnobsPatch {
            reserve_bytes: self.reserve.map(|reserve| reserve.0),
            idle_tax_percent: self.idle_tax,
            interval_ms: self.interval_ms,
            oom_policy: self.oom_policy,
        }
    }
}

/// An amount, or the default one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reserve(pub Option<u64>);

fn reserve(text: &str) -> Result<Reserve, bytes::ParseBytesError> {
    if text == "default" { Ok(Reserve(None)) } else { bytes::parse(text).map(|bytes| Reserve(Some(bytes))) }
}

fn idle_tax(text: &str) -> Result<u32, String> {
    between(text, IDLE_TAX_RANGE)
}

/// As `--pool` names it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum PoolBacking {
    /// The page cache of their files: who uses a page is sampled, and the kernel reclaims what nobody uses
    #[default]
    Pagecache,
    /// Memory of the balancer, filled when a guest touches it: who uses a page is known, and the max of /common is never exceeded
    Managed,
}

impl From<PoolBacking> for Backing {
    fn from(pool: PoolBacking) -> Self {
        match pool {
            PoolBacking::Pagecache => Self::Pagecache,
            PoolBacking::Managed => Self::Managed,
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct Ps {
    /// JSON instead of a table
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Set {
    /// The container: /web/a
    pub path: ContainerPath,
    /// Never exceeded: 512M, 1.5G, or none
    #[arg(long, value_name = "BYTES", value_parser = bound, allow_negative_numbers = true)]
    pub max: Option<Bound>,
    /// Reclaimed at once above this: 512M, 1.5G, or none
    #[arg(long, value_name = "BYTES", value_parser = bound, allow_negative_numbers = true)]
    pub high: Option<Bound>,
    /// Reclaimed below this only when nothing else is left
    #[arg(long, value_name = "BYTES", value_parser = bytes::parse, allow_negative_numbers = true)]
    pub low: Option<u64>,
    /// Never reclaimed below this
    #[arg(long, value_name = "BYTES", value_parser = bytes::parse, allow_negative_numbers = true)]
    pub min: Option<u64>,
    /// Divides what is contended among siblings, 1 to 10000
    #[arg(long, value_name = "N", value_parser = weight, allow_negative_numbers = true)]
    pub weight: Option<u32>,
    /// Most virtual CPUs of the guests in it, or none
    #[arg(long, value_name = "N", value_parser = count, allow_negative_numbers = true)]
    pub max_vcpus: Option<Count>,
    /// Most guests in it, or none
    #[arg(long, value_name = "N", value_parser = count, allow_negative_numbers = true)]
    pub max_guests: Option<Count>,
    /// Most virtio devices of those guests, or none
    #[arg(long, value_name = "N", value_parser = count, allow_negative_numbers = true)]
    pub max_devices: Option<Count>,
    /// Most file descriptors of their vmms, or none
    #[arg(long, value_name = "N", value_parser = count, allow_negative_numbers = true)]
    pub max_fds: Option<Count>,
    /// Most threads of their vmms, or none
    #[arg(long, value_name = "N", value_parser = count, allow_negative_numbers = true)]
    pub max_threads: Option<Count>,
    /// Trust domain of the guests in it: pages of images are shared inside one alone; none for that of the container above
    #[arg(long, value_name = "NAME", value_parser = domain)]
    pub domain: Option<DomainName>,
    /// Make the container if there is none
    #[arg(long)]
    pub create: bool,
    /// Show the targets that would change, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Show the container as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Attach {
    /// Unix socket of the guest's QMP monitor
    #[arg(long, value_name = "SOCKET")]
    pub qmp: PathBuf,
    /// The guest's name here [default: the socket's file name without its ending]
    #[arg(long)]
    pub name: Option<String>,
    /// The container that it is attached to; made if there is none [default: /NAME]
    #[arg(long, value_name = "PATH")]
    pub container: Option<ContainerPath>,
    /// Limits of that container: 2G, or any of max=2G,high=1.5G,low=512M,min=256M,weight=200
    #[arg(long, value_name = "LIMIT", value_parser = limits, allow_negative_numbers = true)]
    pub limit: Option<String>,
    /// Show the guest as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Detach {
    /// The guest's name
    pub guest: String,
}

#[derive(Debug, Args)]
pub(super) struct Move {
    /// The guest's name
    pub guest: String,
    /// The container that it is attached to from now on; it must exist
    pub container: ContainerPath,
    /// What becomes of what it is charged for
    #[arg(long, value_name = "WHAT", value_enum, default_value_t)]
    pub charges: Charges,
    /// Show the targets that would change, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Show the guest as JSON
    #[arg(long)]
    pub json: bool,
}

/// Where the charges of a guest go that moves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Charges {
    /// The new container pays for every frame that the guest holds
    #[default]
    Move,
    /// Whoever pays for a frame that it holds pays until it is given back
    Leave,
}

#[derive(Debug, Args)]
pub(super) struct Charge {
    /// The guest's name
    pub guest: String,
    /// The container that pays, or - for the guest's own again
    #[arg(value_parser = payer)]
    pub container: Payer,
    /// Show the targets that would change, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Show the guest as JSON
    #[arg(long)]
    pub json: bool,
}

/// A container, or `-` for the guest's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Payer(pub Option<ContainerPath>);

fn payer(text: &str) -> Result<Payer, protocol::path::ParsePathError> {
    if text == "-" { Ok(Payer(None)) } else { text.parse().map(|path| Payer(Some(path))) }
}

#[derive(Debug, Args)]
pub(super) struct Pool {
    /// JSON instead of tables
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Bind {
    /// A path of the host, for images built from it or from below it (the longest one decides); or an image: sha256:..,
    /// at least 8 of its digits
    #[arg(value_name = "PATH|IMAGE")]
    pub subject: String,
    /// The container that pays; it must exist. /common is the pool's own
    pub container: ContainerPath,
    /// Bind it even if it is bound to another container
    #[arg(long)]
    pub replace: bool,
    /// Show the targets that would change, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Show the binding as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Unbind {
    /// What was bound
    #[arg(value_name = "PATH|IMAGE")]
    pub subject: String,
    /// Show the targets that would change, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Show what would change as JSON
    #[arg(long, requires = "dry_run")]
    pub json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Rm {
    /// The container: /web/a
    pub path: ContainerPath,
    /// Show the targets that would change, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Show what would change as JSON
    #[arg(long, requires = "dry_run")]
    pub json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Events {
    /// Wait for more
    #[arg(long, short)]
    pub follow: bool,
    /// One JSON object a line
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Models {
    /// Seed of the made-up traces: the same seed gives the same figures, but for times
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Play this trace as well: one JSON object a line
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// Write the made-up mixed trace to a file and measure nothing
    #[arg(long, value_name = "FILE", conflicts_with_all = ["trace", "json", "svg", "into"])]
    pub record: Option<PathBuf>,
    /// JSON instead of tables
    #[arg(long)]
    pub json: bool,
    /// Draw a figure as well
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
    /// Replace the table between the markers of a Markdown file as well
    #[arg(long, value_name = "FILE")]
    pub into: Option<PathBuf>,
}

/// Limits as a `vmm` takes them, which reads them again.
fn limits(text: &str) -> Result<String, String> {
    text.parse::<LimitsPatch>().map(|_| text.to_owned()).map_err(|error| error.to_string())
}

fn between<T: FromStr + PartialOrd + Display>(text: &str, range: RangeInclusive<T>) -> Result<T, String> {
    let number = text.parse().ok().filter(|number| range.contains(number));
    number.ok_or_else(|| format!("must be a number between {} and {}", range.start(), range.end()))
}

fn weight(text: &str) -> Result<u32, String> {
    between(text, WEIGHT_RANGE)
}

fn interval(text: &str) -> Result<u64, String> {
    between(text, INTERVAL_MS_RANGE)
}

#[derive(Debug, Args)]
pub(super) struct Explain {
    /// A container: /web/a; or a guest's name
    pub what: String,
    /// JSON instead of text
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Policy {
    #[command(flatten)]
    pub knobs: Knobs,
    /// Show the targets that would change, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// JSON instead of text
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Record {
    /// For so long
    #[arg(long, value_name = "S", default_value_t = 60)]
    pub seconds: u64,
    /// Into a file instead of to standard output
    #[arg(long, value_name = "FILE")]
    pub into: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct Simulate {
    /// Where everything comes from: the same seed gives the same run, to the byte
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Guests of the host
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=20_000))]
    pub guests: usize,
    /// Simulated time, hours
    #[arg(long, value_name = "H", default_value_t = 1.0, value_parser = hours)]
    pub hours: f64,
    /// Simulated time between two turns, milliseconds
    #[arg(long, value_name = "MS", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(100..=60_000))]
    pub interval_ms: u64,
    /// Play what `balancer record` wrote instead
    #[arg(long, value_name = "FILE", conflicts_with_all = ["compare", "into"])]
    pub trace: Option<PathBuf>,
    /// Run the same hosts under Proxmox VE's and oVirt MoM's published rules as well; prints a table
    #[arg(long, conflicts_with = "json")]
    pub compare: bool,
    /// Replace the table between the markers of a Markdown file as well
    #[arg(long, value_name = "FILE", requires = "compare")]
    pub into: Option<PathBuf>,
    /// JSON instead of text
    #[arg(long)]
    pub json: bool,
}

fn hours(text: &str) -> Result<f64, String> {
    let wrong = || "must be a number above 0, at most 1000".to_owned();
    let hours: f64 = text.parse().map_err(|_| wrong())?;
    if hours > 0.0 && hours <= 1000.0 { Ok(hours) } else { Err(wrong()) }
}

/// An amount, or `none` to take a limit away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bound(pub Option<u64>);

fn bound(text: &str) -> Result<Bound, bytes::ParseBytesError> {
    if text == "none" { Ok(Bound(None)) } else { bytes::parse(text).map(|bytes| Bound(Some(bytes))) }
}

/// A number of objects, or `none` to take a limit away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Count(pub Option<u32>);

fn count(text: &str) -> Result<Count, String> {
    let wrong = |_| format!("must be none or a number between 0 and {}", u32::MAX);
    if text == "none" { Ok(Count(None)) } else { text.parse().map(|count| Count(Some(count))).map_err(wrong) }
}

/// A trust domain, or `none` for that of the container above.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DomainName(pub Option<Domain>);

fn domain(text: &str) -> Result<DomainName, DomainError> {
    if text == "none" { Ok(DomainName(None)) } else { text.parse().map(|domain| DomainName(Some(domain))) }
}

impl Set {
    /// The change that is asked for.
    pub(super) fn patch(&self) -> LimitsPatch {
        LimitsPatch {
            min_bytes: self.min,
            low_bytes: self.low,
            high_bytes: self.high.map(|bound| bound.0),
            max_bytes: self.max.map(|bound| bound.0),
            weight: self.weight,
            max_vcpus: self.max_vcpus.map(|count| count.0),
            max_guests: self.max_guests.map(|count| count.0),
            max_devices: self.max_devices.map(|count| count.0),
            max_fds: self.max_fds.map(|count| count.0),
            max_threads: self.max_threads.map(|count| count.0),
            domain: self.domain.clone().map(|domain| domain.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_guest_charges_a_container_or_its_own() {
        let payer = |text| match Arguments::try_parse_from(["balancer", "charge", "db", text])?.command {
            Command::Charge(charge) => Ok::<_, clap::Error>(charge.container.0.map(String::from)),
            _ => panic!("not charge"),
        };
        assert_eq!(payer("-").unwrap(), None);
        assert_eq!(payer("/a").unwrap().as_deref(), Some("/a"));
        assert!(payer("a").is_err() && payer("").is_err());
    }

    #[test]
    fn limits_as_people_write_them() {
        let arguments = Arguments::parse_from([
            "balancer",
            "set",
            "/web/a",
            "--max",
            "1G",
            "--high",
            "none",
            "--weight",
            "7",
            "--max-vcpus",
            "4",
            "--max-fds",
            "none",
        ]);
        let Command::Set(set) = arguments.command else { panic!("not set") };
        let patch = LimitsPatch {
            max_bytes: Some(Some(1 << 30)),
            high_bytes: Some(None),
            weight: Some(7),
            max_vcpus: Some(Some(4)),
            max_fds: Some(None),
            ..Default::default()
        };
        assert_eq!(set.patch(), patch);
        for bad in [
            ["--max", "lots"],
            ["--max", "1e30"],
            ["--max", "-1"],
            ["--weight", "0"],
            ["--low", "none"],
            ["--max-vcpus", "-1"],
            ["--max-fds", "4294967296"],
        ] {
            assert!(
                Arguments::try_parse_from(["balancer", "set", "/a"].iter().chain(&bad)).is_err(),
                "{bad:?}"
            );
        }
    }
}
