//! `guest-images`: makes and lists the images that guests boot, and runs commands in the lab's outer machine.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::{Args, Parser, Subcommand};
use guest_images::{Cache, Guest, ImageSet, KernelSeries, OuterMachine, Root};

/// Guest kernels and images from Debian's packages, kept in the user's cache folder.
///
/// Exit codes: 0 done, 1 failed, 2 bad usage; `outer` ends with the command's own.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// The cache folder [default: $XDG_CACHE_HOME/ballast, else ~/.cache/ballast]
    #[arg(long, global = true, value_name = "FOLDER", env = "BALLAST_CACHE")]
    cache: Option<PathBuf>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make what is missing and print where it is.
    Build(Build),
    /// Print what is there.
    List(List),
    /// Make the layers of a Debian root with redis, nginx, postgres and python, and print where they are.
    Root(MakeRoot),
    /// Boot the outer machine, run a command in it, and end with its exit code.
    Outer(Outer),
}

#[derive(Debug, Args)]
struct Build {
    /// 6.1, 6.12 or all
    #[arg(long, default_value = "all", value_parser = series)]
    kernel: Series,
    /// Ask the archive for newer packages first.
    #[arg(long)]
    refresh: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct MakeRoot {
    /// Make them again, from the newest packages.
    #[arg(long)]
    refresh: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct List {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Outer {
    /// The outer machine's kernel: 6.1 or 6.12
    #[arg(long, default_value_t = KernelSeries::V6_1)]
    kernel: KernelSeries,
    /// Its memory, MiB.
    #[arg(long, default_value_t = 4096)]
    memory_mib: u32,
    /// Its CPUs.
    #[arg(long, default_value_t = 2)]
    cpus: u32,
    /// A file for its /payload; repeatable.
    #[arg(long, value_name = "FILE=INSIDE", value_parser = payload)]
    payload: Vec<(PathBuf, String)>,
    /// End it after this many seconds.
    #[arg(long, default_value_t = 300)]
    deadline_s: u64,
    /// Where the files of $BALLAST_ARTIFACTS and the console's log go; emptied first.
    #[arg(long, default_value = "target/outer")]
    artifacts: PathBuf,
    /// The shell command.
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

/// Newtype, as clap takes a `Vec` for a repeatable argument.
#[derive(Debug, Clone)]
struct Series(Vec<KernelSeries>);

fn series(text: &str) -> Result<Series, String> {
    match text {
        "all" => Ok(Series(KernelSeries::ALL.to_vec())),
        one => one.parse().map(|series| Series(vec![series])),
    }
}

fn payload(text: &str) -> Result<(PathBuf, String), String> {
    let (file, inside) = text.split_once('=').ok_or("expected FILE=INSIDE")?;
    Ok((file.into(), inside.into()))
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("guest-images: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let cache = match arguments.cache {
        Some(folder) => Cache::at(folder)?,
        None => Cache::of_user()?,
    };
    let images = ImageSet::new(cache);
    match arguments.verb {
        Verb::Build(build) => {
            let mut guests = Vec::new();
            for series in build.kernel.0 {
                if build.refresh {
                    images.refresh(series)?;
                }
                guests.push(images.ensure(series).with_context(|| format!("Kernel {series}"))?);
            }
            print(&guests, build.json)?;
        }
        Verb::List(list) => print(&images.list()?, list.json)?,
        Verb::Root(root) => {
            if root.refresh {
                images.refresh_root()?;
            }
            print_root(&images.root()?, root.json)?;
        }
        Verb::Outer(outer) => return run_outer(&images, outer),
    }
    Ok(ExitCode::SUCCESS)
}

fn run_outer(images: &ImageSet, outer: Outer) -> anyhow::Result<ExitCode> {
    let machine = OuterMachine {
        kernel: outer.kernel,
        memory_mib: outer.memory_mib,
        cpus: outer.cpus,
        payload: outer.payload,
        library: Vec::new(),
        command: outer.command.join(" "),
        deadline: Duration::from_secs(outer.deadline_s),
        artifacts_dir: outer.artifacts,
    };
    let result = machine.run(images, &mut |line| println!("{line}"))?;
    eprintln!("guest-images: the outer machine ran for {:.1} s", result.took.as_secs_f64());
    let code = u8::try_from(result.exit_code).map_err(|_| anyhow!("Exit code {}", result.exit_code))?;
    Ok(ExitCode::from(code))
}

fn print(guests: &[Guest], json: bool) -> anyhow::Result<()> {
    if json {
        println!("{}", serde_json::to_string_pretty(guests)?);
        return Ok(());
    }
    for guest in guests {
        println!("kernel {} ({})", guest.series, guest.version);
        println!("  vmlinux    {}", guest.vmlinux.display());
        println!("  bzImage    {}", guest.bzimage.display());
        println!("  initramfs  {}", guest.initramfs.display());
    }
    Ok(())
}

fn print_root(root: &Root, json: bool) -> anyhow::Result<()> {
    if json {
        println!("{}", serde_json::to_string_pretty(root)?);
        return Ok(());
    }
    println!("root of {} Debian packages", root.packages.len());
    for layer in &root.layers {
        println!("  {:<10} {} ({} MiB)", layer.name, layer.tar.display(), layer.bytes >> 20);
    }
    Ok(())
}
