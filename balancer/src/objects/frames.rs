//! Frame tables in figures.

use protocol::frames::{State, Totals};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::{IntoParams, ToSchema};

/// The frame table of a guest in figures.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct FramesObject {
    /// The guest.
    pub guest: String,
    /// True if the states account for every frame exactly once.
    pub tiles: bool,
    /// Frames by state.
    pub totals: Totals,
    /// Why it is unknown which frames of its RAM the host holds; `null` where each frame can be scanned.
    pub ram_unseen: Option<String>,
    /// Where the figures come from, each with its error.
    pub sources: Vec<SourceObject>,
    /// The same figures, counted from the summaries of 2 MiB blocks; with `blocks=true`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_blocks: Option<Totals>,
    /// The same figures, counted frame by frame; with `audit=true`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_entries: Option<Totals>,
    /// Private frames by owner id; with `audit=true`.
    #[schema(value_type = Option<BTreeMap<String, u64>>)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub private_by_owner: Option<BTreeMap<u16, u64>>,
}

/// How frames of some states are known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SourceObject {
    /// The states.
    pub states: Vec<State>,
    /// True for frames that are only known to have no host memory (`unknown`).
    pub unknown: bool,
    /// Where the figure comes from.
    pub source: FrameSource,
    /// How many frames.
    pub frames: u64,
    /// By how many frames the figure may be wrong.
    pub error_frames_max: u64,
}

/// Where the number of frames in a state comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FrameSource {
    /// The `vmm`, which made the change itself.
    Vmm,
    /// The kernel's pagemap.
    #[serde(rename = "page_map")]
    Pagemap,
    /// The guest, through QEMU.
    Guest,
}

/// How a frame table is read.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct FramesQuery {
    /// Compare the table with the kernel first, unless the last comparison is at most this old, milliseconds.
    pub max_age_ms: Option<u64>,
    /// Also count from the summaries of 2 MiB blocks.
    #[serde(default)]
    pub blocks: bool,
    /// Also count frame by frame, and by owner.
    #[serde(default)]
    pub audit: bool,
}
