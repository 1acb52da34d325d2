//! A thread that asks the balancer for granules of managed images when the guest touches them.
//!
//! ```text
//!   a vCPU, a device, KVM touch --userfaultfd--> asked -----AskGranules----> balancer
//!                                                mapped <----Granules------     |
//!                                                released <--Unmap--------------+
//! ```
//!
//! It touches no guest memory itself, and takes no lock of a device: all that wait for a granule wait for this
//! thread. Without a balancer they wait until there is one. A connection begins with nothing mapped on either side.

use crate::link::{Link, serve_pool};
use crate::memory::Images;
use crate::memory::images::Granule;
use host::wait::{PollFd, PollFlags, ready};
use protocol::frames::FrameTable;
use protocol::message::{FromVmm, GranuleOutcome, ToVmm};
use protocol::run_dir::RunDir;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::thread::{self, Builder};
use std::time::{Duration, Instant};

/// Time between two tries to find a balancer that knows the guest.
const RETRY_INTERVAL: Duration = Duration::from_millis(100);
/// Time until the retry for a granule that could not be filled.
const FAILED_INTERVAL: Duration = Duration::from_secs(1);

/// Starts the thread, which ends with the process.
///
/// # Errors
/// When the system has no thread.
pub fn start(images: Arc<Images>, table: Arc<FrameTable>, run_dir: RunDir, guest: String) -> io::Result<()> {
    let faults = Faults {
        images,
        table,
        run_dir,
        guest,
        held: BTreeSet::new(),
        asked: BTreeSet::new(),
        failed: BTreeMap::new(),
        outgoing: VecDeque::new(),
    };
    Builder::new().name("pool-faults".into()).spawn(move || faults.run())?;
    Ok(())
}

struct Faults {
    images: Arc<Images>,
    table: Arc<FrameTable>,
    run_dir: RunDir,
    guest: String,
    /// Granules that the balancer gave.
    held: BTreeSet<Granule>,
    /// Granules that a vCPU or a device waits for.
    asked: BTreeSet<Granule>,
    /// Those of them that could not be filled, and when to retry.
    failed: BTreeMap<Granule, Instant>,
    /// Messages that the balancer did not take yet.
    outgoing: VecDeque<FromVmm>,
}

impl Faults {
    fn run(mut self) {
        loop {
            let ended = self.connect().and_then(|link| self.serve(&link));
            if let Err(error) = ended {
                tracing::debug!(%error, "No balancer fills images");
            }
            thread::sleep(RETRY_INTERVAL);
        }
    }

    /// A connection to a balancer, with its memory mapped in place of what was there.
    fn connect(&mut self) -> io::Result<Link> {
        let (link, images) = serve_pool(&self.run_dir.guest_socket(), &self.guest)?;
        // Without a balancer the guest runs on and keeps its granules until here. From the balancer's answer on it
        // holds none, and a granule that is taken before this is done is missing in its memory, and asked for.
        self.held.clear();
        self.failed.clear();
        self.outgoing.clear();
        self.images.let_all_go(&self.table)?;
        for (image, (_, file)) in (0..).zip(&images) {
            if self.images.granules(image).is_some() && !self.images.is_same(image, file) {
                self.replace(image, file)?;
            }
        }
        // Asked for under an earlier balancer.
        for granule in std::mem::take(&mut self.asked) {
            self.ask(granule);
        }
        Ok(link)
    }

    /// Puts other memory in place of an image's.
    fn replace(&mut self, image: u16, file: &std::fs::File) -> io::Result<()> {
        let images = Arc::clone(&self.images);
        thread::scope(|scope| {
            let done = scope.spawn(move || images.replace(image, file));
            // The move ends once its event is read.
            while !done.is_finished() {
                self.asked.extend(self.images.waited_for()?);
                thread::sleep(Duration::from_micros(100));
            }
            done.join().unwrap_or_else(|_| Err(io::Error::other("a thread panicked")))
        })
    }

    /// Serves faults until the balancer closes the connection.
    fn serve(&mut self, link: &Link) -> io::Result<()> {
        loop {
            self.wait(link)?;
            for granule in self.images.waited_for()? {
                self.touched(granule)?;
            }
            while let Some(message) = next(link)? {
                self.apply(message)?;
            }
            let now = Instant::now();
            let due: Vec<Granule> =
                self.failed.iter().filter(|(_, at)| **at <= now).map(|(granule, _)| *granule).collect();
            for granule in due {
                self.failed.remove(&granule);
                self.asked.remove(&granule);
                self.ask(granule);
            }
            while let Some(message) = self.outgoing.front() {
                if !link.try_send(message)? {
                    break;
                }
                self.outgoing.pop_front();
            }
        }
    }

    /// Waits for faults, messages, room for messages, or the time of a retry.
    fn wait(&self, link: &Link) -> io::Result<()> {
        let sends = if self.outgoing.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
        let mut fds = vec![PollFd::new(link, PollFlags::IN | sends)];
        fds.extend(self.images.faults().map(|faults| PollFd::from_borrowed_fd(faults, PollFlags::IN)));
        let timeout = (!self.failed.is_empty()).then_some(FAILED_INTERVAL);
        ready(&mut fds, timeout).map(drop)
    }

    /// A vCPU or a device touched a granule that is not mapped, or not as a whole.
    fn touched(&mut self, granule: Granule) -> io::Result<()> {
        if self.held.contains(&granule) {
            if self.images.map_granule(granule, &self.table)? {
                return Ok(());
            }
            // The balancer reclaimed it by force.
            self.held.remove(&granule);
            self.images.let_go(granule, &self.table)?;
        }
        self.ask(granule);
        Ok(())
    }

    fn ask(&mut self, granule: Granule) {
        if self.asked.insert(granule) {
            self.outgoing.push_back(FromVmm::AskGranules {
                image: granule.image,
                first: granule.number,
                count: 1,
            });
        }
    }

    fn apply(&mut self, message: ToVmm) -> io::Result<()> {
        match message {
            ToVmm::Granules { image, first, count, outcome } => {
                for granule in self.run_of(image, first, count)? {
                    self.answered(granule, &outcome)?;
                }
            }
            ToVmm::Unmap { image, first, count } => {
                for granule in self.run_of(image, first, count)? {
                    self.held.remove(&granule);
                    self.images.let_go(granule, &self.table)?;
                }
                self.outgoing.push_back(FromVmm::Unmapped { image, first, count });
            }
            other => return Err(io::Error::new(ErrorKind::InvalidData, format!("got {other:?}"))),
        }
        Ok(())
    }

    fn answered(&mut self, granule: Granule, outcome: &GranuleOutcome) -> io::Result<()> {
        match outcome {
            GranuleOutcome::There => {
                self.asked.remove(&granule);
                self.failed.remove(&granule);
                self.held.insert(granule);
                self.touched(granule)
            }
            GranuleOutcome::Failed { reason } => {
                tracing::warn!(
                    image = granule.image,
                    granule = granule.number,
                    reason,
                    "A part of an image cannot be filled"
                );
                self.failed.insert(granule, Instant::now() + FAILED_INTERVAL);
                Ok(())
            }
        }
    }

    /// The granules of a message, which must exist.
    fn run_of(
        &self,
        image: u16,
        first: u64,
        count: u64,
    ) -> io::Result<impl Iterator<Item = Granule> + use<>> {
        let end = first.checked_add(count);
        let known = self.images.granules(image).zip(end).is_some_and(|(all, end)| end <= all);
        let wrong = || {
            io::Error::new(ErrorKind::InvalidData, format!("image {image} has no granules {first}, {count}"))
        };
        let end = end.filter(|_| known).ok_or_else(wrong)?;
        Ok((first..end).map(move |number| Granule { image, number }))
    }
}

/// The next message, if there is one.
fn next(link: &Link) -> io::Result<Option<ToVmm>> {
    match link.receive() {
        Ok(Some(message)) => Ok(Some(message)),
        Ok(None) => Err(io::Error::new(ErrorKind::ConnectionReset, "the balancer closed the connection")),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(None),
        Err(error) => Err(error),
    }
}
