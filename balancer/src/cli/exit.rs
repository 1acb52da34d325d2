//! Exit codes.

use crate::client::ClientError;
use crate::daemon::RunDirError;
use crate::journal::JournalError;

/// The balancer refused, or another error occurred.
pub(super) const REFUSED: u8 = 1;
/// The command line is wrong (clap's own code).
pub(super) const USAGE: u8 = 2;
/// No balancer is running.
pub(super) const UNREACHABLE: u8 = 3;
/// Another balancer uses the run directory, or the journal is of another version.
pub(super) const TAKEN: u8 = 4;

/// A command line that is well-formed and makes no sense.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Usage(pub String);

/// The code of an error.
pub(super) fn code(error: &anyhow::Error) -> u8 {
    if error.is::<Usage>() {
        return USAGE;
    }
    if let Some(ClientError::Unreachable { .. }) = error.downcast_ref() {
        return UNREACHABLE;
    }
    let taken = matches!(error.downcast_ref(), Some(RunDirError::Taken { .. }));
    let newer = matches!(error.downcast_ref(), Some(JournalError::Version { .. }));
    if taken || newer { TAKEN } else { REFUSED }
}
