//! Builds the guests' program and hands it to the crate, so that an initramfs always carries the program
//! that the host's side was built with, wherever the host's side runs.
//!
//! A build of its own, since cargo cannot yet depend on another package's binary.

use std::env;
use std::path::PathBuf;
use std::process::Command;

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let target = env::var("TARGET").expect("cargo sets TARGET");
    let folder = out.join("workload-build");
    let mut cargo = Command::new(env::var_os("CARGO").expect("cargo sets CARGO"));
    cargo
        .args([
            "build",
            "--quiet",
            "--release",
            "--manifest-path",
            "workload/Cargo.toml",
            "--bin",
            "workload",
        ])
        .args(["--target", &target, "--config", "profile.release.strip=\"symbols\""])
        .args(["--config", "profile.release.panic=\"abort\"", "--config", "profile.release.opt-level=\"s\""])
        .arg("--target-dir")
        .arg(&folder)
        // What the outer build says about its own compiler runs would confuse the inner one.
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env_remove("CARGO_MAKEFLAGS")
        .env("RUSTFLAGS", "-C target-feature=+crt-static");
    let status = cargo.status().expect("cargo runs");
    assert!(status.success(), "the guests' program workload does not build: cargo build -p workload");
    let program = folder.join(&target).join("release/workload");
    println!("cargo::rustc-env=WORKLOAD_PROGRAM={}", program.display());
    println!("cargo::rerun-if-changed=workload");
    println!("cargo::rerun-if-changed=build.rs");
}
