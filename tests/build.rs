//! Builds the bare-metal guest with the compiler that builds everything else: no other target is needed.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../guest-images/baremetal");
    let elf = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it")).join("baremetal.elf");
    println!("cargo::rerun-if-changed={}", source.display());
    println!("cargo::rustc-env=BALLAST_BAREMETAL={}", elf.display());
    let script = format!("-Clink-arg=-T{}", source.join("link.ld").display());
    let status = Command::new(env::var_os("RUSTC").expect("cargo sets it"))
        .args(["--edition", "2024", "--target", "x86_64-unknown-linux-gnu", "-Copt-level=2", "-Cpanic=abort"])
        .args([
            "-Cno-vectorize-slp",
            "-Cno-vectorize-loops",
            "-Crelocation-model=static",
            "-Ctarget-feature=-crt-static",
            "-Clink-arg=-nostartfiles",
        ])
        .args([
            "-Clink-arg=-nostdlib",
            "-Clink-arg=-static",
            "-Clink-arg=-no-pie",
            "-Clink-arg=-Wl,--build-id=none",
        ])
        .arg(script)
        .arg("-o")
        .arg(&elf)
        .arg(source.join("main.rs"))
        .status()
        .expect("rustc runs");
    assert!(status.success(), "the bare-metal guest does not build");
}
