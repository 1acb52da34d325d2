//! The journal: every container with its limits, every binding and the knobs, on disk before a change is answered.
//!
//! One file of an embedded, crash-safe store (redb): a commit is atomic and synced. A balancer that is killed at any
//! moment finds the last answered change when it comes back.

use crate::pool::{Bindings, Subject};
use crate::tree::{Node, Tree, TreeError};
use policy::Knobs;
use protocol::path::ContainerPath;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
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
/// Facts about the journal itself: `version`.
const ABOUT: TableDefinition<'_, &str, u64> = TableDefinition::new("about");

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
}

impl Journal {
    /// Opens the journal, makes it where there is none, and reads the tree and the bindings in it.
    ///
    /// # Errors
    /// When it cannot be read or written, or is of a newer version.
    pub fn open(path: &Path) -> Result<(Self, Tree, Bindings), JournalError> {
        let mut journal = Self { path: path.into(), store: None, knobs: None };
        let store = open(path).map_err(|error| journal.failed("open", error))?;
        let (tree, bindings, knobs) = journal.load(&store)?;
        journal.knobs = knobs;
        journal.store = Some(store);
        Ok((journal, tree, bindings))
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

    fn write(
        &mut self,
        change: impl FnOnce(&Database) -> Result<(), redb::Error>,
    ) -> Result<(), JournalError> {
        let store = match self.store.take() {
            Some(store) => store,
            None => open(&self.path).map_err(|error| self.failed("open", error))?,
        };
        change(&store).map_err(|error| self.failed("write", error))?;
        self.store = Some(store);
        Ok(())
    }

    fn load(&self, store: &Database) -> Result<(Tree, Bindings, Option<Knobs>), JournalError> {
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
        let knobs =
            records.knobs.map(|value| serde_json::from_slice(&value)).transpose().map_err(malformed)?;
        Ok((Tree::from_nodes(nodes)?, bindings, knobs))
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
}

fn open(path: &Path) -> Result<Database, redb::Error> {
    let store = Database::create(path)?;
    let transaction = store.begin_write()?;
    {
        let mut about = transaction.open_table(ABOUT)?;
        let fresh = about.get("version")?.is_none();
        if fresh {
            about.insert("version", JOURNAL_VERSION)?;
        }
        transaction.open_table(CONTAINERS)?;
        transaction.open_table(BINDINGS)?;
        transaction.open_table(POLICY)?;
    }
    transaction.commit()?;
    Ok(store)
}

fn read(store: &Database) -> Result<Records, redb::Error> {
    let transaction = store.begin_read()?;
    let version = transaction.open_table(ABOUT)?.get("version")?.map_or(0, |version| version.value());
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
    Ok(Records { version, containers, bindings, knobs })
}

fn write(store: &Database, before: &Tree, after: &Tree) -> Result<(), redb::Error> {
    let transaction = store.begin_write()?;
    {
        transaction.open_table(ABOUT)?.insert("version", JOURNAL_VERSION)?;
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
        transaction.open_table(ABOUT)?.insert("version", JOURNAL_VERSION)?;
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
        transaction.open_table(ABOUT)?.insert("version", JOURNAL_VERSION)?;
        let record = serde_json::to_vec(knobs).expect("knobs are plain fields");
        transaction.open_table(POLICY)?.insert(KNOBS, record.as_slice())?;
    }
    transaction.commit()?;
    Ok(())
}

#[cfg(test)]
#[path = "journal_test.rs"]
mod tests;
