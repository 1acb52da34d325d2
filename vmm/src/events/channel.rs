//! The channel to a program in the guest: a Unix socket on the host, `/dev/hvc0` in the guest.

use super::queues::Queues;
use crate::attached::Attached;
use crate::epoll::watch;
use devices::virtio::console::{Console, Output, RECEIVE_QUEUE};
use devices::virtio::mmio::VirtioMmio;
use event_manager::{EventOps, Events, MutEventSubscriber};
use protocol::sync::MutexExt;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

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
    /// Listens at a path. A socket file without a listener is replaced.
    ///
    /// # Errors
    /// When another process listens at the path, or the file is not a socket.
    pub fn new(path: &Path) -> io::Result<Self> {
        use std::os::unix::fs::FileTypeExt;
        if let Ok(metadata) = std::fs::symlink_metadata(path) {
            if !metadata.file_type().is_socket() {
                return Err(io::Error::new(ErrorKind::AlreadyExists, "the file exists and is not a socket"));
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

    /// Where the device writes the guest's output. Without a client, or with a client that does not read, the output is
    /// dropped, so that no other process can make the guest wait.
    #[must_use]
    pub fn output(&self) -> Output {
        let client = Arc::clone(&self.client);
        Box::new(move |bytes| {
            let mut client = client.acquire();
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
    /// Bytes of the client for which the device had no room.
    pending: Vec<u8>,
    /// The event loop does not wait for the client until the guest has taken the pending bytes.
    paused: bool,
}

impl Channel {
    fn accept(&mut self, ops: &mut EventOps<'_>) {
        let Ok((stream, _)) = self.listening.listener.accept() else { return };
        if stream.set_nonblocking(true).is_err() {
            return;
        }
        // The newest client wins: an earlier one may be dead without having closed its socket.
        let mut client = self.listening.client.acquire();
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
            // The guest does not read. Stop reading too, until it provides buffers.
            let client = self.listening.client.acquire();
            if let Some(stream) = client.as_ref() {
                let _ = ops.remove(Events::empty(stream));
                self.paused = true;
            }
            return;
        }
        let mut buffer = [0u8; 4096];
        let mut client = self.listening.client.acquire();
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

    /// Gives the device the pending bytes, as far as it has room.
    fn flush(&mut self) {
        if !self.pending.is_empty() {
            let mut transport = self.console.device.acquire();
            input(&mut transport, &mut self.pending);
        }
    }

    /// Serves a queue, and gives the device pending bytes for the buffers that the guest provided, under one lock.
    fn serve(&mut self, queue: usize, ops: &mut EventOps<'_>) {
        let had_pending = !self.pending.is_empty();
        let pending = &mut self.pending;
        Queues::serve(&self.console, queue, |transport| {
            if queue == RECEIVE_QUEUE && had_pending {
                input(transport, pending);
            }
        });
        if had_pending && self.pending.is_empty() && std::mem::take(&mut self.paused) {
            let client = self.listening.client.acquire();
            if let Some(stream) = client.as_ref() {
                watch(ops, stream, CLIENT);
            }
        }
    }
}

/// Moves bytes into the device, as far as it has room.
fn input(transport: &mut VirtioMmio<Console>, pending: &mut Vec<u8>) {
    let accepted = transport.device_mut().input(pending);
    pending.drain(..accepted);
    transport.queue_event(RECEIVE_QUEUE);
}

impl MutEventSubscriber for Channel {
    fn process(&mut self, events: Events, ops: &mut EventOps<'_>) {
        match events.data() {
            LISTENER => self.accept(ops),
            CLIENT => self.receive(ops),
            queue => self.serve(queue as usize, ops),
        }
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        watch(ops, &self.listening.listener, LISTENER);
        Queues::watch_all(&self.console, ops, 0);
    }
}
