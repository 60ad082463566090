//! The mask that a client lays over its payloads (RFC 6455 section 5.3), laid and taken off in place.
//!
//! "Octet i of the transformed data is the XOR of octet i of the original data with octet at index
//! i modulo 4 of the masking key." Masking twice is not masking, so one function serves both ways.

/// Applies the mask to the next part of a payload.
///
/// `key` is the masking key turned to where this part begins (the header's key at the payload's start);
/// the answer is the key for the part that follows.
#[must_use = "the next part of the payload needs the turned key"]
pub fn apply_mask(key: [u8; 4], payload: &mut [u8]) -> [u8; 4] {
    let [a, b, c, d] = key;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    // Four words a step: the compiler makes vector instructions of it.
    let mut blocks = payload.chunks_exact_mut(32);
    for block in &mut blocks {
        for word in block.as_chunks_mut::<8>().0 {
            *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
        }
    }
    let rest = blocks.into_remainder();
    let (words, tail) = rest.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, key_byte) in tail.iter_mut().zip(key.into_iter().cycle()) {
        *byte ^= key_byte;
    }
    let mut turned = key;
    turned.rotate_left(payload.len() % 4);
    turned
}

#[cfg(test)]
mod tests {
    use super::apply_mask;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_is_the_formula_of_the_standard_however_the_payload_is_cut(
            key: [u8; 4],
            payload in proptest::collection::vec(any::<u8>(), 0..200),
            cut in 0usize..200,
        ) {
            let expected: Vec<u8> = payload.iter().enumerate().map(|(i, byte)| byte ^ key[i % 4]).collect();
            let mut masked = payload;
            let cut = cut.min(masked.len());
            let (front, back) = masked.split_at_mut(cut);
            let turned = apply_mask(key, front);
            let _ = apply_mask(turned, back);
            prop_assert_eq!(masked, expected);
        }
    }
}
