//! The one table of limits. From a row come the limit's field, its change, its key in an option string, its flag of
//! `balancer set`, its check, its text, and for a limit on objects the kind that is counted.
//!
//! To add a limit is to add a row; a limit on objects also needs the line that counts them, which the compiler asks
//! for.

use super::LimitsError;
use super::objects::Changes;
use super::unit::{Amount, Bound, Count, DomainName, Unit, Value, ValueError, Weight};
use crate::domain::Domain;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

/// A limit as option strings, flags and texts need it.
#[derive(Debug)]
pub struct Row {
    /// Its name in JSON: `max_bytes`.
    pub field: &'static str,
    /// Its name in an option string and as a flag: `max`.
    pub key: &'static str,
    /// What its value is: `BYTES`.
    pub value_name: &'static str,
    /// What it does, for the help of a flag.
    pub help: &'static str,
    /// The least and the most of its values that are numbers.
    pub range: Option<(u64, u64)>,
    /// False for a limit that is set for a container alone, never together with a guest.
    pub is_option: bool,
    read: fn(&mut LimitsPatch, &str) -> Result<bool, ValueError>,
    broken: fn(&Limits) -> Option<LimitsError>,
    text: fn(&Limits) -> Option<String>,
    is_set: fn(&Limits) -> bool,
}

impl Row {
    /// Reads a value into a change. True if the change had one already.
    ///
    /// # Errors
    /// When the text is not a value of this limit.
    pub fn read(&self, patch: &mut LimitsPatch, text: &str) -> Result<bool, ValueError> {
        (self.read)(patch, text)
    }

    /// The bound that the value breaks, judged by the limits of this container alone.
    #[must_use]
    pub fn broken(&self, limits: &Limits) -> Option<LimitsError> {
        (self.broken)(limits)
    }

    /// The value as text: `512M`, `none`. `None` for a limit that is only shown where it is set.
    #[must_use]
    pub fn text(&self, limits: &Limits) -> Option<String> {
        (self.text)(limits)
    }

    /// True if the value is not the default.
    #[must_use]
    pub fn is_set(&self, limits: &Limits) -> bool {
        (self.is_set)(limits)
    }
}

/// Reads a field of a change that is there: `null` stands for the value of a limit that is not set (RFC 7396, JSON
/// Merge Patch).
fn value_or_null<'de, T: Value + Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    Option::deserialize(deserializer).map(|value| Some(value.unwrap_or_else(T::not_set)))
}

fn newer<T: Clone>(change: Option<&T>, value: &T) -> T {
    change.unwrap_or(value).clone()
}

macro_rules! limits {
    ($(
        $(#[doc = $doc:literal])+
        $field:ident: $type:ty, $unit:ident, $key:literal, $help:literal
        $(, counts $kind:ident $count:ident ($when:ident): $what:literal)?;
    )+) => {
        /// What a container may use, and what is protected for it.
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
        #[serde(deny_unknown_fields, default)]
        pub struct Limits {
            $( $(#[doc = $doc])+ pub $field: $type, )+
        }

        impl Default for Limits {
            fn default() -> Self {
                Self { $( $field: Value::not_set(), )+ }
            }
        }

        /// A change of limits: a field that is absent stays as it is, `null` removes a limit.
        #[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
        #[serde(deny_unknown_fields)]
        pub struct LimitsPatch {
            $(
                $(#[doc = $doc])+
                #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "value_or_null")]
                pub $field: Option<$type>,
            )+
        }

        impl Limits {
            /// These limits with a change applied.
            #[must_use]
            pub fn patched(&self, patch: &LimitsPatch) -> Self {
                Self { $( $field: newer(patch.$field.as_ref(), &self.$field), )+ }
            }

            /// The most objects of a kind; `None` for no limit.
            #[must_use]
            pub fn max_of(&self, kind: ObjectKind) -> Option<u32> {
                match kind { $($( ObjectKind::$kind => self.$field, )?)+ }
            }
        }

        /// All limits, in the order in which they are listed.
        pub const TABLE: &[Row] = &[$(
            Row {
                field: stringify!($field),
                key: $key,
                value_name: $unit::VALUE_NAME,
                help: $help,
                range: $unit::RANGE,
                is_option: $unit::IS_OPTION,
                read: |patch, text| Ok(patch.$field.replace($unit::read(text)?).is_some()),
                broken: |limits| $unit::broken(stringify!($field), &limits.$field, limits),
                text: |limits| $unit::text(&limits.$field),
                is_set: |limits| limits.$field != <$type as Value>::not_set(),
            },
        )+];

        /// A kind of objects of the host's kernel that is counted.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum ObjectKind {
            $($( #[doc = $what] $kind, )?)+
        }

        impl ObjectKind {
            /// All of them, in the order of their declaration.
            pub const ALL: [Self; [$($( $what, )?)+].len()] = [$($( Self::$kind, )?)+];

            /// Its name in JSON: `vcpus`.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $($( Self::$kind => stringify!($count), )?)+ }
            }

            /// The limit as JSON names it: `max_vcpus`.
            #[must_use]
            pub fn field(self) -> &'static str {
                match self { $($( Self::$kind => stringify!($field), )?)+ }
            }

            /// The limit as an option string names it: `max-vcpus`.
            #[must_use]
            pub fn key(self) -> &'static str {
                match self { $($( Self::$kind => $key, )?)+ }
            }

            /// When the number of such objects changes.
            #[must_use]
            pub fn changes(self) -> Changes {
                match self { $($( Self::$kind => Changes::$when, )?)+ }
            }
        }

        /// A value for each kind of objects.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
        pub struct PerObjectKind<T> {
            $($( #[doc = $what] pub $count: T, )?)+
        }

        impl<T> PerObjectKind<T> {
            /// What `of` returns for each kind.
            pub fn from_fn(mut of: impl FnMut(ObjectKind) -> T) -> Self {
                Self { $($( $count: of(ObjectKind::$kind), )?)+ }
            }

            /// The one of a kind.
            #[must_use]
            pub fn get(&self, kind: ObjectKind) -> &T {
                match kind { $($( ObjectKind::$kind => &self.$count, )?)+ }
            }
        }
    };
}

limits! {
    /// Never exceeded. Bytes; `null` for no limit.
    max_bytes: Option<u64>, Bound, "max", "Never exceeded: 512M, 1.5G, or none";
    /// Reclaimed at once above this. Bytes; `null` for no limit.
    high_bytes: Option<u64>, Bound, "high", "Reclaimed at once above this: 512M, 1.5G, or none";
    /// Reclaimed below this only when nothing else is left. Bytes.
    low_bytes: u64, Amount, "low", "Reclaimed below this only when nothing else is left";
    /// Never reclaimed below this. Bytes.
    min_bytes: u64, Amount, "min", "Never reclaimed below this";
    /// Share among siblings of memory that is contended, 1 to 10000; 100 unless set.
    weight: u32, Weight, "weight", "Share among siblings of memory that is contended, 1 to 10000";
    /// Most virtual CPUs of the guests inside; `null` for no limit.
    max_vcpus: Option<u32>, Count, "max-vcpus", "Most virtual CPUs of the guests inside, or none",
        counts Vcpus vcpus (AtLaunch): "Virtual CPUs.";
    /// Most guests inside; `null` for no limit.
    max_guests: Option<u32>, Count, "max-guests", "Most guests inside, or none",
        counts Guests guests (AtLaunch): "Guests.";
    /// Most virtio devices of the guests inside; `null` for no limit.
    max_devices: Option<u32>, Count, "max-devices", "Most virtio devices of the guests inside, or none",
        counts Devices devices (AtLaunch): "Virtio devices, as the `vmm` processes report them.";
    /// Most open file descriptors of the `vmm` processes of the guests inside; `null` for no limit.
    max_fds: Option<u32>, Count, "max-fds",
        "Most open file descriptors of the vmm processes of the guests inside, or none",
        counts Fds fds (AtAnyTime): "Open file descriptors of the `vmm` processes.";
    /// Most threads of the `vmm` processes of the guests inside; `null` for no limit.
    max_threads: Option<u32>, Count, "max-threads", "Most threads of the vmm processes of the guests inside, or none",
        counts Threads threads (AtAnyTime): "Threads of the `vmm` processes.";
    /// Trust domain of the guests inside: pages of images are shared only inside one domain. `null` for the domain of
    /// the container above; a container in the root is a domain of its own.
    domain: Option<Domain>, DomainName, "domain",
        "Trust domain of the guests inside: pages of images are shared only inside one domain; \
         none for that of the container above";
}
