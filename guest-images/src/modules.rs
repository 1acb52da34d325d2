//! Which kernel modules a guest loads, in an order in which each finds what it needs.
//!
//! `modules.dep` is made when a kernel is *installed*; packages lack it. The same facts are in each
//! module's `.modinfo` section, where `depmod` takes its own from.

use std::collections::{BTreeMap, BTreeSet};

use object::{Object, ObjectSection};

use crate::error::{Error, Result};

/// What `.modinfo` and `modules.builtin` say: names with underscores, as the kernel prints them.
#[derive(Debug, Default)]
pub(crate) struct ModuleTree {
    /// Each loadable module's direct needs.
    needs: BTreeMap<String, Vec<String>>,
    builtin: BTreeSet<String>,
}

impl ModuleTree {
    /// Adds a module's file and returns what it needs directly.
    pub fn add(&mut self, name: &str, elf: &[u8]) -> Result<&[String]> {
        let needs = needs(name, elf)?;
        let entry = self.needs.entry(name.into()).or_default();
        *entry = needs;
        Ok(entry)
    }

    /// Reads `modules.builtin`: one path a line.
    pub fn add_builtin(&mut self, list: &str) {
        self.builtin.extend(list.lines().filter_map(module_name));
    }

    /// `wanted` and everything they need, each after its needs. What is built in is left out.
    pub fn load_order(&self, wanted: &[&str]) -> Result<Vec<String>> {
        let mut order = Vec::new();
        for name in wanted {
            self.visit(name, &mut order, &mut Vec::new())?;
        }
        Ok(order)
    }

    fn visit(&self, name: &str, order: &mut Vec<String>, path: &mut Vec<String>) -> Result<()> {
        if order.iter().any(|done| done == name) || self.builtin.contains(name) {
            return Ok(());
        }
        let problem = |text: String| Error::Module { module: name.into(), problem: text };
        if path.iter().any(|above| above == name) {
            return Err(problem(format!("needs itself: {}", path.join(", "))));
        }
        let needs = self.needs.get(name).ok_or_else(|| {
            let by = path.last().map(|above| format!(", needed by {above}")).unwrap_or_default();
            problem(format!("neither built in nor in the package{by}"))
        })?;
        path.push(name.into());
        for need in needs {
            self.visit(need, order, path)?;
        }
        path.pop();
        order.push(name.into());
        Ok(())
    }
}

/// `kernel/drivers/virtio/virtio-rng.ko.xz` is the module `virtio_rng`.
pub(crate) fn module_name(path: &str) -> Option<String> {
    let file = path.rsplit('/').next()?;
    let stem = file.strip_suffix(".ko").or_else(|| file.strip_suffix(".ko.xz"))?;
    Some(stem.replace('-', "_"))
}

/// The `depends=` entry of a module; entries of `.modinfo` are NUL-terminated `key=value` strings.
fn needs(name: &str, elf: &[u8]) -> Result<Vec<String>> {
    let problem = |text: String| Error::Module { module: name.into(), problem: text };
    let file = object::File::parse(elf).map_err(|error| problem(format!("unreadable: {error}")))?;
    let section = file.section_by_name(".modinfo").ok_or_else(|| problem("no .modinfo section".into()))?;
    let data = section.data().map_err(|error| problem(format!("unreadable .modinfo: {error}")))?;
    let depends = data.split(|byte| *byte == 0).find_map(|entry| entry.strip_prefix(b"depends="));
    let depends = String::from_utf8_lossy(depends.unwrap_or_default()).into_owned();
    Ok(depends.split(',').filter(|need| !need.is_empty()).map(|need| need.replace('-', "_")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(needs: &[(&str, &[&str])], builtin: &str) -> ModuleTree {
        let mut tree = ModuleTree::default();
        for (name, list) in needs {
            tree.needs.insert(name.to_string(), list.iter().map(|need| need.to_string()).collect());
        }
        tree.add_builtin(builtin);
        tree
    }

    #[test]
    fn each_module_comes_after_what_it_needs_and_once() {
        let tree = tree(
            &[("balloon", &["virtio", "ring"]), ("virtio", &["ring"]), ("ring", &[]), ("blk", &["virtio"])],
            "",
        );
        assert_eq!(tree.load_order(&["balloon", "blk"]).unwrap(), ["ring", "virtio", "balloon", "blk"]);
    }

    #[test]
    fn what_is_built_in_is_not_loaded() {
        let tree = tree(
            &[("virtio_rng", &["virtio", "rng_core"])],
            "kernel/drivers/virtio/virtio.ko\nkernel/x/rng-core.ko\n",
        );
        assert_eq!(tree.load_order(&["virtio_rng", "virtio"]).unwrap(), ["virtio_rng"]);
    }

    #[test]
    fn missing_modules_and_loops_are_errors() {
        let tree = tree(&[("a", &["b"]), ("b", &["a"]), ("c", &["d"])], "");
        assert!(tree.load_order(&["a"]).unwrap_err().to_string().contains("needs itself: a, b"));
        let missing = tree.load_order(&["c"]).unwrap_err().to_string();
        assert!(missing.contains("module d") && missing.contains("needed by c"), "{missing}");
    }

    #[test]
    fn names_are_those_the_kernel_prints() {
        assert_eq!(module_name("kernel/arch/x86/kvm/kvm-amd.ko.xz").as_deref(), Some("kvm_amd"));
        assert_eq!(module_name("modules.order"), None);
    }

    #[test]
    fn a_file_that_is_no_module_is_an_error() {
        assert!(needs("x", b"\x7fELF nonsense").unwrap_err().to_string().contains("module x: unreadable"));
    }
}
