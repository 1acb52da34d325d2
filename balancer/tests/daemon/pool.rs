//! Guests that share images: which container pays, what is saved, and what is refused.

use crate::support::pool::{FIRST, Folder, Mapped, guest, guest_with, open};
use crate::support::{Daemon, MIB, Vmm, about, command, run_dir};
use balancer::client::{ClientError, routes};
use balancer::objects::{BindingObject, PoolImageObject, PoolObject};
use hyper::Method;
use protocol::frames::{FrameTable, Region};
use protocol::image::{Backing, IMAGES_MAX, MappedImage};
use protocol::message::{FromVmm, OpenImages, PROTOCOL_VERSION, ToVmm, encode};
use serde_json::json;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

/// The pool by a scan that is made now; the charges are equal to the resident pages.
async fn scan(daemon: &Daemon) -> PoolObject {
    let pool = daemon.pool().await;
    assert_eq!(pool.charged_bytes, pool.resident_bytes, "{pool:#?}");
    assert_eq!(pool.uncharged_frames, 0);
    assert_eq!(pool.containers.iter().map(|row| row.charged_bytes).sum::<u64>(), pool.resident_bytes);
    pool
}

fn charged(pool: &PoolObject, container: &str) -> u64 {
    let row = pool.containers.iter().find(|row| row.container.as_str() == container);
    row.unwrap_or_else(|| panic!("no {container} in {pool:#?}")).charged_bytes
}

async fn bindings(daemon: &Daemon) -> Vec<BindingObject> {
    daemon.client.get(routes::BINDINGS).await.unwrap()
}

#[tokio::test]
async fn guests_of_one_domain_hold_an_image_once_and_each_system_charges_by_its_rule() {
    for (system, first, second, after) in [("static", 8, 0, 8), ("partial", 4, 4, 8), ("zones", 0, 0, 0)] {
        let folder = Folder::new();
        let image = folder.build("tree", 8);
        let (_dir, run_dir) = run_dir();
        let daemon = Daemon::start_with(&run_dir, &["--accounting", system, "--store", folder.store()]).await;
        let one = guest(&run_dir, "one", "/web/a", &[&image]).await;
        let two = guest(&run_dir, "two", "/web/b", &[&image]).await;
        one.read(0, 8 * MIB);
        one.map(0, 8 * MIB);
        scan(&daemon).await;
        two.map(0, 8 * MIB);
        let pool = scan(&daemon).await;
        let held = &pool.images[0];
        assert_eq!((held.mapped_bytes, held.alone_bytes), (8 * MIB, 16 * MIB), "{system}");
        assert_eq!((pool.saved_bytes, held.saved_bytes), (8 * MIB, 8 * MIB));
        assert_eq!((held.domain.as_str(), held.backing), ("web", Backing::Pagecache));
        let (a, b) = (charged(&pool, "/web/a"), charged(&pool, "/web/b"));
        assert_eq!((a, b), (first * MIB, second * MIB), "{system}");
        assert_eq!(charged(&pool, "/common"), pool.resident_bytes - (first + second) * MIB);
        assert_eq!(pool.guests.iter().map(|row| row.alone_bytes).sum::<u64>(), 16 * MIB);
        assert_eq!(daemon.guest("two").await.pool.unwrap().alone_bytes, 8 * MIB);
        // The first toucher leaves: the next by arrival pays. The last one leaves: no guest pays that does not use it.
        drop(one);
        daemon.until_guests(|guests| guests.len() == 1).await;
        assert_eq!(charged(&scan(&daemon).await, "/web/b"), after * MIB, "{system}");
        drop(two);
        daemon.until_guests(|guests| guests.is_empty()).await;
        let pool = scan(&daemon).await;
        assert_eq!(charged(&pool, "/common"), pool.resident_bytes);
        assert_eq!(daemon.host().await.pool_uncharged_frames, 0);
    }
}

#[tokio::test]
async fn charges_are_exact_while_guests_map_and_unmap_and_pages_come_and_go() {
    let folder = Folder::new();
    let images = [folder.build("one", 6), folder.build("two", 4)];
    let (_dir, run_dir) = run_dir();
    let daemon = Daemon::start_with(&run_dir, &["--accounting", "partial", "--store", folder.store()]).await;
    let mut guests: Vec<Mapped> = vec![];
    let mut random = fastrand::Rng::with_seed(7);
    for round in 0..40 {
        if guests.len() < 5 && random.bool() {
            let name = format!("guest{round}");
            let container = format!("/t/{}", random.u8(0..3));
            guests.push(guest(&run_dir, &name, &container, &[&images[0], &images[1]]).await);
        }
        for guest in &guests {
            let (at, length) = (random.u64(0..6) * MIB, random.u64(1..512) * 4096);
            let length = length.min(guest.bytes(0) - at);
            guest.read(at, length);
            if random.bool() { guest.map(at, length) } else { guest.unmap(at, length) }
        }
        if random.u8(0..8) == 0 && !guests.is_empty() {
            guests[0].drop_cache();
            guests.swap_remove(random.usize(0..guests.len()));
        }
        scan(&daemon).await;
    }
}

#[tokio::test]
async fn an_image_that_no_guest_should_map_is_refused_in_one_sentence() {
    let folder = Folder::new();
    let image = folder.build("tree", 2);
    let (good, hex) = (image.to_string(), image.hex());
    let (_dir, run_dir) = run_dir();
    let daemon = Daemon::start_with(&run_dir, &["--store", folder.store()]).await;
    let no_erofs = folder.adopt(&vec![0; 2 << 20]);
    let outside = folder.dir.path().join("other.erofs");
    std::fs::write(&outside, "x").unwrap();
    let many = vec![good.clone(); IMAGES_MAX + 1];
    for (names, words) in [
        (vec![], vec!["No image"]),
        (vec!["lots".to_owned()], vec!["lots"]),
        (vec![format!("sha256:{}", "0".repeat(64))], vec!["000", "No image"]),
        (vec![good.clone(), hex[..8].to_owned()], vec!["twice", &good]),
        (many, vec!["17", "16"]),
        (vec![outside.to_str().unwrap().to_owned()], vec!["other.erofs", "store"]),
        (vec!["/not/there".to_owned()], vec!["/not/there"]),
        (vec![no_erofs.clone()], vec![&no_erofs, "web", "cannot be mapped"]),
    ] {
        let reason = open(&run_dir, "/web/a", &names).await.unwrap_err();
        for word in words {
            assert!(reason.contains(word), "{names:?}: {reason} does not say {word:?}");
        }
        assert!(!reason.contains('\n') && !reason.contains("No image  "));
    }
    // A path in the store and a short form mean the image as well.
    let path = format!("{}/images/{hex}.erofs", folder.store());
    for name in [path, hex[..8].to_owned(), good.clone()] {
        let opened = open(&run_dir, "/web/a", &[name]).await.unwrap();
        assert_eq!((opened[0].0.digest, opened[0].0.bytes % (2 * MIB)), (image, 0));
    }
    let asked = OpenImages {
        protocol_version: PROTOCOL_VERSION + 1,
        container: "/a".parse().unwrap(),
        images: vec![good],
    };
    let socket = tokio_seqpacket::UnixSeqpacket::connect(run_dir.guest_socket()).await.unwrap();
    let vmm = Vmm { socket, table: FrameTable::new(&[Region::ram(0, 512)]).unwrap() };
    vmm.socket.send(&encode(&FromVmm::OpenImages(asked)).unwrap()).await.unwrap();
    let Some(ToVmm::Refused { reason }) = vmm.hear_any().await else { panic!("not refused") };
    assert!(reason.contains("version"), "{reason}");
    drop(daemon);
}

#[tokio::test]
async fn a_compressed_image_is_refused_with_the_file_that_dax_does_not_serve() {
    let folder = Folder::new();
    let Some(image) = folder.compressed() else {
        skip::skip!(ErofsUtils, "there is no mkfs.erofs that compresses");
        return;
    };
    let (_dir, run_dir) = run_dir();
    let _daemon = Daemon::start_with(&run_dir, &["--store", folder.store()]).await;
    let reason = open(&run_dir, "/web/a", &[image]).await.unwrap_err();
    assert!(reason.contains("compressed") && reason.contains("file"), "{reason}");
}

#[tokio::test]
async fn an_image_that_changed_is_refused_and_one_that_changes_under_its_guests_is_reported() {
    let folder = Folder::new();
    let image = folder.build("tree", 4);
    let (_dir, run_dir) = run_dir();
    let daemon = Daemon::start_with(&run_dir, &["--store", folder.store()]).await;
    let one = guest(&run_dir, "one", "/web/a", &[&image]).await;
    one.map(0, MIB);
    scan(&daemon).await;
    let file = folder.copy(&image, "web");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let mut content = std::fs::read(&file).unwrap();
    let last = content.len() - 1;
    content[last] ^= 1;
    std::fs::write(&file, &content).unwrap();
    let pool = daemon.until_pool(|pool| pool.images[0].changed.is_some()).await;
    assert!(pool.images[0].changed.as_ref().unwrap().contains("changed"));
    let reason = open(&run_dir, "/web/a", &[image.to_string()]).await.unwrap_err();
    assert!(reason.contains(&image.to_string()) && reason.contains("digest"), "{reason}");
    // Another domain has another file.
    open(&run_dir, "/db", &[image.to_string()]).await.unwrap();
    std::fs::remove_file(&file).unwrap();
    let removed =
        |image: &PoolImageObject| image.changed.as_ref().is_some_and(|why| why.contains("was removed"));
    daemon.until_pool(|pool| pool.images.iter().any(removed)).await;
    let told = daemon.events_of("image_changed").await;
    let told: Vec<&str> = told.iter().map(|event| event.detail.as_str()).collect();
    assert_eq!(told.len(), 3, "{told:#?}");
    assert!(told[0].contains("mapped by one") && told[0].contains(&image.to_string()), "{told:#?}");
}

#[tokio::test]
async fn pages_are_shared_inside_a_domain_alone() {
    let folder = Folder::new();
    let image = folder.build("tree", 4);
    let name = [image.to_string()];
    let (_dir, run_dir) = run_dir();
    let daemon = Daemon::start_with(&run_dir, &["--store", folder.store()]).await;
    let inode = async |container: &str| {
        let opened = open(&run_dir, container, &name).await.unwrap();
        opened[0].1.metadata().unwrap().ino()
    };
    let web = inode("/web/a").await;
    assert_eq!(inode("/web/b/c").await, web);
    let db = inode("/db").await;
    assert_ne!(db, web);
    let set = command(&run_dir, &["set", "/web", "--domain", "tenants", "--create"]).output().unwrap();
    assert!(String::from_utf8(set.stdout).unwrap().contains("domain tenants"));
    assert_eq!(daemon.container("/web").await.trust_domain, "tenants");
    let tenants = inode("/web/a").await;
    assert!(tenants != web && tenants != db);
    daemon.put("/v1/containers/db", r#"{"domain": "tenants"}"#).await;
    assert_eq!(inode("/db").await, tenants);
    daemon.patch_container("/db", r#"{"domain": null}"#).await;
    assert_eq!(inode("/db").await, db);
    // A guest that maps images stays in its domain.
    let one = guest(&run_dir, "one", "/db", &[&image]).await;
    one.read(0, 4 * MIB);
    one.map(0, 4 * MIB);
    let problem = daemon.refused("/v1/containers/db", r#"{"domain": "tenants"}"#).await;
    assert_eq!((problem.status, problem.field.as_deref()), (409, Some("domain")));
    assert!(problem.detail.contains("one") && problem.detail.contains("tenants"), "{problem:?}");
    let problem = daemon.refused("/v1/guests/one", r#"{"container": "/web"}"#).await;
    assert_eq!((problem.status, problem.field.as_deref()), (409, Some("container")));
    assert!(problem.detail.contains("tenants") && problem.detail.contains("one"), "{problem:?}");
    let problem = daemon.refused("/v1/containers/web", r#"{"domain": "a/b"}"#).await;
    assert_eq!((problem.status, problem.field.as_deref()), (422, Some("domain")));
    let two = guest(&run_dir, "two", "/web", &[&image]).await;
    two.read(0, 4 * MIB);
    let pool = scan(&daemon).await;
    assert!(pool.would_have_saved_bytes >= 4 * MIB, "{pool:#?}");
    let text = String::from_utf8(command(&run_dir, &["pool"]).output().unwrap().stdout).unwrap();
    assert!(text.contains("more in one trust domain") && text.contains("one"), "{text}");
}

#[tokio::test]
async fn a_container_pays_for_images_that_are_bound_to_it_and_the_longest_path_decides() {
    let folder = Folder::new();
    let image = folder.build("tree/lib", 4);
    let (_dir, run_dir) = run_dir();
    let daemon = Daemon::start_with(&run_dir, &["--store", folder.store()]).await;
    let one = guest(&run_dir, "one", "/web/a", &[&image]).await;
    one.read(0, 4 * MIB);
    one.map(0, 4 * MIB);
    assert_eq!(charged(&scan(&daemon).await, "/web/a"), 4 * MIB);
    daemon.put("/v1/containers/lib", "{}").await;
    let tree = folder.dir.path().join("tree");
    let (tree, lib) = (tree.to_str().unwrap().to_owned(), tree.join("lib").to_str().unwrap().to_owned());
    let run = |arguments: &[&str]| {
        let output = command(&run_dir, arguments).output().unwrap();
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        (output.status.code().unwrap(), text)
    };
    let all = |pool: &PoolObject| pool.resident_bytes;
    let (code, text) = run(&["bind", &tree, "/lib"]);
    assert!(code == 0 && text.contains("1 images in use") && text.contains("/lib"), "{text}");
    let pool = scan(&daemon).await;
    assert_eq!((charged(&pool, "/lib"), charged(&pool, "/web/a")), (all(&pool), 0));
    assert_eq!(pool.images[0].bound_to, Some("/lib".parse().unwrap()));
    // The same path and another container: only if that is said.
    let (code, text) = run(&["bind", &tree, "/common"]);
    assert!(code == 1 && text.contains("bound to /lib already") && text.contains(&tree), "{text}");
    assert_eq!(run(&["bind", &tree, "/lib"]).0, 0, "it is so already");
    assert_eq!(run(&["bind", &format!("{tree}/../tree/."), "/common", "--replace"]).0, 0);
    assert_eq!(charged(&scan(&daemon).await, "/common"), all(&scan(&daemon).await));
    assert_eq!(run(&["bind", &lib, "/lib"]).0, 0);
    assert_eq!(charged(&scan(&daemon).await, "/lib"), all(&scan(&daemon).await));
    assert_eq!(run(&["bind", &image.hex()[..8], "/web"]).0, 0);
    assert_eq!(charged(&scan(&daemon).await, "/web"), all(&scan(&daemon).await));
    let list = bindings(&daemon).await;
    let images: Vec<usize> = list.iter().map(|row| row.images.len()).collect();
    assert_eq!(images, [0, 0, 1], "{list:#?}");
    // Bindings and the containers they need survive a killed balancer.
    for path in ["/v1/containers/lib", "/v1/containers/common"] {
        let error = daemon.call(Method::DELETE, path, "").await.unwrap_err().to_string();
        assert!(error.contains("not empty"), "{error}");
    }
    daemon.kill();
    let daemon = Daemon::start_with(&run_dir, &["--store", folder.store()]).await;
    let subjects = |list: Vec<BindingObject>| list.into_iter().map(|row| row.subject).collect::<Vec<_>>();
    assert_eq!(subjects(bindings(&daemon).await), subjects(list));
    assert_eq!(run(&["unbind", &image.to_string()]).0, 0);
    assert_eq!(run(&["unbind", &lib]).0, 0);
    std::fs::remove_dir_all(&tree).unwrap();
    assert_eq!(run(&["unbind", &tree]).0, 0, "a path that is gone can be unbound");
    let (code, text) = run(&["unbind", &tree]);
    assert!(code == 1 && text.contains("not bound"), "{text}");
    // What an image was built from may be bound even if it is gone.
    assert_eq!(run(&["bind", &tree, "/lib"]).0, 0);
    daemon.call(Method::DELETE, &format!("/v1/bindings?subject={tree}"), "").await.unwrap();
}

#[tokio::test]
async fn bindings_that_make_no_sense_are_refused_and_change_nothing() {
    let folder = Folder::new();
    let (_dir, run_dir) = run_dir();
    let daemon = Daemon::start_with(&run_dir, &["--store", folder.store()]).await;
    for (body, field, words) in [
        (
            json!({"subject": "/not/there", "container": "/common"}),
            "subject",
            vec!["/not/there", "does not exist"],
        ),
        (json!({"subject": "/tmp/../etc", "container": "/common"}), "subject", vec!["upwards"]),
        (json!({"subject": "lots", "container": "/common"}), "subject", vec!["lots"]),
        (json!({"subject": "12345678", "container": "/common"}), "subject", vec!["12345678"]),
        (json!({"subject": "", "container": "/common"}), "subject", vec!["\"\""]),
        (json!({"subject": "/", "container": "/none"}), "container", vec!["/none", "no such container"]),
        (json!({"subject": "/", "container": "none"}), "container", vec!["none"]),
        (json!({"subject": "/"}), ".", vec!["container"]),
        (json!({"subject": "/", "container": "/common", "force": true}), "force", vec!["force"]),
    ] {
        let error = daemon.call(Method::PUT, "/v1/bindings", &body.to_string()).await.unwrap_err();
        let ClientError::Refused(problem) = error else { panic!("{error}") };
        assert!([409, 422].contains(&problem.status), "{body}: {problem:?}");
        assert_eq!(problem.field.as_deref(), Some(field), "{body}: {problem:?}");
        words.iter().for_each(|word| assert!(problem.detail.contains(word), "{body}: {problem:?}"));
    }
    for query in ["", "?path=/x", "?subject=/not/bound"] {
        assert!(daemon.call(Method::DELETE, &format!("/v1/bindings{query}"), "").await.is_err(), "{query}");
    }
    assert!(bindings(&daemon).await.is_empty());
}

#[tokio::test]
async fn the_pool_keeps_its_max_by_evicting_unmapped_pages_and_reports_what_it_cannot_evict() {
    let folder = Folder::new();
    let image = folder.build("tree", 16);
    let (_dir, run_dir) = run_dir();
    let daemon = Daemon::start_with(&run_dir, &["--store", folder.store()]).await;
    let one = guest(&run_dir, "one", "/web", &[&image]).await;
    if !one.drop_cache() {
        skip::skip!(TemporaryOnDisk, "temporary files are in memory and cannot leave it");
        return;
    }
    one.read(0, 16 * MIB);
    let _pinned = one.pin(0, 4 * MIB);
    one.map(0, 4 * MIB);
    let pool = scan(&daemon).await;
    assert!(charged(&pool, "/common") >= 12 * MIB && charged(&pool, "/web") == 4 * MIB);
    // A guest's own limit is not touched by what is the pool's.
    let before = daemon.guest("one").await.target_bytes;
    daemon.patch_container("/common", &json!({"max_bytes": 2 * MIB}).to_string()).await;
    daemon.until_container("/common", |common| common.usage_bytes <= 2 * MIB).await;
    let pool = scan(&daemon).await;
    assert!(pool.resident_bytes >= 4 * MIB && charged(&pool, "/web") == 4 * MIB, "{pool:#?}");
    assert_eq!(pool.shortfalls, []);
    assert_eq!(daemon.guest("one").await.target_bytes, before);
    // A bound image counts as a whole, and pages of it that guests map cannot be evicted. Unmapped pages make room.
    let digest = image.to_string();
    let bind = |to: &str| json!({"subject": digest, "container": to, "replace": true}).to_string();
    one.read(0, 16 * MIB);
    scan(&daemon).await;
    daemon.patch_container("/common", &json!({"max_bytes": 5 * MIB}).to_string()).await;
    daemon.put("/v1/bindings", &bind("/common")).await;
    daemon.until_container("/common", |common| common.usage_bytes <= 5 * MIB).await;
    daemon.patch_container("/common", r#"{"max_bytes": null}"#).await;
    let problem = daemon.refused("/v1/containers/common", &json!({"max_bytes": MIB}).to_string()).await;
    assert_eq!((problem.status, problem.field.as_deref()), (409, Some("max_bytes")));
    assert!(problem.detail.contains(&(4 * MIB).to_string()), "{problem:?}");
    daemon.put("/v1/containers/small", &json!({"max_bytes": MIB}).to_string()).await;
    let error = daemon.call(Method::PUT, "/v1/bindings", &bind("/small")).await.unwrap_err().to_string();
    assert!(error.contains("/small") && error.contains(&(3 * MIB).to_string()), "{error}");
    // Guests that map more later cause a shortfall, which is reported.
    daemon.patch_container("/common", &json!({"max_bytes": 5 * MIB}).to_string()).await;
    let _more = one.pin(4 * MIB, 4 * MIB);
    one.map(4 * MIB, 4 * MIB);
    let pool = daemon.until_pool(|pool| !pool.shortfalls.is_empty()).await;
    assert_eq!(pool.shortfalls[0].missing_bytes, 3 * MIB, "{pool:#?}");
    let told = daemon.events_of("pool_shortfall").await;
    assert!(told[0].detail.contains("3M cannot be evicted"), "{told:#?}");
}

#[tokio::test]
async fn the_limit_of_the_first_toucher_holds_for_its_pages_of_the_pool() {
    let folder = Folder::new();
    let image = folder.build("tree", 16);
    let (_dir, run_dir) = run_dir();
    let daemon = Daemon::start_with(&run_dir, &["--store", folder.store()]).await;
    daemon.put("/v1/containers/web", &json!({"max_bytes": 256 * MIB}).to_string()).await;
    let one = guest(&run_dir, "one", "/web", &[&image]).await;
    let target = async || daemon.guest("one").await.target_bytes;
    let before = target().await;
    one.read(0, 16 * MIB);
    one.map(0, 16 * MIB);
    daemon.until_guest("one", |guest| guest.target_bytes <= before - 15 * MIB).await;
    daemon
        .put("/v1/bindings", &json!({"subject": image.to_string(), "container": "/common"}).to_string())
        .await;
    daemon.until_guest("one", |guest| guest.target_bytes + MIB >= before).await;
}

#[tokio::test]
async fn the_images_that_a_guest_reports_must_fit_its_table_and_the_store() {
    let folder = Folder::new();
    let (image, other) = (folder.build("tree", 4), folder.build("other", 2));
    let (_dir, run_dir) = run_dir();
    let daemon = Daemon::start_with(&run_dir, &["--store", folder.store()]).await;
    let opened = open(&run_dir, "/web", &[image.to_string(), other.to_string()]).await.unwrap();
    let count = opened[0].0.bytes / 4096;
    let unknown: protocol::image::Digest = format!("sha256:{}", "0".repeat(64)).parse().unwrap();
    let at = |digest, first, count| MappedImage { digest, first, count };
    let all = vec![at(image, FIRST, count); IMAGES_MAX + 1];
    for (images, words) in [
        (vec![at(image, FIRST + 512, count)], vec!["no such region"]),
        (vec![at(image, FIRST, count - 512)], vec!["no such region"]),
        (vec![at(image, FIRST, count), at(image, FIRST, count)], vec!["twice"]),
        (vec![at(other, FIRST, count)], vec!["frames, but it has"]),
        (vec![at(unknown, FIRST, count)], vec!["No image"]),
        (all, vec!["17", "16"]),
    ] {
        let table =
            FrameTable::new(&[Region::ram(0, 512 * MIB / 4096), Region::image(FIRST, count)]).unwrap();
        let about = protocol::message::Register { images, ..about("liar", "/web", None) };
        let vmm = Vmm::connect_with(&run_dir, about, table).await;
        let Some(ToVmm::Refused { reason }) = vmm.hear_any().await else { panic!("taken in: {words:?}") };
        words.iter().for_each(|word| assert!(reason.contains(word), "{reason} does not say {word:?}"));
    }
    assert!(daemon.guests().await.is_empty());
}

#[tokio::test]
async fn an_image_that_a_guest_maps_stays_and_its_guests_are_named() {
    let folder = Folder::new();
    let image = folder.build("tree", 2);
    let (_dir, run_dir) = run_dir();
    let daemon = Daemon::start_with(&run_dir, &["--store", folder.store()]).await;
    let one = guest(&run_dir, "one", "/web", &[&image]).await;
    let remove = || {
        let output = command(&run_dir, &["image", "rm", &image.to_string(), "--store", folder.store()])
            .output()
            .unwrap();
        (output.status.success(), String::from_utf8(output.stderr).unwrap())
    };
    let (done, text) = remove();
    assert!(!done && text.contains("one") && text.contains(&image.to_string()), "{text}");
    // The balancer may be gone: the guest itself keeps the image.
    daemon.kill();
    assert!(!remove().0);
    let daemon = Daemon::start_with(&run_dir, &["--store", folder.store()]).await;
    drop(one);
    let (done, text) = remove();
    assert!(done, "{text}");
    assert!(open(&run_dir, "/web", &[image.to_string()]).await.unwrap_err().contains("No image"));
    drop(daemon);
}

#[tokio::test]
async fn a_guest_that_comes_back_is_accounted_for_as_before() {
    let folder = Folder::new();
    let image = folder.build("tree", 4);
    let (_dir, run_dir) = run_dir();
    let arguments = ["--store", folder.store()];
    let daemon = Daemon::start_with(&run_dir, &arguments).await;
    daemon.put("/v1/containers/web", r#"{"domain": "tenants"}"#).await;
    let one = guest(&run_dir, "one", "/web", &[&image]).await;
    one.read(0, 3 * MIB);
    one.map(0, 3 * MIB);
    assert_eq!(charged(&scan(&daemon).await, "/web"), 3 * MIB);
    daemon.kill();
    let daemon = Daemon::start_with(&run_dir, &arguments).await;
    let one = guest_with(&run_dir, one, "/web").await;
    let pool = scan(&daemon).await;
    assert_eq!((charged(&pool, "/web"), pool.images[0].domain.as_str()), (3 * MIB, "tenants"));
    assert_eq!(pool.images[0].changed, None);
    drop(one);
}
