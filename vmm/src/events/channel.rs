//! The channel to a program in the guest: a Unix socket on the host, `/dev/hvc0` in the guest.

use super::queues::Queues;
use super::watch;
use crate::machine::attach::Attached;
use devices::virtio::console::{Console, Output};
use event_manager::{EventOps, Events, MutEventSubscriber};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

const LISTENER: u32 = 100;
const CLIENT: u32 = 101;

/// The one client that is connected, shared with the device that writes to it.
type Client = Arc<Mutex<Option<UnixStream>>>;

/// A listening channel whose device is not attached yet.
pub struct Listening {
    listener: UnixListener,
    path: PathBuf,
    client: Client,
}

impl Listening {
    /// Listens at a path. A socket file that nobody listens at any more is replaced.
    ///
    /// # Errors
    /// When the path is taken by something that lives or is no socket.
    pub fn new(path: &Path) -> io::Result<Self> {
        use std::os::unix::fs::FileTypeExt;
        if let Ok(metadata) = std::fs::symlink_metadata(path) {
            if !metadata.file_type().is_socket() {
                return Err(io::Error::new(ErrorKind::AlreadyExists, "the file exists and is no socket"));
            }
            if UnixStream::connect(path).is_ok() {
                return Err(io::Error::new(ErrorKind::AddrInUse, "another process listens there"));
            }
            std::fs::remove_file(path)?;
        }
        let listener = UnixListener::bind(path)?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener, path: path.into(), client: Client::default() })
    }

    /// The socket, for a process that serves it instead of this one.
    #[must_use]
    pub fn fd(&self) -> std::os::fd::RawFd {
        use std::os::fd::AsRawFd;
        self.listener.as_raw_fd()
    }

    /// Where the device writes what the guest says. Without a client, or with one that does not read, it is dropped, so
    /// that nobody outside can hold the guest up.
    #[must_use]
    pub fn output(&self) -> Output {
        let client = Arc::clone(&self.client);
        Box::new(move |bytes| {
            let mut client = client.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(stream) = client.as_mut()
                && let Err(error) = stream.write_all(bytes)
            {
                tracing::debug!(%error, "The channel's client does not read");
            }
        })
    }

    /// With the device attached, the channel is ready for the event loop.
    #[must_use]
    pub fn attached(self, console: Attached<Console>) -> Channel {
        Channel { listening: self, console, pending: Vec::new(), paused: false }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Serves the device's queues and moves the client's bytes into it.
pub struct Channel {
    listening: Listening,
    console: Attached<Console>,
    /// What the client wrote and the device had no room for.
    pending: Vec<u8>,
    /// The client is not waited for until the guest has taken what is pending.
    paused: bool,
}

impl Channel {
    fn accept(&mut self, ops: &mut EventOps<'_>) {
        let Ok((stream, _)) = self.listening.listener.accept() else { return };
        if stream.set_nonblocking(true).is_err() {
            return;
        }
        // The newest client wins: the one before may be dead without having said so.
        let mut client = self.listening.client.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(old) = client.take() {
            let _ = ops.remove(Events::empty(&old));
        }
        self.pending.clear();
        self.paused = false;
        watch(ops, &stream, CLIENT);
        *client = Some(stream);
    }

    fn receive(&mut self, ops: &mut EventOps<'_>) {
        self.flush();
        if !self.pending.is_empty() {
            // The guest does not read. Stop reading too, until it gives buffers.
            let client = self.listening.client.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(stream) = client.as_ref() {
                let _ = ops.remove(Events::empty(stream));
                self.paused = true;
            }
            return;
        }
        let mut buffer = [0u8; 4096];
        let mut client = self.listening.client.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(stream) = client.as_mut() else { return };
        match stream.read(&mut buffer) {
            Ok(count) if count > 0 => self.pending.extend_from_slice(&buffer[..count]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            _ => {
                if let Some(stream) = client.take() {
                    let _ = ops.remove(Events::empty(&stream));
                }
            }
        }
        drop(client);
        self.flush();
    }

    /// Gives the device what is pending, as far as it has room.
    fn flush(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        let mut transport = self.console.device.lock().unwrap_or_else(PoisonError::into_inner);
        let accepted = transport.device_mut().input(&self.pending);
        self.pending.drain(..accepted);
        transport.queue_event(0);
    }
}

impl MutEventSubscriber for Channel {
    fn process(&mut self, events: Events, ops: &mut EventOps<'_>) {
        match events.data() {
            LISTENER => self.accept(ops),
            CLIENT => self.receive(ops),
            queue => {
                Queues::serve(&self.console, queue as usize);
                if queue == 0 && !self.pending.is_empty() {
                    self.flush();
                    if self.pending.is_empty() && std::mem::take(&mut self.paused) {
                        let client = self.listening.client.lock().unwrap_or_else(PoisonError::into_inner);
                        if let Some(stream) = client.as_ref() {
                            watch(ops, stream, CLIENT);
                        }
                    }
                }
            }
        }
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        watch(ops, &self.listening.listener, LISTENER);
        Queues::watch_all(&self.console, ops);
    }
}
