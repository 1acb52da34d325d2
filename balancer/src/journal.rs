//! The journal: every container with its limits, every binding and the knobs, on disk before a change is answered.
//!
//! One file of an embedded, crash-safe store (redb): a commit is atomic and synced. A balancer that is killed at any
//! moment finds the last answered change when it comes back.

use crate::pool::{Bindings, Subject};
use crate::tree::{Node, Tree, TreeError};
use policy::Knobs;
use protocol::path::ContainerPath;
use redb::{Database, ReadOnlyDatabase, ReadableDatabase, ReadableTable, TableDefinition, TableError};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Version of the records below. A newer journal is refused, never half-understood; an older one is read, what it
/// does not say is as if it were not set, and it becomes one of this version with the first change. 1: limits of
/// memory. 2: limits on objects as well. 3: trust domains and bindings. 4: knobs of the policy.
pub const JOURNAL_VERSION: u64 = 4;

/// Path -> [`Node`] as JSON.
const CONTAINERS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("containers");
/// [`Subject`] -> path of the container that pays for it.
const BINDINGS: TableDefinition<'_, &str, &str> = TableDefinition::new("bindings");
/// `knobs` -> [`Knobs`] as JSON, once a client changed one.
const POLICY: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("policy");
/// The one key of that table.
const KNOBS: &str = "knobs";
/// Facts about the journal itself: [`VERSION`], [`EVENTS`].
const ABOUT: TableDefinition<'_, &str, u64> = TableDefinition::new("about");
/// Key of [`JOURNAL_VERSION`].
const VERSION: &str = "version";
/// Key of the number that no event has exceeded: the next balancer counts on from there.
const EVENTS: &str = "events";
/// The first bytes of a file of the store (redb's design document).
const MAGIC: &[u8] = b"redb\x1a\x0a\xa9\x0d\x0a";

/// Why the journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The store refused: no such folder, no space, a damaged file.
    #[error("Cannot {doing} the journal {path}")]
    Store {
        /// What was tried.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What the store says.
        #[source]
        source: Box<redb::Error>,
    },
    /// A file that is there and was not written by a balancer. It may be what is left of a journal, so it is not
    /// overwritten.
    #[error(
        "{path} is not a journal: {what}. Its limits are lost if it was one: bring back a copy, or move the file away \
         to start without limits"
    )]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// Written by a newer balancer.
    #[error(
        "The journal {path} has version {found}, this balancer reads up to {JOURNAL_VERSION}: use the newer balancer, \
         or move the file away"
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// The version found.
        found: u64,
    },
    /// A record that is not a container.
    #[error(
        "The journal {path} holds a malformed record for {key:?}: move the file away to start without it"
    )]
    Record {
        /// The file.
        path: PathBuf,
        /// Key of the record.
        key: String,
    },
    /// More containers than can be.
    #[error(transparent)]
    Tree(#[from] TreeError),
}

/// The open journal.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    /// `None` after an error: the store refuses all work then and has to be opened again, which repairs it.
    store: Option<Database>,
    /// The knobs that it held when it was opened.
    knobs: Option<Knobs>,
    /// The number of the last event, at most, by the journal.
    events: u64,
}

impl Journal {
    /// Opens the journal, makes it where there is none, and reads the tree and the bindings in it.
    ///
    /// # Errors
    /// When it cannot be read or written, is of a newer version, or when the file is not a journal.
    pub fn open(path: &Path) -> Result<(Self, Tree, Bindings), JournalError> {
        let mut journal = Self { path: path.into(), store: None, knobs: None, events: 0 };
        let is_there = path.symlink_metadata().is_ok();
        let store = if is_there { journal.existing()? } else { journal.make()? };
        let (tree, bindings) = journal.load(&store)?;
        journal.store = Some(store);
        Ok((journal, tree, bindings))
    }

    /// A new journal. It has its name once it is complete: a file of that name is never half a journal.
    fn make(&self) -> Result<Database, JournalError> {
        let draft = self.path.with_extension("new");
        let failed = |error: io::Error| self.failed("make", error.into());
        match fs::remove_file(&draft) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let make = || -> Result<Database, redb::Error> {
            let store = Database::create(&draft)?;
            prepare(&store)?;
            Ok(store)
        };
        let store = make().map_err(|error| self.failed("make", error))?;
        fs::rename(&draft, &self.path).map_err(failed)?;
        let folder = self.path.parent().map(|folder| File::open(folder).and_then(|folder| folder.sync_all()));
        folder.unwrap_or(Ok(())).map_err(failed)?;
        Ok(store)
    }

    /// The journal that is there.
    fn existing(&self) -> Result<Database, JournalError> {
        let foreign = |what: &str| JournalError::Foreign { path: self.path.clone(), what: what.into() };
        let read = |error: io::Error| self.failed("read", error.into());
        // Before it is opened: a pipe would make that wait.
        let metadata = fs::metadata(&self.path).map_err(read)?;
        if !metadata.is_file() {
            return Err(foreign("it is not a regular file"));
        }
        if metadata.len() == 0 {
            return Err(foreign("it is empty"));
        }
        let mut begin = Vec::new();
        File::open(&self.path)
            .and_then(|file| file.take(MAGIC.len() as u64).read_to_end(&mut begin))
            .map_err(read)?;
        if begin != MAGIC {
            return Err(foreign("it begins with other bytes"));
        }
        let other = "it is a database of another program";
        // To open a database is to write to it, so it is read first. One that was not closed cannot be read so.
        if let Ok(store) = ReadOnlyDatabase::open(&self.path)
            && !is_journal(&store).map_err(|error| self.failed("read", error))?
        {
            return Err(foreign(other));
        }
        let store = Database::open(&self.path).map_err(|error| self.failed("open", error.into()))?;
        if !is_journal(&store).map_err(|error| self.failed("read", error))? {
            return Err(foreign(other));
        }
        prepare(&store).map_err(|error| self.failed("open", error))?;
        Ok(store)
    }

    /// Writes what differs between two trees, all of it or nothing.
    ///
    /// # Errors
    /// When it cannot be written: the change must then not be made.
    pub fn commit(&mut self, before: &Tree, after: &Tree) -> Result<(), JournalError> {
        self.write(|store| write(store, before, after))
    }

    /// Writes what differs between two sets of bindings, all of it or nothing.
    ///
    /// # Errors
    /// When it cannot be written: the change must then not be made.
    pub fn commit_bindings(&mut self, before: &Bindings, after: &Bindings) -> Result<(), JournalError> {
        self.write(|store| write_bindings(store, before, after))
    }

    /// The knobs that it held when it was opened; `None` if none was ever turned.
    #[must_use]
    pub fn knobs(&self) -> Option<Knobs> {
        self.knobs
    }

    /// Writes the knobs.
    ///
    /// # Errors
    /// When it cannot be written: the change must then not be made.
    pub fn commit_knobs(&mut self, knobs: &Knobs) -> Result<(), JournalError> {
        self.write(|store| write_knobs(store, knobs))
    }

    /// The number that no event of earlier balancers has exceeded.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.events
    }

    /// Writes the number that events will not exceed until the next such call.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn commit_events(&mut self, last: u64) -> Result<(), JournalError> {
        self.write(|store| write_events(store, last))
    }

    fn write(
        &mut self,
        change: impl FnOnce(&Database) -> Result<(), redb::Error>,
    ) -> Result<(), JournalError> {
        let store = match self.store.take() {
            Some(store) => store,
            None => self.existing()?,
        };
        change(&store).map_err(|error| self.failed("write", error))?;
        self.store = Some(store);
        Ok(())
    }

    fn load(&mut self, store: &Database) -> Result<(Tree, Bindings), JournalError> {
        let records = read(store).map_err(|error| self.failed("read", error))?;
        if records.version > JOURNAL_VERSION {
            return Err(JournalError::Version { path: self.path.clone(), found: records.version });
        }
        let mut nodes = Vec::with_capacity(records.containers.len());
        for (key, value) in records.containers {
            let parsed = key.parse::<ContainerPath>().ok().zip(serde_json::from_slice::<Node>(&value).ok());
            nodes.push(parsed.ok_or_else(|| JournalError::Record { path: self.path.clone(), key })?);
        }
        let mut bindings = Bindings::default();
        for (key, value) in records.bindings {
            let parsed = key.parse::<Subject>().ok().zip(value.parse::<ContainerPath>().ok());
            let (subject, container) =
                parsed.ok_or_else(|| JournalError::Record { path: self.path.clone(), key })?;
            bindings.put(subject, container);
        }
        let malformed = |_| JournalError::Record { path: self.path.clone(), key: KNOBS.into() };
        self.knobs =
            records.knobs.map(|value| serde_json::from_slice(&value)).transpose().map_err(malformed)?;
        self.events = records.events;
        Ok((Tree::from_nodes(nodes)?, bindings))
    }

    fn failed(&self, doing: &'static str, error: redb::Error) -> JournalError {
        JournalError::Store { doing, path: self.path.clone(), source: Box::new(error) }
    }
}

struct Records {
    version: u64,
    containers: Vec<(String, Vec<u8>)>,
    bindings: Vec<(String, String)>,
    knobs: Option<Vec<u8>>,
    events: u64,
}

/// False for a database of another program.
fn is_journal(store: &impl ReadableDatabase) -> Result<bool, redb::Error> {
    match store.begin_read()?.open_table(ABOUT) {
        Ok(about) => Ok(about.get(VERSION)?.is_some()),
        Err(TableError::Storage(error)) => Err(error.into()),
        // No such table, or one of another kind.
        Err(_) => Ok(false),
    }
}

/// Makes the tables that are missing.
fn prepare(store: &Database) -> Result<(), redb::Error> {
    let transaction = store.begin_write()?;
    {
        let mut about = transaction.open_table(ABOUT)?;
        let fresh = about.get(VERSION)?.is_none();
        if fresh {
            about.insert(VERSION, JOURNAL_VERSION)?;
        }
        transaction.open_table(CONTAINERS)?;
        transaction.open_table(BINDINGS)?;
        transaction.open_table(POLICY)?;
    }
    transaction.commit()?;
    Ok(())
}

fn read(store: &Database) -> Result<Records, redb::Error> {
    let transaction = store.begin_read()?;
    let about = transaction.open_table(ABOUT)?;
    let fact = |key| about.get(key).map(|value| value.map_or(0, |value| value.value()));
    let (version, events) = (fact(VERSION)?, fact(EVENTS)?);
    let mut containers = Vec::new();
    for record in transaction.open_table(CONTAINERS)?.iter()? {
        let (key, value) = record?;
        containers.push((key.value().to_owned(), value.value().to_owned()));
    }
    let mut bindings = Vec::new();
    for record in transaction.open_table(BINDINGS)?.iter()? {
        let (key, value) = record?;
        bindings.push((key.value().to_owned(), value.value().to_owned()));
    }
    let knobs = transaction.open_table(POLICY)?.get(KNOBS)?.map(|value| value.value().to_owned());
    Ok(Records { version, containers, bindings, knobs, events })
}

fn write(store: &Database, before: &Tree, after: &Tree) -> Result<(), redb::Error> {
    let transaction = store.begin_write()?;
    {
        transaction.open_table(ABOUT)?.insert(VERSION, JOURNAL_VERSION)?;
        let mut table = transaction.open_table(CONTAINERS)?;
        for (path, _) in before.iter().filter(|(path, _)| after.get(path).is_none()) {
            table.remove(path.as_str())?;
        }
        for (path, node) in after.iter().filter(|(path, node)| before.get(path) != Some(node)) {
            let record = serde_json::to_vec(node).expect("a node has only plain fields");
            table.insert(path.as_str(), record.as_slice())?;
        }
    }
    transaction.commit()?;
    Ok(())
}

fn write_bindings(store: &Database, before: &Bindings, after: &Bindings) -> Result<(), redb::Error> {
    let transaction = store.begin_write()?;
    {
        transaction.open_table(ABOUT)?.insert(VERSION, JOURNAL_VERSION)?;
        let mut table = transaction.open_table(BINDINGS)?;
        for (subject, _) in before.iter().filter(|(subject, _)| after.get(subject).is_none()) {
            table.remove(subject.to_string().as_str())?;
        }
        for (subject, container) in
            after.iter().filter(|(subject, container)| before.get(subject) != Some(container))
        {
            table.insert(subject.to_string().as_str(), container.as_str())?;
        }
    }
    transaction.commit()?;
    Ok(())
}

fn write_knobs(store: &Database, knobs: &Knobs) -> Result<(), redb::Error> {
    let transaction = store.begin_write()?;
    {
        transaction.open_table(ABOUT)?.insert(VERSION, JOURNAL_VERSION)?;
        let record = serde_json::to_vec(knobs).expect("knobs are plain fields");
        transaction.open_table(POLICY)?.insert(KNOBS, record.as_slice())?;
    }
    transaction.commit()?;
    Ok(())
}

fn write_events(store: &Database, last: u64) -> Result<(), redb::Error> {
    let transaction = store.begin_write()?;
    transaction.open_table(ABOUT)?.insert(EVENTS, last)?;
    transaction.commit()?;
    Ok(())
}

#[cfg(test)]
#[path = "journal_test.rs"]
mod tests;
