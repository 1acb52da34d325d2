//! Guests that read all of one image: the host has it once, and pages that one guest writes are charged to that guest.

use super::{MIB, SERVICES, image, pool, run, unchanged};
use crate::host::Host;
use crate::linux::{Images, Linux, LinuxGuest};
use anyhow::{Context, Result, ensure};

/// The services' layer alone, as a guest sees it under [`SERVICES`].
const SERVICES_LAYER: &str = "/images/1";
/// A large file of that layer, in the guest's root.
const LARGE_FILE: &str = "/usr/lib/x86_64-linux-gnu/libLLVM-14.so.1";
/// Guests that read the same image.
const READERS: usize = 4;
/// What a guest touches in addition to what it writes, in host pages of 2 MiB.
const MARGIN_BYTES: u64 = 8 * MIB;

/// What a `vmm` holds of images: its proportional part of the pages that it maps, bytes.
fn image_part(linux: &LinuxGuest) -> Result<u64> {
    let pid = linux.guest.machine_pid().unwrap_or_else(|| linux.guest.pid());
    let smaps = std::fs::read_to_string(format!("/proc/{pid}/smaps"))?;
    let mut of_image = false;
    let mut kib = 0;
    for line in smaps.lines() {
        match line.strip_prefix("Pss:") {
            Some(amount) if of_image => kib += amount.trim().trim_end_matches(" kB").parse::<u64>()?,
            Some(_) => {}
            // The first line of a mapping begins with its addresses, and ends with its file.
            None if line.split(' ').next().is_some_and(|word| word.contains('-')) => {
                of_image = line.ends_with(".erofs");
            }
            None => {}
        }
    }
    Ok(kib * 1024)
}

pub fn one_image_for_all(images: &Images) -> Result<()> {
    let host = Host::with_store(&images.library)?;
    let root = images.root(&SERVICES)?;
    let services = images.digest("services")?;
    let hex = services.strip_prefix("sha256:").context("a digest")?;
    let image = images.library.join(format!("images/{hex}.erofs"));
    let image_bytes = image.metadata()?.len();
    ensure!(image_bytes >= 200 * MIB, "an image of {image_bytes} bytes");
    let mut guests = Vec::new();
    let mut checksum = None;
    let mut first_part = 0;
    for number in 0..READERS {
        let name = format!("r{number}");
        // One trust domain: that of /web.
        let container = format!("/web/{name}");
        let flags = ["--container", &container, "--root", &root];
        let linux =
            Linux { memory: "256M", flags: &flags, ..Linux::default() }.start(&host, images, &name)?;
        let mut agent = linux.agent()?;
        let read = agent.read_tree(SERVICES_LAYER)?;
        ensure!(read.dax_bytes == read.bytes && read.dax_files == read.files, "not all by DAX: {read:?}");
        let cached = read.cached_after_bytes.saturating_sub(read.cached_before_bytes);
        ensure!(cached * 100 < image_bytes, "the guest's page cache grew by {cached} bytes");
        ensure!(*checksum.get_or_insert(read.checksum.clone()) == read.checksum, "another content: {read:?}");
        host.frames(&name)?;
        guests.push((linux, agent));
        let parts = guests.iter().map(|(linux, _)| image_part(linux)).sum::<Result<u64>>()?;
        println!(
            "{} guests: images take {parts} bytes of the host; page cache of {name} + {cached} bytes",
            number + 1
        );
        if number == 0 {
            first_part = parts;
            ensure!(parts >= read.bytes, "the host has all that was read: {parts} of {}", read.bytes);
        }
        let bound = first_part + image_bytes / 50 * number as u64;
        ensure!(parts <= bound, "{} guests share {image_bytes} bytes, and take {parts}", number + 1);
        assert_charged(&host, &services, read.bytes, number + 1)?;
    }

    // What one guest writes is charged to it, and to no other.
    let file_bytes: u64 = run(&mut guests[0].1, &format!("stat -c %s {LARGE_FILE}"))?.parse()?;
    let percent = (image_bytes / 10 * 100).div_ceil(file_bytes);
    let others = |host: &Host| (1..READERS).map(|number| costs(host, number)).collect::<Result<Vec<_>>>();
    let (others_before, own_before) = (others(&host)?, costs(&host, 0)?);
    let (linux, writer) = &mut guests[0];
    let before = writer.meminfo("anon_pages_bytes")?;
    let held = writer.write_pages("own", &format!("/root{LARGE_FILE}"), percent, 7)?;
    let written = held.bytes * percent / 100;
    ensure!(written * 10 >= image_bytes, "{written} bytes of {image_bytes} are less than a tenth");
    let grown = writer.meminfo("anon_pages_bytes")?.saturating_sub(before);
    ensure!(grown.abs_diff(written) <= MIB, "{written} bytes were written, and {grown} became private");
    ensure!(writer.verify("own")?.intact);
    host.assert_near_kernel(&linux.guest)?;
    let (own_after, others_after) = (costs(&host, 0)?, others(&host)?);
    println!(
        "{written} bytes written: {own_before:?} -> {own_after:?}, others {others_before:?} -> {others_after:?}"
    );
    let own = own_after.private.saturating_sub(own_before.private);
    // The guest takes them from what it has free, which the host may hold for it already.
    ensure!(
        own <= written + MARGIN_BYTES,
        "the writer's own memory grew by {own} bytes for {written} that it wrote"
    );
    for (before, after) in others_before.iter().zip(&others_after) {
        ensure!(after.images == before.images, "another guest's images: {before:?}, {after:?}");
        ensure!(after.private <= before.private + MIB, "another guest is charged: {before:?}, {after:?}");
    }
    let (_, reader) = &mut guests[1];
    let again = reader.read_tree(SERVICES_LAYER)?;
    ensure!(Some(again.checksum) == checksum, "another guest reads what was written");
    unchanged(&host, images, &services)
}

/// What is charged for a guest, bytes: private memory, and pages of images that it maps.
#[derive(Debug)]
struct Costs {
    private: u64,
    images: u64,
}

fn costs(host: &Host, guest: usize) -> Result<Costs> {
    let name = format!("r{guest}");
    let totals = host.frames(&name)?.totals;
    Ok(Costs { private: totals.private * 4096, images: totals.shared * 4096 })
}

/// Each page of the image is charged once, and each guest is seen to map what it read.
fn assert_charged(host: &Host, digest: &str, read_bytes: u64, guests: usize) -> Result<()> {
    let pool = pool(host)?;
    let image = image(&pool, digest)?;
    ensure!(image.sharers.len() == guests, "{guests} guests map it: {image:?}");
    for sharer in &image.sharers {
        let (mapped, error) = (sharer.mapped_bytes, image.error_bytes);
        ensure!(mapped + error >= read_bytes, "{sharer:?} read {read_bytes} bytes, error {error}");
    }
    let (alone, mapped, resident) = (image.alone_bytes, image.mapped_bytes, pool.resident_bytes);
    println!(
        "{guests} guests: {alone} bytes alone, {mapped} together; the pool holds {resident}, all charged"
    );
    ensure!(mapped <= image.resident_bytes && alone >= read_bytes * guests as u64 * 99 / 100);
    Ok(())
}
