use std::io::{Cursor, Read, Write};
use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use sha2::Digest;

use super::{
    BLOCK, Background, Codec, Compression, Compressor, HashReader, HashWriter, Sha256, decompress,
    detect,
};

fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut bytes = Vec::with_capacity(length);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        // Words of a small alphabet, so that there is something to compress.
        bytes.extend(format!("{:x} ", state % 5000).bytes());
    }
    bytes.truncate(length);
    bytes
}

fn compress(bytes: &[u8], codec: Codec, threads: usize, step: usize) -> Vec<u8> {
    let mut compressor = Compressor::with_threads(Vec::new(), codec, Some(threads)).unwrap();
    for piece in bytes.chunks(step.max(1)) {
        compressor.write_all(piece).unwrap();
    }
    compressor.finish().unwrap()
}

fn plain(bytes: Vec<u8>) -> std::io::Result<Vec<u8>> {
    let mut result = Vec::new();
    decompress(Box::new(Cursor::new(bytes)))?.read_to_end(&mut result)?;
    Ok(result)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn every_codec_gives_the_bytes_back() {
    for length in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 17] {
        let bytes = noise(length);
        for codec in
            [Codec::Plain, Codec::Gzip(1), Codec::GZIP, Codec::Gzip(0), Codec::ZSTD, Codec::Zstd(1)]
        {
            let packed = compress(&bytes, codec, 2, 100_000);
            assert!(plain(packed).unwrap() == bytes, "{codec:?} of {length} bytes");
        }
    }
}

#[test]
fn compressed_bytes_do_not_depend_on_threads_or_write_sizes() {
    let bytes = noise(5 * BLOCK + 12345);
    for codec in [Codec::Gzip(1), Codec::ZSTD] {
        let expect = compress(&bytes, codec, 1, bytes.len());
        for (threads, step) in [(2, 4096), (4, 1), (8, BLOCK), (3, 777_777)] {
            let step = if step == 1 { 511 } else { step };
            assert!(
                compress(&bytes, codec, threads, step) == expect,
                "{codec:?} {threads} threads, by {step}"
            );
        }
        let pool = rayon::ThreadPoolBuilder::new().num_threads(4).build().unwrap();
        let inside = pool.install(|| {
            let mut compressor = Compressor::new(Vec::new(), codec).unwrap();
            compressor.write_all(&bytes).unwrap();
            compressor.finish().unwrap()
        });
        assert!(inside == expect, "{codec:?} in a pool of 4");
    }
}

#[test]
fn compressing_in_every_thread_of_a_pool_does_not_deadlock() {
    let bytes = noise(3 * BLOCK);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
    let results = pool.broadcast(|_| compress(&bytes, Codec::Gzip(1), 4, BLOCK));
    assert!(results[0] == results[1]);
}

#[test]
fn compressed_bytes_are_part_of_the_format() {
    // A change here changes every blob digest: bump the format version with it.
    let bytes = noise(BLOCK + 5000);
    let golden = |codec| hex(&Sha256::digest(&compress(&bytes, codec, 2, BLOCK)))[..16].to_owned();
    assert_eq!(
        [golden(Codec::Gzip(6)), golden(Codec::Zstd(3))],
        ["23e0244d438972c9", "9b71b8b7d95c6f63"]
    );
}

#[test]
fn gzip_headers_are_those_of_go() {
    let header = |level| compress(b"x", Codec::Gzip(level), 1, 1)[..10].to_vec();
    assert_eq!(header(6), [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255]);
    assert_eq!(header(1)[8], 4);
    assert_eq!(header(9)[8], 2);
    assert!(Compressor::new(Vec::new(), Codec::Gzip(13)).is_err());
    assert!(Compressor::new(Vec::new(), Codec::Zstd(0)).is_err());
}

#[test]
fn formats_are_told_by_their_magic() {
    assert_eq!(detect(b"\x1f\x8b\x08"), Compression::Gzip);
    assert_eq!(detect(b"\x1f\x8b"), Compression::Plain);
    assert_eq!(detect(b"\x28\xb5\x2f\xfdxx"), Compression::Zstd);
    assert_eq!(detect(b"\x50\x2a\x4d\x18xx"), Compression::Zstd);
    assert_eq!(detect(b"BZh9"), Compression::Bzip2);
    assert_eq!(detect(b"\xfd7zXZ\0"), Compression::Xz);
    assert_eq!(detect(b""), Compression::Plain);
}

fn samples() -> Vec<(&'static str, Vec<u8>, Vec<u8>)> {
    let bytes = noise(70_000);
    let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    bzip2.write_all(&bytes).unwrap();
    // The same bytes, packed by `xz`.
    let xz = include_bytes!("../../testdata/noise.xz").to_vec();
    vec![
        ("gzip", compress(&bytes, Codec::Gzip(1), 1, BLOCK), bytes.clone()),
        ("zstd", compress(&bytes, Codec::ZSTD, 1, BLOCK), bytes.clone()),
        ("bzip2", bzip2.finish().unwrap(), bytes.clone()),
        ("xz", xz, bytes),
    ]
}

#[test]
fn streams_in_a_row_are_one() {
    for (name, packed, bytes) in samples() {
        let twice = [packed.as_slice(), &packed].concat();
        assert!(plain(twice).unwrap() == [bytes.as_slice(), &bytes].concat(), "{name}");
    }
}

#[test]
fn truncated_streams_are_errors() {
    for (name, packed, bytes) in samples() {
        for cut in [7, 8, 12, 20, packed.len() / 2, packed.len() - 9, packed.len() - 1] {
            assert!(
                plain(packed[..cut].to_vec()).is_err(),
                "{name} cut at {cut} of {}",
                packed.len()
            );
        }
        assert!(plain(packed).unwrap() == bytes, "{name}");
    }
}

#[test]
fn an_error_of_the_writer_ends_the_pipeline() {
    struct Full(usize);
    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 = self.0.checked_sub(bytes.len()).ok_or(std::io::ErrorKind::StorageFull)?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let bytes = noise(4 * BLOCK);
    for codec in [Codec::Plain, Codec::Gzip(1), Codec::ZSTD] {
        let mut pipe = Background::new(Compressor::new(Full(1000), codec).unwrap());
        let result = pipe.write_all(&bytes).and_then(|()| pipe.finish()?.finish().map(drop));
        assert_eq!(result.unwrap_err().kind(), std::io::ErrorKind::StorageFull, "{codec:?}");
    }
}

#[test]
fn a_background_writer_keeps_the_order() {
    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);
    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    for length in [0, 10, BLOCK, 3 * BLOCK + 1] {
        let (bytes, shared) = (noise(length), Shared::default());
        let mut writer = Background::new(shared.clone());
        writer.write_all(&bytes).unwrap();
        writer.finish().unwrap();
        assert!(*shared.0.lock().unwrap() == bytes, "{length}");
    }
}

#[test]
fn hashing_streams_hash_and_count() {
    let bytes = noise(100_000);
    let expect: [u8; 32] = sha2::Sha256::digest(&bytes).into();
    let mut writer = HashWriter::new(Vec::new());
    writer.write_all(&bytes).unwrap();
    let (copy, hash, length) = writer.finish();
    assert!(copy == bytes && hash == expect && length == 100_000);
    let mut reader = HashReader::new(Cursor::new(copy));
    std::io::copy(&mut reader, &mut std::io::sink()).unwrap();
    let (_, hash, length) = reader.finish();
    assert!(hash == expect && length == 100_000);
}

#[test]
#[ignore = "timing, run by hand"]
fn bench_codecs() {
    let bytes = noise(64 << 20);
    for codec in [Codec::Gzip(1), Codec::GZIP, Codec::ZSTD] {
        let start = std::time::Instant::now();
        let packed = compress(&bytes, codec, 8, 32 * 1024);
        println!("{codec:?}: {:?} for 64 MiB, {} bytes", start.elapsed(), packed.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn sha256_is_sha256(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..5)) {
        let (mut ours, mut oracle) = (Sha256::new(), sha2::Sha256::new());
        for piece in &pieces {
            ours.update(piece);
            oracle.update(piece);
        }
        let expect: [u8; 32] = oracle.finalize().into();
        prop_assert_eq!(ours.finish(), expect);
        prop_assert_eq!(Sha256::digest(&pieces.concat()), expect);
    }

    #[test]
    fn corrupt_streams_do_not_panic(flips in prop::collection::vec((any::<prop::sample::Index>(), 1_u8..), 1..4)) {
        for (_, mut packed, _) in samples() {
            for (at, mask) in &flips {
                let at = at.index(packed.len());
                packed[at] ^= mask;
            }
            // Bounded, as a flip may turn a short run into a very long one.
            let mut reader = decompress(Box::new(Cursor::new(packed))).unwrap().take(100 << 20);
            let _ = std::io::copy(&mut reader, &mut std::io::sink());
        }
    }
}
