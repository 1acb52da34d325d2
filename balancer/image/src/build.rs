//! From a source to images in the store.

use super::check::{Report, check, digest_with};
use super::erofs::Plan;
use super::erofs::format::BLOCK_BYTES;
use super::error::BuildError;
use super::source::{Origin, Source};
use super::sparse;
use super::store::{Draft, Manifest, Store};
use super::tree::{InodeId, Kind, Traversal, Tree};
use super::watch::{Phase, Watch};
use protocol::image::Digest;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Contents are copied in parts of this length.
const STEP_BYTES: usize = 1 << 20;

/// Builds what is at a path into a store: one image, or one per layer of an OCI image, the lowest first, none twice.
/// They enter the store when all of them are complete; if anything fails before, no part of them stays.
///
/// # Errors
/// When the source is refused or changes, when there is no room, or when the build is cancelled.
pub fn build(path: &Path, store: &Store, watch: &mut Watch<'_>) -> Result<Vec<Manifest>, BuildError> {
    if let Ok(folder) = path.canonicalize()
        && folder.is_dir()
        && store.folder().starts_with(&folder)
    {
        return Err(BuildError::StoreInside { store: store.folder().into(), folder });
    }
    let mut finished = Vec::<(Draft, Manifest)>::new();
    watch.begin(Phase::Reading, 0, 0);
    for mut source in super::source::open(path, store.folder(), watch)? {
        let draft = store.draft()?;
        let (digest, report) =
            build_tree(&mut *source, draft.file(), watch).map_err(|error| in_store(error, store.folder()))?;
        let manifest = manifest(digest, report, source.origin());
        // A guest maps an image once. Of two equal layers the upper one has every name that the lower one has.
        finished.retain(|(_, other)| other.digest != digest);
        finished.push((draft, manifest));
    }
    finished.into_iter().map(|(draft, manifest)| Ok(store.adopt(draft, manifest)?)).collect()
}

/// Builds one image into an empty file, and checks it as the store does when it is opened.
///
/// # Errors
/// As [`build`]; the file is not to be used then.
pub fn build_tree(
    source: &mut dyn Source,
    file: &File,
    watch: &mut Watch<'_>,
) -> Result<(Digest, Report), BuildError> {
    watch.begin(Phase::Reading, 0, 0);
    let tree = source.tree(watch)?;
    let traversal = tree.traversal();
    let plan = Plan::new(&tree, &traversal)?;
    let failed = |error| BuildError::write(Path::new(""), plan.bytes, error);
    watch.begin(Phase::Writing, plan.contents.0, plan.contents.1);
    file.set_len(plan.bytes).map_err(failed)?;
    file.write_all_at(&plan.metadata, 0).map_err(failed)?;
    write_contents(source, &tree, &traversal, &plan, file, watch)?;
    file.sync_all().map_err(failed)?;
    watch.begin(Phase::Checking, 0, plan.bytes);
    let digest = digest_with(file, |bytes| watch.step(0, bytes).map_err(Stop::Build));
    let digest = digest.map_err(|stop| match stop {
        Stop::Build(error) => error,
        Stop::Io(error) => failed(error),
    })?;
    Ok((digest, check(file)?))
}

/// Two reasons to stop hashing.
enum Stop {
    Build(BuildError),
    Io(io::Error),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

fn write_contents(
    source: &mut dyn Source,
    tree: &Tree,
    traversal: &Traversal<'_>,
    plan: &Plan,
    file: &File,
    watch: &mut Watch<'_>,
) -> Result<(), BuildError> {
    let mut missing: Vec<bool> = vec![false; tree.len()];
    for id in &traversal.inodes {
        missing[id.index()] = matches!(tree.get(*id).kind, Kind::Regular(_));
    }
    let mut buffer = vec![0; STEP_BYTES];
    source.contents(tree, traversal, &mut |id, contents| {
        missing[id.index()] = false;
        copy(id, contents, tree, traversal, plan, file, &mut buffer, watch)
    })?;
    match traversal.inodes.iter().find(|id| missing[id.index()]) {
        Some(id) => Err(BuildError::Changed { path: traversal.shown(*id), what: "it is gone".into() }),
        None => Ok(()),
    }
}

#[allow(clippy::too_many_arguments, reason = "one loop, whose state is its caller's")]
fn copy(
    id: InodeId,
    contents: &mut dyn Read,
    tree: &Tree,
    traversal: &Traversal<'_>,
    plan: &Plan,
    file: &File,
    buffer: &mut [u8],
    watch: &mut Watch<'_>,
) -> Result<(), BuildError> {
    let (Kind::Regular(bytes), Some(place)) = (&tree.get(id).kind, plan.place(id)) else { return Ok(()) };
    let begin = u64::from(place.block) * BLOCK_BYTES;
    let read = |source| BuildError::Read { path: traversal.shown(id), source };
    let mut done = 0;
    while done < *bytes {
        let bound = (*bytes - done).min(buffer.len() as u64) as usize;
        let chunk = &mut buffer[..bound];
        contents.read_exact(chunk).map_err(read)?;
        // A hole is as good as zeros, and takes no room.
        sparse::write_at(file, chunk, begin + done)
            .map_err(|error| BuildError::write(Path::new(""), plan.bytes, error))?;
        done += bound as u64;
        watch.step(0, bound as u64)?;
    }
    let what = format!("it has more than {bytes} bytes");
    match contents.read(&mut buffer[..1]).map_err(read)? {
        0 => watch.step(1, 0),
        _ => Err(BuildError::Changed { path: traversal.shown(id), what }),
    }
}

/// Failures to write name the store, which the writer does not know.
fn in_store(error: BuildError, folder: &Path) -> BuildError {
    let folder = folder.into();
    match error {
        BuildError::Full { bytes, source, .. } => BuildError::Full { folder, bytes, source },
        BuildError::Write { source, .. } => BuildError::Write { folder, source },
        other => other,
    }
}

fn manifest(digest: Digest, report: Report, origin: Origin) -> Manifest {
    Manifest {
        digest,
        bytes: report.bytes,
        origin: origin.name,
        layer: origin.layer,
        files: report.files,
        folders: report.folders,
        others: report.others,
        content_bytes: report.content_bytes,
    }
}
