//! What went through the balloon.

/// Counts since the device was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BalloonCounters {
    /// Frames that went into the balloon.
    pub inflated_frames: u64,
    /// Frames that came out of it.
    pub deflated_frames: u64,
    /// Frames given back by free page reporting.
    pub reported_frames: u64,
    /// Frames inflated, deflated or reported that were in that state already, or named twice at once.
    pub repeated_frames: u64,
    /// Bytes that the host got back by inflation and reports.
    pub freed_bytes: u64,
    /// Calls to the backend.
    pub batches: u64,
    /// Runs handed to the backend.
    pub runs: u64,
    /// Frame numbers that are not guest RAM.
    pub refused_pfns: u64,
    /// Reported blocks that are not guest RAM.
    pub refused_reports: u64,
    /// Chains that are malformed, of the wrong direction, too long, or end within a frame number.
    pub bad_chains: u64,
    /// Statistics with a tag that is not known.
    pub unknown_stats: u64,
    /// Statistics buffers that the device had not asked for.
    pub unasked_stats: u64,
    /// Events that were not fetched in time.
    pub dropped_events: u64,
}
