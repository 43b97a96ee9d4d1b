//! gzip, for answers on their way out and for what lies in `DynamoDB`, which charges by the kilobyte.

use std::io::{Read, Write};

use flate2::{Compression, read::GzDecoder, write::GzEncoder};

/// Below this, compressing saves nothing that a packet would notice.
const WORTH_COMPRESSING: usize = 1_024;

/// Whether an answer is long enough.
pub fn is_worth_it(bytes: &[u8]) -> bool {
    bytes.len() >= WORTH_COMPRESSING
}

/// Compresses an answer, where that pays.
pub fn compress_if_smaller(bytes: &[u8]) -> Option<Vec<u8>> {
    let packed = is_worth_it(bytes).then(|| compress(bytes)).flatten()?;
    (packed.len() < bytes.len()).then_some(packed)
}

/// Compresses at the fastest level: a tenth larger than the default, in a third of the time, which is what Lambda bills.
pub fn compress(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 3), Compression::fast());
    encoder.write_all(bytes).ok()?;
    encoder.finish().ok()
}

/// What was compressed, unless it is something else or longer than `most` bytes.
pub fn decompress(bytes: &[u8], most: usize) -> Option<Vec<u8>> {
    let mut plain = Vec::new();
    GzDecoder::new(bytes).take(most as u64 + 1).read_to_end(&mut plain).ok()?;
    (plain.len() <= most).then_some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_compressed_comes_back_up_to_a_limit() {
        let plain = vec![b'x'; 10_000];
        let packed = compress(&plain).unwrap();
        assert!(packed.len() < 100);
        assert_eq!(decompress(&packed, 10_000).as_deref(), Some(plain.as_slice()));
        assert_eq!(decompress(&packed, 9_999), None);
        assert_eq!(decompress(b"something else", 10_000), None);
    }
}
