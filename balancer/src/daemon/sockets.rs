//! The sockets in the run directory, and the tasks that accept at them. They are bound again when they vanish.

use super::run_dir::{Owned, RunDirError};
use crate::api::{self, Places, router};
use crate::sessions::{self, GuestPlaces, GuestServer};
use crate::state::Balancer;
use protocol::run_dir::RunDir;
use std::sync::Arc;
use tokio::net::UnixListener;
use tokio::task::JoinHandle;

/// Both sockets. Dropped, they are not served any more.
pub(super) struct Sockets {
    owned: Owned,
    run_dir: RunDir,
    balancer: Arc<Balancer>,
    api_places: Arc<Places>,
    guest_places: GuestPlaces,
    accepting: Vec<JoinHandle<()>>,
}

impl Sockets {
    /// Binds them. The API's is bound last: a client that can connect to it finds a complete balancer.
    pub(super) fn bind(
        owned: Owned,
        run_dir: RunDir,
        balancer: Arc<Balancer>,
        (api_places, guest_places): (usize, usize),
    ) -> Result<Self, RunDirError> {
        let (api_places, guest_places) = (Places::new(api_places), GuestPlaces::new(guest_places));
        let mut sockets = Self { owned, run_dir, balancer, api_places, guest_places, accepting: vec![] };
        sockets.accept()?;
        Ok(sockets)
    }

    fn accept(&mut self) -> Result<(), RunDirError> {
        self.accepting.drain(..).for_each(|task| task.abort());
        let guests = self.owned.bind(self.run_dir.guest_socket(), GuestServer::bind)?;
        let clients = self.owned.bind(self.run_dir.api_socket(), |path| UnixListener::bind(path))?;
        let serve = sessions::serve(guests, Arc::clone(&self.balancer), self.guest_places.clone());
        self.accepting.push(tokio::spawn(serve));
        let router = router(Arc::clone(&self.balancer));
        self.accepting.push(tokio::spawn(api::serve(clients, router, Arc::clone(&self.api_places))));
        Ok(())
    }

    /// Makes sure that clients and guests can find them. Connections that are there already stay.
    ///
    /// # Errors
    /// When the run directory is not this balancer's any more.
    pub(super) fn keep(&mut self) -> Result<(), RunDirError> {
        if self.owned.check()? {
            let dir = self.run_dir.dir().display();
            tracing::warn!(%dir, "the sockets were removed or replaced: binding them again");
            self.accept()?;
        }
        Ok(())
    }
}

impl Drop for Sockets {
    fn drop(&mut self) {
        self.accepting.drain(..).for_each(|task| task.abort());
        self.owned.clear();
    }
}
