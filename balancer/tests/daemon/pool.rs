//! Guests that share images: which container pays, what is saved, and what is refused.

use crate::support::pool::{FIRST, Folder, Mapped, guest, guest_with, open};
use crate::support::{Daemon, MIB, Vmm, about, command, place};
use balancer::client::ClientError;
use hyper::Method;
use protocol::frames::{FrameTable, Region};
use protocol::image::{IMAGES_MAX, MappedImage};
use protocol::message::{FromVmm, OpenImages, PROTOCOL_VERSION, ToVmm, encode};
use serde_json::{Value, json};
use std::os::unix::fs::{MetadataExt, PermissionsExt};

/// What a row of a list has for this name.
fn row<'a>(pool: &'a Value, list: &str, field: &str, name: &str) -> &'a Value {
    let rows = pool[list].as_array().unwrap();
    rows.iter().find(|row| row[field] == name).unwrap_or_else(|| panic!("no {name} in {pool:#}"))
}

fn bytes(value: &Value) -> u64 {
    value.as_u64().unwrap()
}

/// The pool by a scan that is made now; all that is resident is charged.
async fn look(daemon: &Daemon) -> Value {
    let pool = daemon.get("/v1/pool?max_age_ms=0").await;
    assert_eq!(pool["charged_bytes"], pool["resident_bytes"], "{pool:#}");
    assert_eq!(pool["uncharged_frames"], 0);
    let containers = pool["containers"].as_array().unwrap().iter().map(|row| bytes(&row["charged_bytes"]));
    assert_eq!(containers.sum::<u64>(), bytes(&pool["resident_bytes"]));
    pool
}

fn charged(pool: &Value, container: &str) -> u64 {
    bytes(&row(pool, "containers", "container", container)["charged_bytes"])
}

#[tokio::test]
async fn guests_of_one_domain_hold_an_image_once_and_each_system_charges_by_its_rule() {
    for (system, first, second, after) in [("static", 8, 0, 8), ("partial", 4, 4, 8), ("zones", 0, 0, 0)] {
        let folder = Folder::new();
        let image = folder.build("tree", 8);
        let (_dir, place) = place();
        let daemon = Daemon::start_with(&place, &["--accounting", system, "--store", folder.store()]).await;
        let one = guest(&place, "one", "/web/a", &[&image]).await;
        let two = guest(&place, "two", "/web/b", &[&image]).await;
        one.read(0, 8 * MIB);
        one.map(0, 8 * MIB);
        look(&daemon).await;
        two.map(0, 8 * MIB);
        let pool = look(&daemon).await;
        let held = &pool["images"][0];
        assert_eq!(
            (bytes(&held["mapped_bytes"]), bytes(&held["alone_bytes"])),
            (8 * MIB, 16 * MIB),
            "{system}"
        );
        assert_eq!((bytes(&pool["saved_bytes"]), bytes(&held["saved_bytes"])), (8 * MIB, 8 * MIB));
        assert_eq!((&held["domain"], &held["backing"]), (&json!("web"), &json!("pagecache")));
        let (a, b) = (charged(&pool, "/web/a"), charged(&pool, "/web/b"));
        assert_eq!((a, b), (first * MIB, second * MIB), "{system}");
        assert_eq!(charged(&pool, "/common"), bytes(&pool["resident_bytes"]) - (first + second) * MIB);
        let guests: u64 =
            pool["guests"].as_array().unwrap().iter().map(|row| bytes(&row["alone_bytes"])).sum();
        assert_eq!(guests, 16 * MIB);
        assert_eq!(daemon.get("/v1/guests/two").await["pool"]["alone_bytes"], json!(8 * MIB));
        // The first toucher leaves: the next by arrival pays. The last one leaves: no guest pays that does not use it.
        drop(one);
        daemon.until("/v1/guests", |guests| guests.as_array().unwrap().len() == 1).await;
        assert_eq!(charged(&look(&daemon).await, "/web/b"), after * MIB, "{system}");
        drop(two);
        daemon.until("/v1/guests", |guests| guests.as_array().unwrap().is_empty()).await;
        let pool = look(&daemon).await;
        assert_eq!(charged(&pool, "/common"), bytes(&pool["resident_bytes"]));
        assert_eq!(daemon.get("/v1/host").await["pool_uncharged_frames"], 0);
    }
}

#[tokio::test]
async fn charges_are_exact_while_guests_map_and_unmap_and_pages_come_and_go() {
    let folder = Folder::new();
    let images = [folder.build("one", 6), folder.build("two", 4)];
    let (_dir, place) = place();
    let daemon = Daemon::start_with(&place, &["--accounting", "partial", "--store", folder.store()]).await;
    let mut guests: Vec<Mapped> = vec![];
    let mut random = fastrand::Rng::with_seed(7);
    for round in 0..40 {
        if guests.len() < 5 && random.bool() {
            let name = format!("guest{round}");
            let container = format!("/t/{}", random.u8(0..3));
            guests.push(guest(&place, &name, &container, &[&images[0], &images[1]]).await);
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
        look(&daemon).await;
    }
}

#[tokio::test]
async fn an_image_that_no_guest_should_map_is_refused_in_one_sentence() {
    let folder = Folder::new();
    let image = folder.build("tree", 2);
    let (good, hex) = (image.to_string(), image.hex());
    let (_dir, place) = place();
    let daemon = Daemon::start_with(&place, &["--store", folder.store()]).await;
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
        let reason = open(&place, "/web/a", &names).await.unwrap_err();
        for word in words {
            assert!(reason.contains(word), "{names:?}: {reason} does not say {word:?}");
        }
        assert!(!reason.contains('\n') && !reason.contains("No image  "));
    }
    // A path in the store and a short form mean the image as well.
    let path = format!("{}/images/{hex}.erofs", folder.store());
    for name in [path, hex[..8].to_owned(), good.clone()] {
        let opened = open(&place, "/web/a", &[name]).await.unwrap();
        assert_eq!((opened[0].0.digest, opened[0].0.bytes % (2 * MIB)), (image, 0));
    }
    let asked = OpenImages {
        protocol_version: PROTOCOL_VERSION + 1,
        container: "/a".parse().unwrap(),
        images: vec![good],
    };
    let socket = tokio_seqpacket::UnixSeqpacket::connect(place.guest_socket()).await.unwrap();
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
    let (_dir, place) = place();
    let _daemon = Daemon::start_with(&place, &["--store", folder.store()]).await;
    let reason = open(&place, "/web/a", &[image]).await.unwrap_err();
    assert!(reason.contains("compressed") && reason.contains("file"), "{reason}");
}

#[tokio::test]
async fn an_image_that_changed_is_refused_and_one_that_changes_under_its_guests_is_reported() {
    let folder = Folder::new();
    let image = folder.build("tree", 4);
    let (_dir, place) = place();
    let daemon = Daemon::start_with(&place, &["--store", folder.store()]).await;
    let one = guest(&place, "one", "/web/a", &[&image]).await;
    one.map(0, MIB);
    look(&daemon).await;
    let file = folder.copy(&image, "web");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let mut content = std::fs::read(&file).unwrap();
    let last = content.len() - 1;
    content[last] ^= 1;
    std::fs::write(&file, &content).unwrap();
    let pool = daemon.until("/v1/pool", |pool| pool["images"][0]["changed"].is_string()).await;
    assert!(pool["images"][0]["changed"].as_str().unwrap().contains("changed"));
    let reason = open(&place, "/web/a", &[image.to_string()]).await.unwrap_err();
    assert!(reason.contains(&image.to_string()) && reason.contains("digest"), "{reason}");
    // Another domain has another file.
    open(&place, "/db", &[image.to_string()]).await.unwrap();
    std::fs::remove_file(&file).unwrap();
    daemon.until("/v1/pool", |pool| pool["images"].to_string().contains("was removed")).await;
    let events = daemon.get("/v1/events?follow=false").await;
    let told: Vec<&str> = events
        .as_array()
        .unwrap()
        .iter()
        .filter(|event| event["kind"] == "image_changed")
        .map(|event| event["detail"].as_str().unwrap())
        .collect();
    assert_eq!(told.len(), 3, "{told:#?}");
    assert!(told[0].contains("mapped by one") && told[0].contains(&image.to_string()), "{told:#?}");
}

#[tokio::test]
async fn pages_are_shared_inside_a_domain_alone() {
    let folder = Folder::new();
    let image = folder.build("tree", 4);
    let name = [image.to_string()];
    let (_dir, place) = place();
    let daemon = Daemon::start_with(&place, &["--store", folder.store()]).await;
    let inode = async |container: &str| {
        let opened = open(&place, container, &name).await.unwrap();
        opened[0].1.metadata().unwrap().ino()
    };
    let web = inode("/web/a").await;
    assert_eq!(inode("/web/b/c").await, web);
    let db = inode("/db").await;
    assert_ne!(db, web);
    let set = command(&place, &["set", "/web", "--domain", "tenants", "--create"]).output().unwrap();
    assert!(String::from_utf8(set.stdout).unwrap().contains("domain tenants"));
    assert_eq!(daemon.get("/v1/containers/web").await["trust_domain"], "tenants");
    let tenants = inode("/web/a").await;
    assert!(tenants != web && tenants != db);
    daemon.put("/v1/containers/db", r#"{"domain": "tenants"}"#).await;
    assert_eq!(inode("/db").await, tenants);
    daemon.patch("/v1/containers/db", r#"{"domain": null}"#).await;
    assert_eq!(inode("/db").await, db);
    // A guest that maps images stays in its domain.
    let one = guest(&place, "one", "/db", &[&image]).await;
    one.read(0, 4 * MIB);
    one.map(0, 4 * MIB);
    let problem = daemon.refused("/v1/containers/db", r#"{"domain": "tenants"}"#).await;
    assert_eq!((problem.status, problem.field.as_deref()), (422, Some("domain")));
    assert!(problem.detail.contains("one") && problem.detail.contains("tenants"), "{problem:?}");
    let problem = daemon.refused("/v1/guests/one", r#"{"container": "/web"}"#).await;
    assert_eq!((problem.status, problem.field.as_deref()), (422, Some("container")));
    assert!(problem.detail.contains("tenants") && problem.detail.contains("one"), "{problem:?}");
    let problem = daemon.refused("/v1/containers/web", r#"{"domain": "a/b"}"#).await;
    assert_eq!((problem.status, problem.field.as_deref()), (422, Some("domain")));
    let two = guest(&place, "two", "/web", &[&image]).await;
    two.read(0, 4 * MIB);
    let pool = look(&daemon).await;
    assert!(bytes(&pool["would_have_saved_bytes"]) >= 4 * MIB, "{pool:#}");
    let text = String::from_utf8(command(&place, &["pool"]).output().unwrap().stdout).unwrap();
    assert!(text.contains("more in one trust domain") && text.contains("one"), "{text}");
}

#[tokio::test]
async fn a_container_pays_for_images_that_are_bound_to_it_and_the_longest_path_decides() {
    let folder = Folder::new();
    let image = folder.build("tree/lib", 4);
    let (_dir, place) = place();
    let daemon = Daemon::start_with(&place, &["--store", folder.store()]).await;
    let one = guest(&place, "one", "/web/a", &[&image]).await;
    one.read(0, 4 * MIB);
    one.map(0, 4 * MIB);
    assert_eq!(charged(&look(&daemon).await, "/web/a"), 4 * MIB);
    daemon.put("/v1/containers/lib", "{}").await;
    let tree = folder.dir.path().join("tree");
    let (tree, lib) = (tree.to_str().unwrap().to_owned(), tree.join("lib").to_str().unwrap().to_owned());
    let run = |arguments: &[&str]| {
        let output = command(&place, arguments).output().unwrap();
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        (output.status.code().unwrap(), text)
    };
    let all = |pool: &Value| bytes(&pool["resident_bytes"]);
    let (code, text) = run(&["bind", &tree, "/lib"]);
    assert!(code == 0 && text.contains("1 images in use") && text.contains("/lib"), "{text}");
    let pool = look(&daemon).await;
    assert_eq!((charged(&pool, "/lib"), charged(&pool, "/web/a")), (all(&pool), 0));
    assert_eq!(pool["images"][0]["bound_to"], "/lib");
    // The same path and another container: only if that is said.
    let (code, text) = run(&["bind", &tree, "/common"]);
    assert!(code == 1 && text.contains("bound to /lib already") && text.contains(&tree), "{text}");
    assert_eq!(run(&["bind", &tree, "/lib"]).0, 0, "it is so already");
    assert_eq!(run(&["bind", &format!("{tree}/../tree/."), "/common", "--replace"]).0, 0);
    assert_eq!(charged(&look(&daemon).await, "/common"), all(&look(&daemon).await));
    assert_eq!(run(&["bind", &lib, "/lib"]).0, 0);
    assert_eq!(charged(&look(&daemon).await, "/lib"), all(&look(&daemon).await));
    assert_eq!(run(&["bind", &image.hex()[..8], "/web"]).0, 0);
    assert_eq!(charged(&look(&daemon).await, "/web"), all(&look(&daemon).await));
    let list = daemon.get("/v1/bindings").await;
    let images: Vec<usize> =
        list.as_array().unwrap().iter().map(|row| row["images"].as_array().unwrap().len()).collect();
    assert_eq!(images, [0, 0, 1], "{list:#}");
    // Bindings and the containers they need survive a killed balancer.
    for path in ["/v1/containers/lib", "/v1/containers/common"] {
        let error = daemon.call(Method::DELETE, path, "").await.unwrap_err().to_string();
        assert!(error.contains("not empty"), "{error}");
    }
    daemon.kill();
    let daemon = Daemon::start_with(&place, &["--store", folder.store()]).await;
    let subjects =
        |list: Value| list.as_array().unwrap().iter().map(|row| row["subject"].clone()).collect::<Vec<_>>();
    assert_eq!(subjects(daemon.get("/v1/bindings").await), subjects(list));
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
    let (_dir, place) = place();
    let daemon = Daemon::start_with(&place, &["--store", folder.store()]).await;
    for (body, field, words) in [
        (
            json!({"subject": "/not/there", "container": "/common"}),
            "subject",
            vec!["/not/there", "not there"],
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
        assert_eq!((problem.status, problem.field.as_deref()), (422, Some(field)), "{body}: {problem:?}");
        words.iter().for_each(|word| assert!(problem.detail.contains(word), "{body}: {problem:?}"));
    }
    for query in ["", "?path=/x", "?subject=/not/bound"] {
        assert!(daemon.call(Method::DELETE, &format!("/v1/bindings{query}"), "").await.is_err(), "{query}");
    }
    assert_eq!(daemon.get("/v1/bindings").await, json!([]));
}

#[tokio::test]
async fn the_pool_keeps_its_max_by_evicting_unmapped_pages_and_reports_what_it_cannot_evict() {
    let folder = Folder::new();
    let image = folder.build("tree", 16);
    let (_dir, place) = place();
    let daemon = Daemon::start_with(&place, &["--store", folder.store()]).await;
    let one = guest(&place, "one", "/web", &[&image]).await;
    if !one.drop_cache() {
        skip::skip!(TemporaryOnDisk, "temporary files are in memory and cannot leave it");
        return;
    }
    one.read(0, 16 * MIB);
    let _pinned = one.pin(0, 4 * MIB);
    one.map(0, 4 * MIB);
    let pool = look(&daemon).await;
    assert!(charged(&pool, "/common") >= 12 * MIB && charged(&pool, "/web") == 4 * MIB);
    // A guest's own limit is not touched by what is the pool's.
    let before = daemon.get("/v1/guests/one").await["target_bytes"].clone();
    daemon.patch("/v1/containers/common", &json!({"max_bytes": 2 * MIB}).to_string()).await;
    daemon.until("/v1/containers/common", |common| bytes(&common["usage_bytes"]) <= 2 * MIB).await;
    let pool = look(&daemon).await;
    assert!(bytes(&pool["resident_bytes"]) >= 4 * MIB && charged(&pool, "/web") == 4 * MIB, "{pool:#}");
    assert_eq!(pool["shortfalls"], json!([]));
    assert_eq!(daemon.get("/v1/guests/one").await["target_bytes"], before);
    // A bound image counts as a whole, and pages of it that guests map cannot be evicted. Unmapped pages make room.
    let digest = image.to_string();
    let bind = |to: &str| json!({"subject": digest, "container": to, "replace": true}).to_string();
    one.read(0, 16 * MIB);
    look(&daemon).await;
    daemon.patch("/v1/containers/common", &json!({"max_bytes": 5 * MIB}).to_string()).await;
    daemon.put("/v1/bindings", &bind("/common")).await;
    daemon.until("/v1/containers/common", |common| bytes(&common["usage_bytes"]) <= 5 * MIB).await;
    daemon.patch("/v1/containers/common", r#"{"max_bytes": null}"#).await;
    let problem = daemon.refused("/v1/containers/common", &json!({"max_bytes": MIB}).to_string()).await;
    assert_eq!((problem.status, problem.field.as_deref()), (422, Some("max_bytes")));
    assert!(problem.detail.contains(&(4 * MIB).to_string()), "{problem:?}");
    daemon.put("/v1/containers/small", &json!({"max_bytes": MIB}).to_string()).await;
    let error = daemon.call(Method::PUT, "/v1/bindings", &bind("/small")).await.unwrap_err().to_string();
    assert!(error.contains("/small") && error.contains(&(3 * MIB).to_string()), "{error}");
    // Guests that map more later cause a shortfall, which is reported.
    daemon.patch("/v1/containers/common", &json!({"max_bytes": 5 * MIB}).to_string()).await;
    let _more = one.pin(4 * MIB, 4 * MIB);
    one.map(4 * MIB, 4 * MIB);
    let pool = daemon.until("/v1/pool?max_age_ms=0", |pool| pool["shortfalls"] != json!([])).await;
    assert_eq!(pool["shortfalls"][0]["missing_bytes"], json!(3 * MIB), "{pool:#}");
    let events = daemon.get("/v1/events?follow=false").await.to_string();
    assert!(events.contains("pool_shortfall") && events.contains("3M cannot be evicted"), "{events}");
}

#[tokio::test]
async fn the_limit_of_the_first_toucher_holds_for_its_pages_of_the_pool() {
    let folder = Folder::new();
    let image = folder.build("tree", 16);
    let (_dir, place) = place();
    let daemon = Daemon::start_with(&place, &["--store", folder.store()]).await;
    daemon.put("/v1/containers/web", &json!({"max_bytes": 256 * MIB}).to_string()).await;
    let one = guest(&place, "one", "/web", &[&image]).await;
    let target = async || bytes(&daemon.get("/v1/guests/one").await["target_bytes"]);
    let before = target().await;
    one.read(0, 16 * MIB);
    one.map(0, 16 * MIB);
    daemon.until("/v1/guests/one", |guest| bytes(&guest["target_bytes"]) <= before - 15 * MIB).await;
    daemon
        .put("/v1/bindings", &json!({"subject": image.to_string(), "container": "/common"}).to_string())
        .await;
    daemon.until("/v1/guests/one", |guest| bytes(&guest["target_bytes"]) + MIB >= before).await;
}

#[tokio::test]
async fn the_images_that_a_guest_reports_must_fit_its_table_and_the_store() {
    let folder = Folder::new();
    let (image, other) = (folder.build("tree", 4), folder.build("other", 2));
    let (_dir, place) = place();
    let daemon = Daemon::start_with(&place, &["--store", folder.store()]).await;
    let opened = open(&place, "/web", &[image.to_string(), other.to_string()]).await.unwrap();
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
        let vmm = Vmm::connect_with(&place, about, table).await;
        let Some(ToVmm::Refused { reason }) = vmm.hear_any().await else { panic!("taken in: {words:?}") };
        words.iter().for_each(|word| assert!(reason.contains(word), "{reason} does not say {word:?}"));
    }
    assert_eq!(daemon.get("/v1/guests").await, json!([]));
}

#[tokio::test]
async fn an_image_that_a_guest_maps_stays_and_its_guests_are_named() {
    let folder = Folder::new();
    let image = folder.build("tree", 2);
    let (_dir, place) = place();
    let daemon = Daemon::start_with(&place, &["--store", folder.store()]).await;
    let one = guest(&place, "one", "/web", &[&image]).await;
    let remove = || {
        let output = command(&place, &["image", "rm", &image.to_string(), "--store", folder.store()])
            .output()
            .unwrap();
        (output.status.success(), String::from_utf8(output.stderr).unwrap())
    };
    let (done, text) = remove();
    assert!(!done && text.contains("one") && text.contains(&image.to_string()), "{text}");
    // The balancer may be gone: the guest itself keeps the image.
    daemon.kill();
    assert!(!remove().0);
    let daemon = Daemon::start_with(&place, &["--store", folder.store()]).await;
    drop(one);
    let (done, text) = remove();
    assert!(done, "{text}");
    assert!(open(&place, "/web", &[image.to_string()]).await.unwrap_err().contains("No image"));
    drop(daemon);
}

#[tokio::test]
async fn a_guest_that_comes_back_is_accounted_for_as_before() {
    let folder = Folder::new();
    let image = folder.build("tree", 4);
    let (_dir, place) = place();
    let arguments = ["--store", folder.store()];
    let daemon = Daemon::start_with(&place, &arguments).await;
    daemon.put("/v1/containers/web", r#"{"domain": "tenants"}"#).await;
    let one = guest(&place, "one", "/web", &[&image]).await;
    one.read(0, 3 * MIB);
    one.map(0, 3 * MIB);
    assert_eq!(charged(&look(&daemon).await, "/web"), 3 * MIB);
    daemon.kill();
    let daemon = Daemon::start_with(&place, &arguments).await;
    let one = guest_with(&place, one, "/web").await;
    let pool = look(&daemon).await;
    assert_eq!((charged(&pool, "/web"), &pool["images"][0]["domain"]), (3 * MIB, &json!("tenants")));
    assert_eq!(pool["images"][0]["changed"], Value::Null);
    drop(one);
}
