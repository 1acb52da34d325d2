//! The time of the first touch of 64 KiB of an image, by the clock: of an image that the balancer fills, with the real
//! balancer and the real thread that serves faults, compared with a fault of the page cache and with a copy.
//!
//! This process is the guest, so the cost that KVM adds to a fault, leaving and entering the guest, is not included.
//! The touching thread waits while others work: so it is time by the clock and not CPU time.

use super::{MIB, median, touch};
use protocol::bytes::FRAME_BYTES;
use protocol::frames::FrameTable;
use protocol::image::{Backing, GRANULE_BYTES};
use protocol::message::{Register, ToVmm};
use protocol::run_dir::RunDir;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};
use vmm::link::{Granted, Link, open_images};
use vmm::memory::images::OpenImage;
use vmm::memory::{Images, Ram};
use vmm::pool_faults;

const IMAGE_MIB: u64 = 32;
const DEADLINE: Duration = Duration::from_secs(20);

pub fn run() {
    println!("First touch of 64 KiB of an image, us by the clock       median    9 of 10 within");
    if let Err(why) = measure() {
        println!("  SKIPPED: {why}");
    }
}

fn measure() -> Result<(), String> {
    let host = Host::start()?;
    let first = host.guest("first")?;
    let second = host.guest("second")?;
    let file = File::open(&host.image).map_err(|error| error.to_string())?;
    let granules = file.metadata().map_err(|error| error.to_string())?.len() / GRANULE_BYTES;
    let cached = Images::map(vec![super::image(&file)], 4 << 30).map_err(|error| error.to_string())?;
    let cached_at = cached.slots().next().expect("an image").1;
    let mut buffer = vec![0; usize::try_from(GRANULE_BYTES).expect("64 KiB")];
    let mut rows: [(&str, Vec<f64>); 6] = [
        ("managed, absent: filled from its file, read ahead", vec![]),
        ("managed, there: another guest brought it", vec![]),
        ("managed, mapped: an access, nothing to do", vec![]),
        ("page cache, absent: read from the disk", vec![]),
        ("page cache, there: one fault maps 64 KiB", vec![]),
        ("page cache, there: pread of 64 KiB", vec![]),
    ];
    // In alternation, each granule once: other load of the machine affects all rows alike.
    for granule in 0..granules {
        let at = granule * GRANULE_BYTES;
        rows[0].1.push(clock(|| touch(first + at, FRAME_BYTES)));
        rows[1].1.push(clock(|| touch(second + at, FRAME_BYTES)));
        rows[2].1.push(clock(|| touch(second + at + FRAME_BYTES, FRAME_BYTES)));
        cold(&file, at);
        rows[3].1.push(clock(|| file.read_exact_at(&mut buffer, at).expect("the image")));
        rows[4].1.push(clock(|| touch(cached_at + at, FRAME_BYTES)));
        rows[5].1.push(clock(|| file.read_exact_at(&mut buffer, at).expect("the image")));
    }
    for (name, mut times) in rows {
        times.sort_by(f64::total_cmp);
        let most = times[times.len() * 9 / 10];
        println!("  {name:<52} {:>8.1} {most:>17.1}", median(times));
    }
    Ok(())
}

/// Drops the pages of this granule from the page cache, and the pages that are read ahead behind it.
fn cold(file: &File, at: u64) {
    // SAFETY: an advice about a descriptor that we own.
    unsafe {
        libc::posix_fadvise(
            file.as_raw_fd(),
            libc::off_t::try_from(at).expect("inside a file"),
            libc::off_t::try_from(MIB).expect("1 MiB"),
            libc::POSIX_FADV_DONTNEED,
        )
    };
}

fn clock(work: impl FnOnce()) -> f64 {
    let started = Instant::now();
    work();
    started.elapsed().as_secs_f64() * 1e6
}

/// A balancer with one image, and this process as its guests.
struct Host {
    dir: PathBuf,
    balancer: Child,
    run_dir: RunDir,
    digest: String,
    image: PathBuf,
}

impl Host {
    fn start() -> Result<Self, String> {
        let program = program("balancer").ok_or("there is no `balancer` next to this program: make build")?;
        let dir = std::env::temp_dir().join(format!("ballast-bench-{}", std::process::id()));
        let (tree, store, run) = (dir.join("tree"), dir.join("store"), dir.join("run"));
        let text = |error: io::Error| error.to_string();
        fs::create_dir_all(&tree).map_err(text)?;
        let content: Vec<u8> =
            (0..IMAGE_MIB * MIB / 8).flat_map(|word| (word * 0x9e37_79b9).to_le_bytes()).collect();
        fs::write(tree.join("file"), content).map_err(text)?;
        let built = Command::new(&program)
            .args(["image", "build", "--store"])
            .args([&store, &tree])
            .output()
            .map_err(text)?;
        let digest = String::from_utf8_lossy(&built.stdout).trim().to_owned();
        let hex = digest.strip_prefix("sha256:").ok_or_else(|| format!("no image was built: {built:?}"))?;
        let image = store.join(format!("images/{hex}.erofs"));
        File::open(&image).and_then(|image| image.sync_all()).map_err(text)?;
        let balancer = Command::new(&program)
            .args(["serve", "--pool", "managed", "--run-dir"])
            .arg(&run)
            .arg("--store")
            .arg(&store)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(text)?;
        let host = Self { dir, balancer, run_dir: RunDir::new(Some(run)), digest, image };
        let started = Instant::now();
        while !host.run_dir.guest_socket().exists() {
            if started.elapsed() > DEADLINE {
                return Err("the balancer did not start".into());
            }
            sleep(Duration::from_millis(10));
        }
        Ok(host)
    }

    /// A guest with the image, served as long as this process lives. Returns the address of the image.
    fn guest(&self, name: &str) -> Result<u64, String> {
        let socket = self.run_dir.guest_socket();
        let container = "/bench".parse().expect("a path");
        let granted = open_images(&socket, &container, std::slice::from_ref(&self.digest));
        let opened = match granted.map_err(|error| error.to_string())? {
            Granted::Images(images) => images,
            Granted::Refused(reason) => return Err(reason),
        };
        let opened = opened.into_iter().map(|(handle, file, mark)| {
            assert_eq!(handle.backing, Backing::Managed);
            let image = OpenImage::new(name.into(), Some(handle.digest), file).expect("an image");
            image.managed(mark)
        });
        let ram = Ram::new(64 * MIB).expect("memory");
        let images = Images::map(opened.collect(), ram.end()).map_err(|error| error.to_string())?;
        let at = images.slots().next().expect("an image").1;
        let regions: Vec<_> = ram.slots().chain(images.slots()).map(|(region, _)| region).collect();
        let table = Arc::new(FrameTable::new(&regions).expect("a table"));
        let register = Register {
            images: images.told(),
            floor_bytes: 16 * MIB,
            devices: 1,
            fds: 20,
            threads: 4,
            ..Register::of(name, container, ram.bytes())
        };
        let (link, answer) =
            Link::register(&socket, &register, table.fd()).map_err(|error| error.to_string())?;
        match answer {
            ToVmm::Registered { owner, .. } => table.set_owner(owner),
            other => return Err(format!("{other:?}")),
        }
        let images = Arc::new(images);
        pool_faults::start(images, table, self.run_dir.clone(), name.into())
            .map_err(|error| error.to_string())?;
        // The balancer's messages are not read: there is no balloon. The connection lives as long as the process.
        std::mem::forget((link, ram));
        Ok(at)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.balancer.kill();
        let _ = self.balancer.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// A program of this build: next to this one, or one folder up.
fn program(name: &str) -> Option<PathBuf> {
    let exe = std::env::current_exe().ok()?;
    exe.ancestors().skip(1).take(2).map(|dir: &Path| dir.join(name)).find(|path| path.is_file())
}
