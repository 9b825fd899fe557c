//! The textual encoding of keys (RFC 7468), one block at a time.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// `der` as a block named `label`, in lines of 64 characters.
pub(crate) fn encode(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut block = format!("-----BEGIN {label}-----\n");
    for (index, character) in text.chars().enumerate() {
        if index > 0 && index % 64 == 0 {
            block.push('\n');
        }
        block.push(character);
    }
    block.push_str(&format!("\n-----END {label}-----\n"));
    block
}

/// The label and the content of the only block in `text`; none where there is another number of blocks, or a broken one.
pub(crate) fn decode(text: &str) -> Option<(&str, Vec<u8>)> {
    let (label, rest) = text
        .trim()
        .strip_prefix("-----BEGIN ")?
        .split_once("-----")?;
    let body = rest.strip_suffix(&format!("-----END {label}-----"))?;
    let joined: String = body.split_ascii_whitespace().collect();
    Some((label, STANDARD.decode(joined).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_decoded_again() {
        for length in [0, 1, 47, 48, 49, 300] {
            let der = vec![7; length];
            let text = encode("PUBLIC KEY", &der);
            assert!(text.lines().all(|line| line.len() <= 64));
            assert_eq!(decode(&text), Some(("PUBLIC KEY", der)));
        }
    }

    #[test]
    fn broken_or_several_blocks_are_none() {
        let block = encode("PUBLIC KEY", b"abc");
        for bad in [
            "",
            "-----BEGIN A-----",
            "-----BEGIN A-----\n!\n-----END A-----",
            &block.repeat(2),
        ] {
            assert_eq!(decode(bad), None);
        }
    }
}
