//! The commands and events that are used, as QEMU's schema has them (docs/interop/qemu-qmp-ref). All are in QEMU 7.2
//! and newer.

use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// A command: its arguments are its fields.
pub trait Command: Serialize {
    /// As the schema names it.
    const NAME: &'static str;
    /// What it answers.
    type Return: DeserializeOwned;
}

macro_rules! commands {
    ($(
        $(#[$doc:meta])*
        $name:ident = $text:literal { $($(#[$field_doc:meta])* $field:ident: $type:ty),* } -> $return:ty;
    )*) => {
        $(
            $(#[$doc])*
            #[derive(Debug, Clone, PartialEq, Eq, Serialize)]
            #[serde(rename_all = "kebab-case")]
            pub struct $name { $($(#[$field_doc])* pub $field: $type),* }

            impl Command for $name {
                const NAME: &'static str = $text;
                type Return = $return;
            }
        )*
    };
}

commands! {
    /// Ends the negotiation: before it QEMU takes no other command.
    Capabilities = "qmp_capabilities" {} -> IgnoredAny;
    /// Resumes the machine.
    Cont = "cont" {} -> IgnoredAny;
    /// Pauses the machine.
    Stop = "stop" {} -> IgnoredAny;
    /// Whether it runs.
    QueryStatus = "query-status" {} -> RunStatus;
    /// RAM less the balloon.
    QueryBalloon = "query-balloon" {} -> BalloonInfo;
    /// Asks the guest to hold no more than this.
    Balloon = "balloon" {
        /// Bytes.
        value: u64
    } -> IgnoredAny;
    /// RAM of the machine.
    QueryMemorySize = "query-memory-size-summary" {} -> MemorySize;
    /// Devices in its slots for memory.
    QueryMemoryDevices = "query-memory-devices" {} -> Vec<MemoryDevice>;
    /// Virtual CPUs.
    QueryCpus = "query-cpus-fast" {} -> Vec<IgnoredAny>;
    /// Bytes that block devices moved.
    QueryBlockStats = "query-blockstats" {} -> Vec<BlockStats>;
    /// A property of an object.
    GetProperty = "qom-get" {
        /// The object.
        path: String,
        /// The property.
        property: &'static str
    } -> Value;
    /// Changes a property of an object.
    SetProperty = "qom-set" {
        /// The object.
        path: String,
        /// The property.
        property: &'static str,
        /// Its value.
        value: Value
    } -> IgnoredAny;
    /// Properties and children of an object.
    ListObject = "qom-list" {
        /// The object.
        path: String
    } -> Vec<Property>;
    /// A command of the human monitor: text in, text out.
    HumanCommand = "human-monitor-command" {
        /// The line.
        command_line: String
    } -> String;
}

/// Answer of [`QueryStatus`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct RunStatus {
    /// False for a paused machine, whatever the reason.
    pub running: bool,
}

/// Answer of [`QueryBalloon`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct BalloonInfo {
    /// RAM less what is in the balloon as the guest says, bytes.
    pub actual: u64,
}

/// Answer of [`QueryMemorySize`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct MemorySize {
    /// RAM that the machine started with, bytes.
    pub base_memory: u64,
}

/// Part of the answer of [`QueryMemoryDevices`].
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct MemoryDevice {
    /// `dimm`, `nvdimm`, `virtio-pmem`, `virtio-mem`, ...
    #[serde(rename = "type")]
    pub kind: String,
    /// Its data, which depend on the kind.
    pub data: MemoryDeviceData,
}

/// Data of the kinds of memory devices that matter here.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct MemoryDeviceData {
    /// Its id.
    pub id: Option<String>,
    /// Where it is in guest memory, of virtio devices.
    pub memaddr: Option<u64>,
}

/// Part of the answer of [`QueryBlockStats`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct BlockStats {
    /// Counters of the device.
    pub stats: MovedBytes,
}

/// Bytes that a block device moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[allow(missing_docs, reason = "the names are the schema's")]
pub struct MovedBytes {
    pub rd_bytes: u64,
    pub wr_bytes: u64,
}

/// Part of the answer of [`ListObject`].
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Property {
    /// Its name.
    pub name: String,
    /// `child<TYPE>` for an object.
    #[serde(rename = "type")]
    pub kind: String,
}

/// The property `guest-stats` of a balloon (docs/virtio-balloon-stats.txt).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct GuestStats {
    /// By name; a figure that the guest does not report is -1, as an unsigned number.
    pub stats: BTreeMap<String, u64>,
    /// When QEMU got them, seconds since the epoch; 0 for never.
    pub last_update: u64,
}

/// An event of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The balloon moved; RAM less the balloon, bytes. At most one a second.
    BalloonChange {
        /// Bytes.
        actual: u64,
    },
    /// The machine ends because of `guest-shutdown`, `guest-reset`, `guest-panic`, `host-signal`, ...
    Shutdown {
        /// As the schema names it.
        reason: String,
    },
}

/// Anything that QEMU sends.
#[derive(Debug, Deserialize)]
pub(super) struct Message {
    #[serde(rename = "QMP")]
    pub greeting: Option<IgnoredAny>,
    #[serde(rename = "return")]
    pub returned: Option<Value>,
    pub error: Option<Refusal>,
    pub id: Option<u64>,
    pub event: Option<String>,
    #[serde(default)]
    pub data: Value,
}

/// An error that QEMU answers.
#[derive(Debug, Deserialize)]
pub(super) struct Refusal {
    pub class: String,
    pub desc: String,
}

impl Message {
    /// The event, if it is one that matters here.
    pub fn known_event(&self) -> Option<Event> {
        match self.event.as_deref()? {
            "BALLOON_CHANGE" => Some(Event::BalloonChange { actual: self.data.get("actual")?.as_u64()? }),
            "SHUTDOWN" => Some(Event::Shutdown {
                reason: self.data.get("reason").and_then(Value::as_str).unwrap_or("unknown").into(),
            }),
            _ => None,
        }
    }
}
