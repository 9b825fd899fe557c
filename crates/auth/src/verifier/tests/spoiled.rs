//! No text but a token that was made is ever good, and none makes the verifier panic.

use proptest::prelude::*;

use super::*;

/// A way to spoil a token.
#[derive(Debug, Clone)]
enum Spoil {
    Replace(prop::sample::Index, u8),
    Insert(prop::sample::Index, u8),
    Remove(prop::sample::Index),
    Cut(prop::sample::Index),
    Swap(prop::sample::Index, prop::sample::Index),
}

fn spoils() -> impl Strategy<Value = Vec<Spoil>> {
    let at = any::<prop::sample::Index>;
    let byte = || prop_oneof![any::<u8>(), prop::sample::select(&b"AZaz09-_.=+/{}\""[..])];
    let one = prop_oneof![
        (at(), byte()).prop_map(|(at, byte)| Spoil::Replace(at, byte)),
        (at(), byte()).prop_map(|(at, byte)| Spoil::Insert(at, byte)),
        at().prop_map(Spoil::Remove),
        at().prop_map(Spoil::Cut),
        (at(), at()).prop_map(|(one, other)| Spoil::Swap(one, other)),
    ];
    prop::collection::vec(one, 1..4)
}

fn spoiled(token: &str, spoils: &[Spoil]) -> String {
    let mut bytes = token.as_bytes().to_vec();
    for spoil in spoils {
        let length = bytes.len().max(1);
        match spoil {
            Spoil::Insert(at, byte) => bytes.insert(at.index(bytes.len() + 1), *byte),
            _ if bytes.is_empty() => {}
            Spoil::Replace(at, byte) => bytes[at.index(length)] = *byte,
            Spoil::Remove(at) => drop(bytes.remove(at.index(length))),
            Spoil::Cut(at) => bytes.truncate(at.index(length)),
            Spoil::Swap(one, other) => bytes.swap(one.index(length), other.index(length)),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[test]
fn no_spoiled_token_is_ever_good() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let keys = three();
    let made = keys.each_ref().map(|key| {
        (
            verifier_of(key, ALL_ALGORITHMS),
            key.mint(&claims()).unwrap(),
        )
    });
    proptest!(ProptestConfig::with_cases(1_000), |(spoils in spoils(), which in 0..3_usize)| {
        let (verifier, token) = &made[which];
        let changed = spoiled(token, &spoils);
        let good = runtime.block_on(verifier.verify(&changed, TEST_NOW)).is_ok();
        prop_assert_eq!(good, changed == *token);
    });
}

#[test]
fn no_text_makes_the_verifier_panic() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let verifier = verifier_of(&key(), ALL_ALGORITHMS);
    proptest!(|(header in "\\PC*", payload in "\\PC*", text in "\\PC*")| {
        let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let shaped = format!("{}.{}.{}", part(&header), part(&payload), part(&text));
        prop_assert!(runtime.block_on(verifier.verify(&text, TEST_NOW)).is_err());
        prop_assert!(runtime.block_on(verifier.verify(&shaped, TEST_NOW)).is_err());
    });
}
