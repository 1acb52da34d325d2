//! What the balloon does to guest memory: the VMM's part.

/// Frames of 4 KiB that follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FrameRun {
    /// The first frame: guest physical address / 4096.
    pub first: u64,
    /// How many frames, at least 1.
    pub count: u64,
}

/// What a call to the backend came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Frames that changed their state.
    pub changed_frames: u64,
    /// Frames that were in that state already.
    pub repeated_frames: u64,
    /// Bytes that the host really got back.
    pub freed_bytes: u64,
}

/// Guest RAM and its frame table. Runs are sorted, disjoint and inside RAM.
///
/// Each call is finished when it returns: the driver gets its answer at once, and acts on it.
pub trait BalloonBackend: Send {
    /// Whether all of `run` is guest RAM that may be ballooned.
    fn is_ram(&self, run: FrameRun) -> bool;
    /// Gives host memory back; the frames are ballooned now.
    fn inflate(&mut self, runs: &[FrameRun]) -> Outcome;
    /// The frames may be used again.
    fn deflate(&mut self, runs: &[FrameRun]) -> Outcome;
    /// Gives host memory of free pages back; the guest may use them at any time.
    fn report(&mut self, runs: &[FrameRun]) -> Outcome;
    /// The driver was reset and has forgotten its balloon: every ballooned frame may be used again.
    /// `changed_frames` are those that left the balloon by that.
    fn driver_reset(&mut self) -> Outcome;
    /// Frames that are in the balloon now. Fewer than the driver gave, if the guest used some of them nevertheless.
    fn ballooned_frames(&self) -> u64;
}
