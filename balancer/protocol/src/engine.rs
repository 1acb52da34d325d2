//! The hypervisor of a guest.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use utoipa::ToSchema;

/// The hypervisor of a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase", try_from = "String")]
pub enum Engine {
    /// KVM, used by the `vmm` itself.
    Kvm,
    /// A QEMU, which is a process of its own.
    Qemu,
}

/// A word that is not the name of an engine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("engine is {0:?}, but must be kvm or qemu")]
pub struct UnknownEngine(String);

impl Engine {
    /// Its name on the wire and in the REST API.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Qemu => "qemu",
        }
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Engine {
    type Err = UnknownEngine;
    fn from_str(text: &str) -> Result<Self, UnknownEngine> {
        match text {
            "kvm" => Ok(Self::Kvm),
            "qemu" => Ok(Self::Qemu),
            // The text comes from another process and goes into its answer.
            other => Err(UnknownEngine(other.chars().take(64).collect())),
        }
    }
}

impl TryFrom<String> for Engine {
    type Error = UnknownEngine;
    fn try_from(text: String) -> Result<Self, UnknownEngine> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_is_its_name_on_the_wire_and_another_word_is_refused() {
        for engine in [Engine::Kvm, Engine::Qemu] {
            let text = serde_json::to_string(&engine).unwrap();
            assert_eq!(text, format!("\"{engine}\""));
            assert_eq!(serde_json::from_str::<Engine>(&text).unwrap(), engine);
        }
        let error =
            serde_json::from_str::<Engine>(&format!("{:?}", "x".repeat(9999))).unwrap_err().to_string();
        assert!(error.contains("must be kvm or qemu") && error.len() < 200, "{error}");
    }
}
