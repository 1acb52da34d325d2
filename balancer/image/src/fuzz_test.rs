use super::*;
use crate::source::odd_archive;

/// Odd archives with a few damaged bytes.
#[test]
fn damaged_archives_and_layers_are_read_or_refused() {
    for seed in 0..300 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let damage = |bytes: &mut Vec<u8>, rng: &mut fastrand::Rng| {
            for _ in 0..rng.usize(..4) {
                let at = rng.usize(..bytes.len());
                bytes[at] = rng.u8(..);
            }
        };
        let (mut one, mut two) = (odd_archive(seed), odd_archive(seed + 1000));
        damage(&mut one, &mut rng);
        archive(&one);
        damage(&mut two, &mut rng);
        layers(&[&one, SEPARATOR, &two].concat());
    }
}

#[test]
fn references_between_documents_get_behind_the_digests() {
    let manifest = br#"{"schemaVersion": 2, "layers": [{"mediaType": "", @2}, {"mediaType": "", @2}]}"#;
    let index = br#"{"manifests": [{"mediaType": "", @1, "platform": null}]}"#;
    let layer = odd_archive(1);
    image(&[index, manifest, &layer]).unwrap();
    assert!(image(&[index, manifest, b"no tar"]).is_err());
    let data = [&index[..], SEPARATOR, manifest, SEPARATOR, &layer].concat();
    assert_eq!(split(&data), [&index[..], manifest, &layer]);
    for at in 0..index.len() + manifest.len() {
        let mut data = data.clone();
        data[at] = b'0';
        layout(&data);
    }
}
