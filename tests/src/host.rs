//! A host for one test: a folder with one balancer, and guests that register there.

use crate::engine::{ENGINE_VARIABLE, Engine};
use crate::evidence;
use crate::guest::Guest;
use crate::http::{self, Answer};
use anyhow::{Context, Result, bail, ensure};
use balancer::objects::{ContainerObject, Event, FramesObject, GuestObject, HostObject, PoolObject};
use protocol::frames::{STATES, Totals};
use protocol::run_dir::RunDir;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use wait::{Activity, Progress};

/// A host. Its balancer and guests end with it.
#[derive(Debug)]
pub struct Host {
    dir: TempDir,
    balancer: Option<Child>,
    store: PathBuf,
    /// What its guests do.
    guests: Mutex<Activity>,
}

/// Where this build's programs are: next to the test, or one folder up.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    let exe = std::env::current_exe().unwrap_or_default();
    exe.ancestors()
        .skip(1)
        .take(2)
        .map(|dir| dir.join(name))
        .find(|path| path.is_file())
        .unwrap_or_else(|| name.into())
}

impl Host {
    /// A host with a running balancer.
    ///
    /// # Errors
    /// When the balancer does not start.
    pub fn new() -> Result<Self> {
        let mut host = Self::without_balancer()?;
        host.start_balancer()?;
        Ok(host)
    }

    /// A host whose balancer has this store of images.
    ///
    /// # Errors
    /// When the balancer does not start.
    pub fn with_store(store: &Path) -> Result<Self> {
        Self::with_store_and(store, &[])
    }

    /// The same, with more arguments for the balancer.
    ///
    /// # Errors
    /// When the balancer does not start.
    pub fn with_store_and(store: &Path, arguments: &[&str]) -> Result<Self> {
        let mut host = Self::without_balancer()?;
        host.store = store.into();
        host.start_balancer_with(arguments)?;
        Ok(host)
    }

    /// A host where a guest finds no balancer.
    ///
    /// # Errors
    /// When no folder can be made.
    pub fn without_balancer() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("ballast-").tempdir()?;
        let store = dir.path().join("store");
        Ok(Self { dir, balancer: None, store, guests: Mutex::default() })
    }

    /// The balancer's folder.
    #[must_use]
    pub fn run_dir(&self) -> RunDir {
        RunDir::new(Some(self.dir.path().join("run")))
    }

    /// A path in the host's own folder.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Starts the balancer and waits until it answers.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn start_balancer(&mut self) -> Result<()> {
        self.start_balancer_with(&[])
    }

    /// The same, with more arguments.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn start_balancer_with(&mut self, arguments: &[&str]) -> Result<()> {
        let log = std::fs::File::create(self.path("balancer.log"))?;
        let child = Command::new(program("balancer"))
            .env("BALLAST_VMM", program("vmm"))
            .arg("serve")
            .arg("--run-dir")
            .arg(self.run_dir().dir())
            .arg("--store")
            .arg(&self.store)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("start the balancer")?;
        let socket = self.run_dir().api_socket();
        let activity = Activity::of(child.id());
        let balancer = self.balancer.insert(child);
        wait::until(
            "the balancer answers",
            &activity,
            || {
                if let Some(status) = balancer.try_wait()? {
                    bail!("The balancer ended: {status}");
                }
                Ok(http::request(&socket, "GET", "/v1/host", None).is_ok_and(|answer| answer.status == 200))
            },
            |up| *up,
        )
        .with_context(|| std::fs::read_to_string(self.path("balancer.log")).unwrap_or_default())?;
        Ok(())
    }

    /// Kills the balancer, as a crash would.
    pub fn kill_balancer(&mut self) {
        if let Some(mut child) = self.balancer.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// `vmm` with this host's balancer and a folder for its files.
    #[must_use]
    pub fn vmm(&self) -> Command {
        let mut command = Command::new(program("vmm"));
        command.env("BALLAST_RUN_DIR", self.run_dir().dir()).env("BALLAST_BALANCER", program("balancer"));
        // Guests without an operating system run on a KVM in software too, which `auto` does not take.
        command.env(ENGINE_VARIABLE, Engine::current().to_string());
        command
    }

    /// The balancer's command line.
    ///
    /// # Errors
    /// When it cannot be run.
    pub fn balancer(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = Command::new(program("balancer"));
        Ok(command.args(arguments).env("BALLAST_RUN_DIR", self.run_dir().dir()).output()?)
    }

    /// Starts a guest with these flags.
    ///
    /// # Errors
    /// When `vmm` cannot be started.
    pub fn guest(&self, name: &str, flags: &[&str]) -> Result<Guest> {
        Guest::start(self, name, flags)
    }

    /// From now on what this guest does counts as progress of the host.
    pub fn follow(&self, guest: &Activity) {
        self.guests.lock().unwrap_or_else(PoisonError::into_inner).add(guest);
    }

    /// Waits for `count` ticks of the balancer. At each tick it reads a guest's process, and the age of that reading
    /// shows the tick. So an effect that a tick would have had is there when this returns.
    ///
    /// # Errors
    /// When the guest is unknown, or the balancer stops.
    pub fn ticks(&self, guest: &str, count: usize) -> Result<()> {
        // The reading was taken not before the first of these moments, not after the second.
        let read = || {
            let asked = Instant::now();
            let age = self.guest_object(guest)?.resident_age_ms.map(Duration::from_millis);
            let bounds = |age| Some((asked.checked_sub(age)?, Instant::now().checked_sub(age)?));
            Ok(age.and_then(bounds))
        };
        let mut last = wait::until("the guest's process is read", self, read, Option::is_some)?;
        for tick in 0..count {
            let is_later = |now: &Option<(Instant, Instant)>| now.map(|at| at.0) > last.map(|at| at.1);
            last = wait::until(&format!("tick {tick} of {count}"), self, read, is_later)?;
        }
        Ok(())
    }

    /// GET, which must succeed.
    ///
    /// # Errors
    /// When the answer is not 200, or another object.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let answer = self.request("GET", path, None)?;
        ensure!(answer.status == 200, "GET {path}: {answer:?}");
        answer.read().with_context(|| format!("GET {path}"))
    }

    /// A guest as the balancer has it.
    ///
    /// # Errors
    /// When the guest is unknown.
    pub fn guest_object(&self, name: &str) -> Result<GuestObject> {
        self.get(&format!("/v1/guests/{name}"))
    }

    /// A container.
    ///
    /// # Errors
    /// When there is none of this path.
    pub fn container(&self, path: &str) -> Result<ContainerObject> {
        self.get(&format!("/v1/containers{path}"))
    }

    /// The host as the balancer has it.
    ///
    /// # Errors
    /// When the balancer does not answer.
    pub fn host_object(&self) -> Result<HostObject> {
        self.get("/v1/host")
    }

    /// The shared pool by a scan that is made now.
    ///
    /// # Errors
    /// When the balancer does not answer.
    pub fn pool(&self) -> Result<PoolObject> {
        self.get("/v1/pool?max_age_ms=0")
    }

    /// The events that the balancer keeps.
    ///
    /// # Errors
    /// When the balancer does not answer.
    pub fn events(&self) -> Result<Vec<Event>> {
        self.get("/v1/events?follow=false")
    }

    /// Any request.
    ///
    /// # Errors
    /// When no answer comes.
    pub fn request(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Answer> {
        http::request(&self.run_dir().api_socket(), method, path, body)
    }

    /// Changes `max` of a container over REST.
    ///
    /// # Errors
    /// When it is refused.
    pub fn set_max(&self, container: &str, max_bytes: u64) -> Result<()> {
        let answer = self.request(
            "PATCH",
            &format!("/v1/containers{container}"),
            Some(&json!({ "max_bytes": max_bytes })),
        )?;
        ensure!(answer.status == 200, "{answer:?}");
        Ok(())
    }

    /// Frames by state of a guest, compared with the kernel just now.
    ///
    /// # Errors
    /// When the guest is unknown or the states do not tile.
    pub fn frames(&self, guest: &str) -> Result<FramesObject> {
        let frames: FramesObject = self.get(&format!("/v1/guests/{guest}/frames?max_age_ms=0"))?;
        assert_tiles(&frames.totals)?;
        Ok(frames)
    }

    /// The same, also counted from blocks and frame by frame, and by owner.
    ///
    /// # Errors
    /// When the guest is unknown or the states do not tile.
    pub fn audit(&self, guest: &str) -> Result<FramesObject> {
        let query = "max_age_ms=0&blocks=true&audit=true";
        let frames: FramesObject = self.get(&format!("/v1/guests/{guest}/frames?{query}"))?;
        assert_tiles(&frames.totals)?;
        ensure!(frames.tiles, "{frames:?}");
        Ok(frames)
    }

    /// What the kernel holds for a guest is what its table says, within the error that the table publishes.
    ///
    /// # Errors
    /// When they do not agree.
    pub fn assert_near_kernel(&self, guest: &Guest) -> Result<()> {
        let look = || -> Result<(u64, u64, u64)> {
            let totals = self.frames(&guest.name)?.totals;
            Ok((guest.anonymous_frames()?, totals.private, totals.error_frames_max))
        };
        let near = |(kernel, private, error): &(u64, u64, u64)| {
            kernel + error >= *private && *kernel <= private + error + guest.engine.own_frames_max()
        };
        // A guest touches more between the two readings.
        wait::until("table and kernel agree (kernel, table, error)", self, look, near)?;
        Ok(())
    }

    /// The folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }
}

/// The states of a guest's frames sum to its RAM.
///
/// # Errors
/// When they do not.
pub fn assert_tiles(totals: &Totals) -> Result<()> {
    let sum = STATES.iter().map(|state| totals.of(*state)).sum::<u64>() + totals.unknown;
    ensure!(sum == totals.frames && totals.untiled == 0, "the states do not tile: {totals:?}");
    Ok(())
}

/// The activity of its guests. A balancer that answers the looks of a wait does not make progress by that.
impl Progress for Host {
    fn count(&self) -> u64 {
        self.guests.lock().unwrap_or_else(PoisonError::into_inner).count()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.kill_balancer();
        evidence::keep(self.dir.path());
    }
}
