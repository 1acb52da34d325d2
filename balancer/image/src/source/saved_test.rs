//! What is called an image, besides an OCI image layout.

use super::layouts::Layout;
use super::*;

const GZIP_TAR: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// The root of a system, as far as it is looked at.
fn root() -> Vec<u8> {
    archive(&[("bin/sh", "shell", FILE), ("etc/passwd", "root", FILE)])
}

fn is_root(path: &Path) {
    let (nodes, _) = image(path);
    assert_eq!(nodes["/bin/sh"].held, b"shell", "{}", path.display());
    assert!(!nodes.contains_key("/blobs") && !nodes.contains_key("/manifest.json"));
}

/// A folder in a tar, as `tar -C FOLDER -c .` writes it.
fn tarred(folder: &Path, out: &TempDir) -> Vec<PathBuf> {
    let mut builder = Builder::new(Vec::new());
    builder.follow_symlinks(false);
    builder.append_dir_all(".", folder).unwrap();
    let plain = builder.into_inner().unwrap();
    let forms =
        [("plain.tar", plain.clone()), ("packed.tar.gz", gzip(&plain)), ("packed.tar.zst", zstd(&plain))];
    forms
        .map(|(name, bytes)| {
            fs::write(out.path().join(name), bytes).unwrap();
            out.path().join(name)
        })
        .into()
}

fn hex(bytes: &[u8]) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_layout_in_a_tar_or_without_its_marker_is_a_layout() {
    let (layout, out) = (Layout::new(), tempfile::tempdir().unwrap());
    layout.index(&[layout.named(&[layout.layer(&gzip(&root()))], "x")]);
    is_root(layout.path());
    tarred(layout.path(), &out).iter().for_each(|path| is_root(path));
    fs::remove_file(layout.path().join("oci-layout")).unwrap();
    is_root(layout.path());
    tarred(layout.path(), &out).iter().for_each(|path| is_root(path));
}

/// Layers in folders of their own, equal ones linked; the digest is that of the tar.
#[test]
fn an_old_docker_save_is_read_by_its_list_and_verified() {
    let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let write = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    };
    let config = |architecture: &str, digest: &str| {
        serde_json::json!({"architecture": architecture, "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [digest, digest]}})
        .to_string()
    };
    write("1/layer.tar", &root());
    fs::create_dir(dir.path().join("2")).unwrap();
    std::os::unix::fs::symlink("../1/layer.tar", dir.path().join("2/layer.tar")).unwrap();
    let names = ["1/layer.tar", "2/layer.tar"];
    let list = serde_json::json!([{"Config": "c.json", "RepoTags": ["web:1"], "Layers": names}]);
    write("manifest.json", list.to_string().as_bytes());
    write("c.json", config("amd64", &format!("sha256:{}", hex(&root()))).as_bytes());
    is_root(dir.path());
    tarred(dir.path(), &out).iter().for_each(|path| is_root(path));
    write("c.json", config("arm64", "sha256:0").as_bytes());
    assert!(refusal(dir.path()).contains("only: web:1 linux/arm64"));
    write("c.json", config("amd64", &format!("sha256:{}", hex(b"x"))).as_bytes());
    assert!(refusal(dir.path()).contains("its digest is"));
    let two = serde_json::json!([list[0], list[0]]);
    write("manifest.json", two.to_string().as_bytes());
    assert!(refusal(dir.path()).contains("several images"));
    for bad in ["../../etc/passwd", "/etc/passwd", "none.tar"] {
        let list = serde_json::json!([{"Config": "c.json", "Layers": [bad, bad]}]);
        write("manifest.json", list.to_string().as_bytes());
        let text = refusal(dir.path());
        assert!(text.contains("is not the name of a file in it") || text.contains("No such file"), "{text}");
    }
}

#[test]
fn a_folder_of_skopeo_and_podman_is_read_by_its_manifest() {
    let (layout, out) = (Layout::new(), tempfile::tempdir().unwrap());
    let blob = |bytes: &[u8], name: &str| fs::write(out.path().join(name), bytes).unwrap();
    let layer = layout.blob(GZIP_TAR, &gzip(&root()));
    blob(&gzip(&root()), &hex(&gzip(&root())));
    let text = serde_json::json!({"schemaVersion": 2, "layers": [layer]}).to_string();
    blob(text.as_bytes(), "manifest.json");
    blob(b"Directory Transport Version: 1.1\n", "version");
    is_root(out.path());
    // With all platforms, as `--all` copies them.
    let mut manifest = layout.blob("application/vnd.oci.image.manifest.v1+json", text.as_bytes());
    manifest["platform"] = serde_json::json!({"os": "linux", "architecture": "amd64"});
    blob(text.as_bytes(), &format!("{}.manifest.json", hex(text.as_bytes())));
    blob(
        serde_json::json!({"schemaVersion": 2, "manifests": [manifest]}).to_string().as_bytes(),
        "manifest.json",
    );
    is_root(out.path());
    blob(br#"{"schemaVersion": 1, "fsLayers": [{"blobSum": "sha256:0"}]}"#, "manifest.json");
    assert!(refusal(out.path()).contains("of before 2016"));
    blob(br#"{"schemaVersion": 2, "layers": []}"#, "manifest.json");
    assert!(refusal(out.path()).contains("0 layers"));
}

#[test]
fn a_root_that_has_files_of_these_names_is_a_root() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("manifest.json"), r#"{"name": "an app", "version": 1}"#).unwrap();
    fs::write(dir.path().join("index.json"), "[]").unwrap();
    fs::write(dir.path().join("config.json"), "{}").unwrap();
    assert!(image(dir.path()).0.contains_key("/manifest.json"));
    let out = tempfile::tempdir().unwrap();
    for path in tarred(dir.path(), &out) {
        assert!(image(&path).0.contains_key("/manifest.json"));
    }
    fs::write(dir.path().join("config.json"), r#"{"ociVersion": "1.0.2"}"#).unwrap();
    fs::create_dir(dir.path().join("rootfs")).unwrap();
    assert!(refusal(dir.path()).contains("build the folder"));
}

#[test]
fn what_an_index_lists_is_told_apart() {
    let layout = Layout::new();
    let layer = layout.blob(GZIP_TAR, &gzip(&root()));
    let named = |name: &str| layout.named(std::slice::from_ref(&layer), name);
    let good = named("good");
    let on = |architecture: &str, variant: &str| {
        let other = layout.layer(&archive(&[(variant, "x", FILE)]));
        let mut image = layout.named(&[other], variant);
        image["platform"] =
            serde_json::json!({"os": "linux", "architecture": architecture, "variant": variant});
        image
    };
    let mut artifact = layout.blob("application/vnd.oci.image.manifest.v1+json", b"{\"schemaVersion\": 2}");
    artifact["artifactType"] = "application/vnd.example.sbom".into();
    let signature = serde_json::json!({"schemaVersion": 2, "layers":
        [{"mediaType": "application/vnd.dev.cosign.simplesigning.v1+json", "digest": "sha256:0", "size": 0}]});
    let signature =
        layout.blob("application/vnd.oci.image.manifest.v1+json", signature.to_string().as_bytes());
    let mut attestation = on("amd64", "a");
    attestation["annotations"] = serde_json::json!({"vnd.docker.reference.type": "attestation-manifest"});
    let mut null = good.clone();
    for key in ["annotations", "platform", "urls"] {
        null[key] = serde_json::Value::Null;
    }
    for list in [
        vec![null],
        vec![good.clone(), artifact.clone(), signature.clone(), attestation],
        vec![on("arm64", "v8"), good.clone()],
    ] {
        layout.index(&list);
        is_root(layout.path());
    }
    let mut plain = good;
    plain["platform"] = serde_json::json!({"os": "linux", "architecture": "amd64"});
    layout.index(&[on("amd64", "v3"), plain, on("amd64", "v2")]);
    is_root(layout.path());
    layout.index(&[artifact, signature]);
    let text = refusal(layout.path());
    assert!(text.contains("vnd.example.sbom") && text.contains("simplesigning"), "{text}");
}

#[test]
fn the_configuration_says_the_platform_where_the_index_does_not() {
    let layout = Layout::new();
    let config = |architecture: &str| {
        let text = serde_json::json!({"architecture": architecture, "os": "linux"}).to_string();
        layout.blob("application/vnd.oci.image.config.v1+json", text.as_bytes())
    };
    for (architecture, taken) in [("amd64", true), ("arm64", false)] {
        let manifest = serde_json::json!({"schemaVersion": 2, "config": config(architecture),
            "layers": [layout.layer(&root())]});
        let manifest =
            layout.blob("application/vnd.oci.image.manifest.v1+json", manifest.to_string().as_bytes());
        layout.index(&[manifest]);
        if taken {
            is_root(layout.path());
        } else {
            let text = refusal(layout.path());
            assert!(text.contains("only: linux/arm64 sha256:"), "{text}");
        }
    }
}

#[test]
fn first_bytes_decide_how_a_layer_is_compressed() {
    for (media_type, bytes) in [
        (GZIP_TAR, root()),
        (GZIP_TAR, zstd(&root())),
        ("application/vnd.oci.image.layer.v1.tar", gzip(&root())),
        ("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", root()),
    ] {
        let layout = Layout::new();
        layout.index(&[layout.named(&[layout.blob(media_type, &bytes)], "x")]);
        is_root(layout.path());
    }
}

/// Docker writes an archive without its end for an empty layer now and then, and other tools leave out padding.
#[test]
fn a_digest_vouches_for_the_length_of_a_layer() {
    let whole = root();
    for bytes in
        [&whole[..whole.len() - 1024], &whole[..whole.len() - 1024 - 512 + 4], &whole[..whole.len() - 512]]
    {
        let layout = Layout::new();
        layout.index(&[layout.named(&[layout.layer(bytes)], "x")]);
        is_root(layout.path());
    }
    let layout = Layout::new();
    layout.index(&[layout.named(&[layout.layer(&whole[..514])], "x")]);
    assert!(refusal(layout.path()).contains("ends within"));
}
