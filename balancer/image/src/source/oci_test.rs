use super::*;
use crate::tree::Inode;
use sha2::{Digest as _, Sha256};

pub(super) struct Layout(TempDir);

impl Layout {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("blobs/sha256")).unwrap();
        fs::write(dir.path().join("oci-layout"), r#"{"imageLayoutVersion": "1.0.0"}"#).unwrap();
        Self(dir)
    }

    /// A blob, and its descriptor.
    pub(super) fn blob(&self, media_type: &str, bytes: &[u8]) -> serde_json::Value {
        let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        fs::write(self.0.path().join("blobs/sha256").join(&hex), bytes).unwrap();
        serde_json::json!({"mediaType": media_type, "digest": format!("sha256:{hex}"), "size": bytes.len()})
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(super) fn layer(&self, bytes: &[u8]) -> serde_json::Value {
        self.blob(TAR, bytes)
    }

    /// An image with a configuration and a name.
    pub(super) fn named(&self, layers: &[serde_json::Value], name: &str) -> serde_json::Value {
        let digests: Vec<_> = layers.iter().map(|layer| layer["digest"].clone()).collect();
        let config = serde_json::json!({
            "architecture": "amd64", "os": "linux", "config": {},
            "rootfs": {"type": "layers", "diff_ids": digests},
        });
        let config = self.blob("application/vnd.oci.image.config.v1+json", config.to_string().as_bytes());
        let manifest = serde_json::json!({"schemaVersion": 2, "config": config, "layers": layers});
        let mut manifest = self.blob(MANIFEST, manifest.to_string().as_bytes());
        manifest["annotations"] = serde_json::json!({"org.opencontainers.image.ref.name": name});
        manifest
    }

    fn manifest(&self, layers: &[serde_json::Value]) -> serde_json::Value {
        let manifest = serde_json::json!({"schemaVersion": 2, "layers": layers});
        self.blob(MANIFEST, manifest.to_string().as_bytes())
    }

    pub(super) fn index(&self, manifests: &[serde_json::Value]) {
        let index = serde_json::json!({"schemaVersion": 2, "manifests": manifests});
        fs::write(self.0.path().join("index.json"), index.to_string()).unwrap();
    }
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const TAR: &str = "application/vnd.oci.image.layer.v1.tar";

fn on(mut descriptor: serde_json::Value, os: &str, architecture: &str) -> serde_json::Value {
    descriptor["platform"] = serde_json::json!({"os": os, "architecture": architecture});
    descriptor
}

#[test]
fn layers_become_images_lowest_first_and_whiteouts_those_of_overlayfs() {
    let layout = Layout::new();
    let lower = archive(&[("etc/a", "1", FILE), ("etc/b", "2", FILE), ("var/x", "3", FILE)]);
    let upper = archive(&[
        ("etc/.wh.a", "", FILE),
        ("etc/b", "new", FILE),
        (".wh.var", "", FILE),
        ("var/y", "4", FILE),
        ("opt/.wh..wh..opq", "", FILE),
        ("opt/z", "5", FILE),
        (".wh..wh.plnk", "", DIR),
    ]);
    let layers = [
        layout.blob(&format!("{TAR}+gzip"), &gzip(&lower)),
        layout.blob(&format!("{TAR}+zstd"), &zstd(&upper)),
        layout.blob(TAR, &lower),
    ];
    layout.index(&[layout.manifest(&layers)]);
    let images = images(layout.0.path()).unwrap();
    assert_eq!(images.len(), 3);
    assert_eq!(images[0], images[2], "compression does not matter");
    let upper = &images[1].0;
    assert_eq!((upper["/etc/a"].mode, upper["/etc/a"].held.as_slice()), (0o020_000, b"(0, 0)".as_slice()));
    assert_eq!(upper["/etc/b"].held, b"new");
    let opaque = |path: &str| upper[path].xattrs.get(b"trusted.overlay.opaque".as_slice()).map(Vec::as_slice);
    assert_eq!((opaque("/var"), opaque("/opt"), opaque("/etc")), (Some(&b"y"[..]), Some(&b"y"[..]), None));
    assert_eq!(
        (upper["/var/y"].held.as_slice(), upper["/opt/z"].held.as_slice()),
        (b"4".as_slice(), b"5".as_slice())
    );
    assert!(!upper.keys().any(|path| path.contains(".wh.")));
    let origin = sources(layout.0.path()).unwrap()[1].origin();
    assert!(origin.name.contains("@sha256:") && origin.layer.is_some_and(|layer| layer.index == 1));
    // In a tar on its own they are names as any other.
    let out = tempfile::tempdir().unwrap();
    let alone = image(&written(&out, &archive(&[("etc/.wh.a", "", FILE)]))).0;
    assert!(alone.contains_key("/etc/.wh.a"));
}

/// umoci names all that was below a folder that became something else, or went.
#[test]
fn whiteouts_below_what_the_layer_hides_itself_are_nothing() {
    let layout = Layout::new();
    let base = || layout.blob(TAR, &archive(&[("etc/a/b", "x", FILE), ("etc/deep/b", "x", FILE)]));
    for members in [
        [("etc", "a file", FILE), ("etc/.wh.a", "", FILE), ("etc/deep/.wh..wh..opq", "", FILE)],
        [("etc/.wh.a", "", FILE), ("etc/deep/.wh.b", "", FILE), ("etc", "a file", FILE)],
    ] {
        layout.index(&[layout.manifest(&[base(), layout.blob(TAR, &archive(&members))])]);
        let (nodes, _) = images(layout.0.path()).unwrap().remove(1);
        assert_eq!(nodes["/etc"].held, b"a file", "{members:?}");
        assert_eq!(nodes.len(), 2, "{members:?}");
    }
    let gone = [("etc/a/.wh.b", "", FILE), ("etc/.wh.a", "", FILE)];
    layout.index(&[layout.manifest(&[base(), layout.blob(TAR, &archive(&gone))])]);
    let (nodes, _) = images(layout.0.path()).unwrap().remove(1);
    assert_eq!((nodes["/etc/a"].mode, nodes.len()), (0o020_000, 3));
}

#[test]
fn the_manifest_for_this_platform_is_taken_or_the_choices_are_named() {
    let layout = Layout::new();
    let manifest = |name: &str| {
        let layer = layout.blob(TAR, &archive(&[(name, "x", FILE)]));
        layout.manifest(&[layer])
    };
    let (amd, arm) = (on(manifest("amd"), "linux", "amd64"), on(manifest("arm"), "linux", "arm64"));
    let attestation = on(manifest("attestation"), "unknown", "unknown");
    let inner = serde_json::json!({"manifests": [arm, amd, attestation]});
    layout.index(&[layout.blob(INDEX, inner.to_string().as_bytes())]);
    let (nodes, _) = image(layout.0.path());
    assert!(nodes.contains_key("/amd"));
    layout.index(std::slice::from_ref(&arm));
    let text = refusal(layout.0.path());
    assert!(text.contains("no image for linux/amd64") && text.contains("linux/arm64 sha256:"), "{text}");
    let mut other = on(manifest("other"), "linux", "amd64");
    other["annotations"] = serde_json::json!({"org.opencontainers.image.ref.name": "edge"});
    layout.index(&[amd, other]);
    let text = refusal(layout.0.path());
    assert!(text.contains("several images") && text.contains("edge linux/amd64 sha256:"), "{text}");
    layout.index(&[]);
    assert!(refusal(layout.0.path()).contains("does not name a manifest"));
}

#[test]
fn layouts_that_lie_are_refused() {
    let layout = Layout::new();
    let bytes = gzip(&archive(&[("a", "x", FILE)]));
    let layer = layout.blob(&format!("{TAR}+gzip"), &bytes);
    let good = layout.manifest(std::slice::from_ref(&layer));
    layout.index(std::slice::from_ref(&good));
    image(layout.0.path());
    let blob = |descriptor: &serde_json::Value| {
        let hex = descriptor["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
        layout.0.path().join("blobs/sha256").join(hex)
    };
    // Another layer of the same length, which is a good one too.
    let other = gzip(&archive(&[("a", "y", FILE)]));
    assert_eq!(other.len(), bytes.len());
    fs::write(blob(&layer), other).unwrap();
    assert!(refusal(layout.0.path()).contains("its digest is"));
    fs::write(blob(&layer), &bytes[1..]).unwrap();
    assert!(refusal(layout.0.path()).contains(&format!("bytes, not {}", bytes.len())));
    fs::remove_file(blob(&layer)).unwrap();
    assert!(refusal(layout.0.path()).contains("No such file"));
    fs::write(blob(&layer), &bytes).unwrap();
    let text = fs::read_to_string(blob(&good)).unwrap();
    fs::write(blob(&good), text.replace("\"schemaVersion\":2", "\"schemaVersion\":3")).unwrap();
    assert!(refusal(layout.0.path()).contains("its digest is"));
    let with = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut layer = layer.clone();
        change(&mut layer);
        layout.index(&[layout.manifest(&[layer])]);
        refusal(layout.0.path())
    };
    assert!(with(&|layer| layer["mediaType"] = "application/x-iso".into()).contains("application/x-iso"));
    assert!(with(&|layer| layer["digest"] = "sha256:../../../etc/passwd".into()).contains("is no digest"));
    assert!(with(&|layer| layer["digest"] = "sha512:00".into()).contains("is no digest"));
    layout.index(&[layout.manifest(&[])]);
    assert!(refusal(layout.0.path()).contains("0 layers"));
    fs::write(layout.0.path().join("index.json"), "{").unwrap();
    assert!(refusal(layout.0.path()).contains("index.json"));
    // An index that names itself by another's digest cannot be made; one that names many can.
    let many: Vec<_> = (0..1001).map(|_| good.clone()).collect();
    layout.index(&many);
    assert!(refusal(layout.0.path()).contains("more than 1000 manifests"));
}

#[test]
fn a_layer_cannot_give_orders_to_the_overlay() {
    let layout = Layout::new();
    let mut builder = Builder::new(Vec::new());
    builder.append_pax_extensions([("SCHILY.xattr.trusted.overlay.redirect", b"/etc".as_slice())]).unwrap();
    builder.append_data(&mut header(DIR, 0), "d", &b""[..]).unwrap();
    layout.index(&[layout.manifest(&[layout.blob(TAR, &builder.into_inner().unwrap())])]);
    assert_eq!(image(layout.0.path()).0["/d"].xattrs, Inode::folder().xattrs);
}
