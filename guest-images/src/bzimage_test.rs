use super::*;
use std::io::Write;

/// A bzImage with one sector of setup and `packed` as its payload, unpacking to `unpacked_bytes`.
fn bzimage(packed: &[u8], unpacked_bytes: u32) -> Vec<u8> {
    let mut image = vec![0; 2 * SECTOR_BYTES + 64];
    image[SETUP_SECTS] = 1;
    image[HEADER_MAGIC..HEADER_MAGIC + 4].copy_from_slice(b"HdrS");
    image[PAYLOAD_OFFSET..PAYLOAD_OFFSET + 4].copy_from_slice(&64u32.to_le_bytes());
    let length = packed.len() as u32 + 4;
    image[PAYLOAD_LENGTH..PAYLOAD_LENGTH + 4].copy_from_slice(&length.to_le_bytes());
    image.extend_from_slice(packed);
    image.extend_from_slice(&unpacked_bytes.to_le_bytes());
    image.extend_from_slice(&[0xcc; 100]);
    image
}

fn kernel() -> Vec<u8> {
    let mut elf = ELF_MAGIC.to_vec();
    elf.extend((0..20_000u32).flat_map(|n| (n / 7).to_le_bytes()));
    elf
}

fn lz4(content: &[u8], block_bytes: usize) -> Vec<u8> {
    let mut packed = LZ4_LEGACY_MAGIC.to_vec();
    for block in content.chunks(block_bytes) {
        let block = lz4_flex::block::compress(block);
        packed.extend((block.len() as u32).to_le_bytes());
        packed.extend(block);
    }
    packed
}

#[test]
fn lz4_blocks_are_joined() {
    let elf = kernel();
    assert_eq!(vmlinux(&bzimage(&lz4(&elf, 30_000), elf.len() as u32)).unwrap(), elf);
}

#[test]
fn gzip_and_zstd_unpack_too() {
    let elf = kernel();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&elf).unwrap();
    assert_eq!(vmlinux(&bzimage(&gzip.finish().unwrap(), elf.len() as u32)).unwrap(), elf);
    let zstd = ruzstd::encoding::compress_to_vec(elf.as_slice(), ruzstd::encoding::CompressionLevel::Fastest);
    assert_eq!(vmlinux(&bzimage(&zstd, elf.len() as u32)).unwrap(), elf);
}

#[test]
fn a_bad_image_is_refused_with_its_problem() {
    let elf = kernel();
    let good = bzimage(&lz4(&elf, 30_000), elf.len() as u32);
    let problem = |image: &[u8]| vmlinux(image).unwrap_err().to_string();
    assert!(problem(b"").contains("no setup header"));
    assert!(problem(&elf).contains("no setup header"));
    assert!(problem(&good[..0x204 + 4]).contains("cut off"));
    assert!(problem(&good[..good.len() - 110]).contains("outside of"));
    assert!(problem(&bzimage(b"plain text", 10)).contains("no known compression"));
    assert!(problem(&bzimage(&lz4(&elf, 30_000), 5)).contains("promised are 5"));
    assert!(problem(&bzimage(&lz4(b"no ELF", 100), 6)).contains("not an ELF file"));
    assert!(problem(&bzimage(&lz4(&elf, 30_000)[..50], 6)).contains("cut off"));
    let mut absurd = good.clone();
    absurd[PAYLOAD_LENGTH..PAYLOAD_LENGTH + 4].copy_from_slice(&[0xff; 4]);
    assert!(problem(&absurd).contains("outside of"));
}
