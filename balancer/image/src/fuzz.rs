//! What the fuzz targets call: any bytes as an archive, as two layers, and as the documents of an image.
//!
//! They panic when a promise is broken: a file of a tree whose contents never come, or have another length than the
//! tree says. An error is an answer as good as any.

use crate::error::BuildError;
use crate::source::{Source, open};
use crate::tree::Kind;
use crate::watch::Watch;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::io::{self, Write};
use std::sync::atomic::AtomicBool;

/// Longest file that is read to its end: holes cost nothing in an archive.
const READ_BYTES_MAX: u64 = 1 << 22;
/// What separates two layers, or two documents.
const SEPARATOR: &[u8] = b"\0--\0";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// A tar on its own, or a saved image in one.
pub fn archive(data: &[u8]) {
    read(data).ok();
}

/// Two tars as layers of an image.
pub fn layers(data: &[u8]) {
    let layers = split(data);
    let listed = |at: usize| format!("{{\"mediaType\": \"{LAYER}\", @{at}}}");
    let list: Vec<String> = (2..layers.len() + 2).map(listed).collect();
    let manifest = format!("{{\"schemaVersion\": 2, \"layers\": [{}]}}", list.join(", "));
    let index = "{\"manifests\": [{\"mediaType\": \"application/vnd.oci.image.manifest.v1+json\", @1}]}";
    let mut parts = vec![index.as_bytes(), manifest.as_bytes()];
    parts.extend(layers);
    image(&parts).ok();
}

/// The documents of an image layout, `index.json` first. `@N` in one is digest and size of document N, which comes
/// later: with digests by chance no input would get behind the first document.
pub fn layout(data: &[u8]) {
    image(&split(data)).ok();
}

fn split(data: &[u8]) -> Vec<&[u8]> {
    let (mut parts, mut rest) = (Vec::new(), data);
    while let Some(at) = rest.windows(SEPARATOR.len()).position(|window| window == SEPARATOR)
        && parts.len() < 8
    {
        parts.push(&rest[..at]);
        rest = &rest[at + SEPARATOR.len()..];
    }
    parts.push(rest);
    parts
}

/// An image of documents and layers, in a tar.
fn image(parts: &[&[u8]]) -> Result<(), BuildError> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut known: HashMap<usize, String> = HashMap::new();
    for (at, part) in parts.iter().enumerate().rev() {
        let mut bytes = part.to_vec();
        // Layers have no references.
        if bytes.first() == Some(&b'{') {
            for (number, reference) in &known {
                bytes = replaced(&bytes, format!("@{number}").as_bytes(), reference);
            }
        }
        let hex: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        let name = if at == 0 { "index.json".into() } else { format!("blobs/sha256/{hex}") };
        append(&mut builder, &name, &bytes);
        known.insert(at, format!("\"digest\": \"sha256:{hex}\", \"size\": {}", bytes.len()));
    }
    append(&mut builder, "oci-layout", b"{}");
    read(&builder.into_inner().unwrap_or_default())
}

fn append(builder: &mut tar::Builder<Vec<u8>>, name: &str, bytes: &[u8]) {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    builder.append_data(&mut header, name, bytes).ok();
}

fn replaced(text: &[u8], from: &[u8], to: &str) -> Vec<u8> {
    let (mut out, mut rest) = (Vec::new(), text);
    while let Some(at) = rest.windows(from.len()).position(|window| window == from) {
        out.extend(&rest[..at]);
        out.extend(to.as_bytes());
        rest = &rest[at + from.len()..];
    }
    out.extend(rest);
    out
}

/// Reads a file as a source, with all contents.
fn read(bytes: &[u8]) -> Result<(), BuildError> {
    let failed = |source| BuildError::Read { path: "the input".into(), source };
    let mut file = tempfile::NamedTempFile::new().map_err(failed)?;
    file.write_all(bytes).map_err(failed)?;
    let (cancelled, mut report) = (AtomicBool::new(false), |_| ());
    let mut watch = Watch::new(&cancelled, &mut report);
    for mut source in open(file.path(), &std::env::temp_dir(), &mut watch)? {
        read_contents(&mut *source, &mut watch)?;
    }
    Ok(())
}

fn read_contents(source: &mut dyn Source, watch: &mut Watch<'_>) -> Result<(), BuildError> {
    let tree = source.tree(watch)?;
    let traversal = tree.traversal();
    let mut missing = HashMap::new();
    for id in &traversal.inodes {
        if let Kind::Regular(bytes) = tree.get(*id).kind {
            missing.insert(*id, bytes);
        }
    }
    source.contents(&tree, &traversal, &mut |id, contents| {
        let bytes = missing.remove(&id);
        let Some(bytes) = bytes else { panic!("{} came twice", traversal.shown(id)) };
        let limit = bytes.min(READ_BYTES_MAX);
        let failed = |source| BuildError::Read { path: traversal.shown(id), source };
        let read =
            io::copy(&mut io::Read::take(&mut *contents, limit + 1), &mut io::sink()).map_err(failed)?;
        if read < limit {
            return Err(failed(io::ErrorKind::UnexpectedEof.into()));
        }
        assert!(bytes > READ_BYTES_MAX || read == bytes, "{} is longer than {bytes}", traversal.shown(id));
        Ok(())
    })?;
    assert!(missing.is_empty(), "contents of {} files are missing", missing.len());
    Ok(())
}

#[cfg(test)]
#[path = "fuzz_test.rs"]
mod tests;
