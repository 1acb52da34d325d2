//! A balancer in a folder of its own, and guests without a guest: processes' ends of the guest socket with real tables.

pub mod pool;

use balancer::client::{Client, ClientError, routes};
use balancer::objects::{
    ContainerObject, Event, FramesObject, GuestObject, HostObject, PolicyObject, PoolObject, Problem,
};
use hyper::Method;
use protocol::frames::{FrameTable, Region, State};
use protocol::message::{self, FromVmm, Register, ToVmm};
use protocol::run_dir::RunDir;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::os::fd::{AsFd, AsRawFd};
use std::pin::pin;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tokio_seqpacket::ancillary::AncillaryMessageWriter;
use tokio_seqpacket::{UCred, UnixSeqpacket};
use wait::{Activity, Limits, Waiting};

pub const MIB: u64 = 1 << 20;
/// How long one step of a wait may take, before progress is looked at again.
const STEP: Duration = Duration::from_millis(500);

/// [`wait::until`] of an async task.
pub async fn until<T: Debug>(
    what: &str,
    activity: &Activity,
    mut look: impl AsyncFnMut() -> T,
    holds: impl Fn(&T) -> bool,
) -> T {
    let mut waiting = Waiting::begin(Limits::default(), activity);
    loop {
        let seen = look().await;
        if holds(&seen) {
            return seen;
        }
        match waiting.go_on(activity) {
            Ok(pause) => tokio::time::sleep(pause).await,
            Err(missed) => panic!("Waited for: {what}: {missed}; last seen: {seen:#?}"),
        }
    }
}

/// What the process at the other end of a socket answers, waited for while it moves.
pub async fn answered<T>(socket: &impl AsRawFd, answer: impl Future<Output = T>) -> T {
    let pid = UCred::from_socket_peer(socket).ok().and_then(|peer| u32::try_from(peer.pid()?).ok());
    within(&pid.map_or_else(Activity::default, Activity::of), answer).await
}

/// What a task returns, waited for while there is activity.
pub async fn within<T>(activity: &Activity, task: impl Future<Output = T>) -> T {
    let mut waiting = Waiting::begin(Limits::default(), activity);
    let mut task = pin!(task);
    loop {
        match tokio::time::timeout(STEP, task.as_mut()).await {
            Ok(returned) => return returned,
            Err(_) => waiting.go_on(activity).map_or_else(|missed| panic!("no answer: {missed}"), drop),
        }
    }
}

/// A running balancer; killed when it goes out of scope.
pub struct Daemon {
    child: Child,
    activity: Activity,
    pub client: Client,
}

impl Daemon {
    pub async fn start(run_dir: &RunDir) -> Self {
        Self::start_with(run_dir, &[]).await
    }

    pub async fn start_with(run_dir: &RunDir, arguments: &[&str]) -> Self {
        let interval: &[&str] =
            if arguments.contains(&"--interval-ms") { &[] } else { &["--interval-ms", "100"] };
        let child = command(run_dir, &["serve"])
            .args(interval)
            .args(arguments)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let client = Client::new(&run_dir.api_socket());
        let daemon = Self { activity: Activity::of(child.id()), child, client };
        let version = async || daemon.client.call::<Value>(Method::GET, "/v1/version", vec![]).await;
        until("the balancer is up", &daemon.activity, version, Result::is_ok).await.unwrap();
        daemon
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL, without any chance to clean up.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: a signal to a child that was not waited for yet.
        assert_eq!(unsafe { libc::kill(i32::try_from(self.pid()).unwrap(), signal) }, 0);
    }

    /// Its exit code, once it ends by itself.
    pub async fn ended(&mut self) -> Option<i32> {
        let child = &mut self.child;
        let look = async || child.try_wait().unwrap();
        until("the balancer ends", &self.activity, look, Option::is_some).await.unwrap().code()
    }

    pub async fn call(&self, method: Method, path: &str, body: &str) -> Result<Value, ClientError> {
        self.client.call(method, path, body.into()).await
    }

    pub async fn get(&self, path: &str) -> Value {
        self.call(Method::GET, path, "").await.unwrap()
    }

    pub async fn patch(&self, path: &str, body: &str) -> Value {
        self.call(Method::PATCH, path, body).await.unwrap()
    }

    pub async fn put(&self, path: &str, body: &str) -> Value {
        self.call(Method::PUT, path, body).await.unwrap()
    }

    /// A request that must be refused.
    pub async fn refused(&self, path: &str, body: &str) -> Problem {
        match self.call(Method::PATCH, path, body).await {
            Err(ClientError::Refused(problem)) => *problem,
            other => panic!("{path} {body}: {other:?}"),
        }
    }

    /// Asserts that the frames of a guest tile, and returns its private frames by owner id.
    pub async fn owners(&self, guest: &str) -> BTreeMap<u16, u64> {
        let route = format!("/v1/guests/{guest}/frames?blocks=true&audit=true");
        let frames: FramesObject = self.client.get(&route).await.unwrap();
        assert!(frames.tiles && frames.totals.untiled == 0, "{frames:#?}");
        frames.private_by_owner.unwrap()
    }

    pub async fn host(&self) -> HostObject {
        self.client.host().await.unwrap()
    }

    pub async fn containers(&self) -> Vec<ContainerObject> {
        self.client.containers().await.unwrap()
    }

    pub async fn container(&self, path: &str) -> ContainerObject {
        self.client.container(&path.parse().unwrap()).await.unwrap()
    }

    pub async fn guests(&self) -> Vec<GuestObject> {
        self.client.guests().await.unwrap()
    }

    pub async fn guest(&self, name: &str) -> GuestObject {
        self.client.guest(name).await.unwrap()
    }

    /// The pool by a scan that is made now.
    pub async fn pool(&self) -> PoolObject {
        self.client.pool(0).await.unwrap()
    }

    pub async fn policy(&self) -> PolicyObject {
        self.client.policy().await.unwrap()
    }

    pub async fn events(&self) -> Vec<Event> {
        self.client.events().await.unwrap()
    }

    /// The events of a kind.
    pub async fn events_of(&self, kind: &str) -> Vec<Event> {
        self.events().await.into_iter().filter(|event| event.kind == kind).collect()
    }

    pub async fn patch_container(&self, path: &str, body: &str) -> ContainerObject {
        self.client.call(Method::PATCH, &format!("/v1/containers{path}"), body.into()).await.unwrap()
    }

    pub async fn patch_guest(&self, name: &str, body: &str) -> GuestObject {
        self.client.call(Method::PATCH, &routes::guest(name), body.into()).await.unwrap()
    }

    pub async fn patch_policy(&self, body: &str) -> PolicyObject {
        self.client.call(Method::PATCH, routes::POLICY, body.into()).await.unwrap()
    }

    /// Waits until containers are charged this many MiB.
    pub async fn until_charged(&self, charged_mib: &[(&str, u64)]) {
        for (container, mib) in charged_mib {
            // The page tables of this process are added, some KiB.
            self.until_container(container, |container| container.usage_bytes / MIB == *mib).await;
        }
    }

    pub async fn until_container(
        &self,
        path: &str,
        condition: impl Fn(&ContainerObject) -> bool,
    ) -> ContainerObject {
        self.until(&format!("/v1/containers{path}"), condition).await
    }

    pub async fn until_guest(&self, name: &str, condition: impl Fn(&GuestObject) -> bool) -> GuestObject {
        self.until(&routes::guest(name), condition).await
    }

    pub async fn until_guests(&self, condition: impl Fn(&[GuestObject]) -> bool) -> Vec<GuestObject> {
        self.until(routes::GUESTS, |guests: &Vec<GuestObject>| condition(guests)).await
    }

    pub async fn until_host(&self, condition: impl Fn(&HostObject) -> bool) -> HostObject {
        self.until("/v1/host", condition).await
    }

    pub async fn until_pool(&self, condition: impl Fn(&PoolObject) -> bool) -> PoolObject {
        self.until("/v1/pool?max_age_ms=0", condition).await
    }

    /// Waits until there is an event that satisfies a condition.
    pub async fn until_event(&self, condition: impl Fn(&Event) -> bool) {
        self.until("/v1/events?follow=false", |events: &Vec<Event>| events.iter().any(&condition)).await;
    }

    /// Waits until an object satisfies a condition.
    pub async fn until<T: DeserializeOwned + Debug>(&self, path: &str, condition: impl Fn(&T) -> bool) -> T {
        let read = async || self.client.get(path).await.unwrap();
        until(path, &self.activity, read, condition).await
    }

    /// Waits for `count` ticks. Each reads the host's memory, and the age of that reading shows the tick. So an effect
    /// that a tick would have had is there when this returns.
    pub async fn ticks(&self, count: usize) {
        // The reading was taken not before the first of these moments, not after the second.
        let read = async || {
            let asked = Instant::now();
            let age = Duration::from_millis(self.host().await.age_ms);
            (asked.checked_sub(age).unwrap(), Instant::now().checked_sub(age).unwrap())
        };
        let mut last = read().await;
        for tick in 0..count {
            let what = format!("tick {tick} of {count}");
            last = until(&what, &self.activity, read, |now| now.0 > last.1).await;
        }
    }

    /// What its process does.
    pub fn activity(&self) -> &Activity {
        &self.activity
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The program, with its run directory.
pub fn command(run_dir: &RunDir, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_balancer"));
    command.args(arguments).arg("--run-dir").arg(run_dir.dir());
    command
}

/// A fresh run directory.
pub fn run_dir() -> (tempfile::TempDir, RunDir) {
    let dir = tempfile::tempdir().unwrap();
    let run_dir = RunDir::new(Some(dir.path().join("run")));
    (dir, run_dir)
}

/// The `vmm` side of a guest.
pub struct Vmm {
    pub socket: UnixSeqpacket,
    pub table: FrameTable,
}

/// A registration with 512M of RAM.
pub fn about(name: &str, container: &str, limits: Option<&str>) -> Register {
    Register {
        limits: limits.map(|text| text.parse().unwrap()),
        floor_bytes: 64 * MIB,
        devices: 2,
        fds: 30,
        threads: 4,
        ..Register::of(name, container.parse().unwrap(), 512 * MIB)
    }
}

impl Vmm {
    /// Connects and registers; the answer comes next.
    pub async fn connect(run_dir: &RunDir, about: Register) -> Self {
        let table = FrameTable::new(&[Region::ram(0, about.ram_bytes / 4096)]).unwrap();
        Self::connect_with(run_dir, about, table).await
    }

    pub async fn connect_with(run_dir: &RunDir, about: Register, table: FrameTable) -> Self {
        let socket = UnixSeqpacket::connect(run_dir.guest_socket()).await.unwrap();
        let packet = message::encode(&FromVmm::Register(about)).unwrap();
        send_with_fd(&socket, &packet, table.fd()).await;
        Self { socket, table }
    }

    /// Connects, registers and is taken in. Returns the first target as well.
    pub async fn register(run_dir: &RunDir, about: Register) -> (Self, u64) {
        let vmm = Self::connect(run_dir, about).await;
        match vmm.hear().await {
            ToVmm::Registered { target_bytes, owner, .. } => {
                vmm.table.set_owner(owner);
                (vmm, target_bytes)
            }
            other => panic!("not taken in: {other:?}"),
        }
    }

    pub async fn say(&self, message: &FromVmm) {
        self.socket.send(&message::encode(message).unwrap()).await.unwrap();
    }

    /// The next message that is not a question.
    pub async fn hear(&self) -> ToVmm {
        loop {
            let message = self.hear_any().await.expect("the balancer hung up");
            match message {
                ToVmm::SampleStats | ToVmm::ReconcileShare { .. } | ToVmm::FdsMax { .. } => {}
                ToVmm::Reconcile => self.reconcile().await,
                other => return other,
            }
        }
    }

    /// The next message; `None` at the hang-up.
    pub async fn hear_any(&self) -> Option<ToVmm> {
        let mut packet = vec![0; message::MESSAGE_BYTES_MAX];
        let info = answered(&self.socket, self.socket.recv(&mut packet)).await.ok()?;
        (info.bytes_read() > 0).then(|| message::decode(&packet[..info.bytes_read()]).unwrap())
    }

    /// Waits for a target of so many bytes.
    pub async fn hear_target(&self, bytes: u64) -> String {
        loop {
            if let ToVmm::Target { target_bytes, reason } = self.hear().await
                && target_bytes == bytes
            {
                return reason;
            }
        }
    }

    /// Answers a comparison as a guest whose table is right.
    pub async fn reconcile(&self) {
        self.table.reconciled();
        self.say(&FromVmm::Reconciled { mended_frames: 0, took_us: 1 }).await;
    }

    /// Carries out the next charge command, as a `vmm` does whose table is right.
    pub async fn carry_out(&self) -> message::Charge {
        loop {
            if let ToVmm::Charge(charge) = self.hear().await {
                self.table.set_owner(charge.owner);
                let moved_frames =
                    if charge.with_charges { self.table.take_charges(charge.owner) } else { 0 };
                self.say(&FromVmm::Charged { order: charge.order, moved_frames }).await;
                return charge;
            }
        }
    }

    /// Touches so much from a place on.
    pub fn touch_at(&self, at: u64, bytes: u64) {
        assert_eq!(self.table.set(at / 4096, bytes / 4096, State::Private).changed, bytes / 4096);
    }

    pub fn touch(&self, bytes: u64) {
        self.touch_at(0, bytes);
    }
}

pub async fn send_with_fd(socket: &UnixSeqpacket, packet: &[u8], fd: std::os::fd::BorrowedFd<'_>) {
    let mut buffer = [0; 64];
    let mut ancillary = AncillaryMessageWriter::new(&mut buffer);
    ancillary.add_fds([fd.as_fd()]).unwrap();
    socket.send_with_ancillary(packet, &mut ancillary).await.unwrap();
}
