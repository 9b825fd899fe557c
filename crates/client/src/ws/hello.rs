//! The first frames: what of a hello must stand in a frame of its own.

use std::collections::BTreeMap;

use confab_protocol::frame::{ClientFrame, Hello, Seen};
use confab_protocol::limits;

use super::TokenIn;

/// What is kept free for a `seen` frame's other parts.
const SEEN_MARGIN_BYTES: usize = 1024;

/// A hello, and behind it its `seen` where both together are too large for a socket that has shown no token yet
/// (docs/protocol/websocket.md, "Handshake"). JSON is never shorter than the same in MessagePack, so that what fits as JSON fits.
pub(super) fn opening(mut hello: Hello, token: TokenIn) -> serde_json::Result<Vec<ClientFrame>> {
    let most = match token {
        TokenIn::Hello(token) => {
            hello.token = Some(token);
            limits::MAX_HELLO_BYTES
        }
        TokenIn::Header(_) => limits::MAX_FRAME_BYTES,
        TokenIn::Nowhere => limits::MAX_HELLO_BYTES,
    };
    let Some(mut seen) = hello.seen.take_if(|_| hello.seen_follows.is_none()) else {
        return Ok(vec![ClientFrame::Hello(hello)]);
    };
    // No user is in more; those that were made first are left out.
    while seen.len() > limits::MAX_SEEN_CONVERSATIONS {
        seen.pop_first();
    }
    let bytes = serde_json::to_vec(&hello)?.len() + serde_json::to_vec(&seen)?.len();
    if bytes + SEEN_MARGIN_BYTES <= most {
        hello.seen = Some(seen);
        return Ok(vec![ClientFrame::Hello(hello)]);
    }
    fit(&mut seen)?;
    hello.seen_follows = Some(true);
    let seen = Seen {
        id: None,
        positions: seen,
    };
    Ok(vec![ClientFrame::Hello(hello), ClientFrame::Seen(seen)])
}

/// Leaves out what a frame cannot hold: the conversations that were made first.
fn fit<K: Ord + serde::Serialize, V: serde::Serialize>(
    seen: &mut BTreeMap<K, V>,
) -> serde_json::Result<()> {
    while serde_json::to_vec(&seen)?.len() + SEEN_MARGIN_BYTES > limits::MAX_FRAME_BYTES {
        for _ in 0..seen.len().div_ceil(8) {
            seen.pop_first();
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use confab_protocol::ids::{ConversationId, Seq};
    use uuid::Uuid;

    use super::*;

    fn hello(conversations: u64) -> Hello {
        let seen = (0..conversations).map(|seq| (ConversationId(Uuid::now_v7()), seq));
        Hello {
            seen: Some(seen.collect::<BTreeMap<ConversationId, Seq>>()),
            ..Hello::default()
        }
    }

    #[test]
    fn what_fits_goes_in_one_frame() {
        for (token, conversations) in [
            (TokenIn::Hello("t".into()), 100),
            (TokenIn::Header("t".into()), 9_000),
        ] {
            let frames = opening(hello(conversations), token).unwrap();
            let [ClientFrame::Hello(said)] = frames.as_slice() else {
                panic!("{} frames", frames.len())
            };
            assert_eq!(said.seen.as_ref().unwrap().len() as u64, conversations);
            assert_eq!(said.seen_follows, None);
        }
    }

    #[test]
    fn positions_beyond_hello_size_follow_in_seen() {
        let frames = opening(hello(1000), TokenIn::Hello("t".into())).unwrap();
        let [ClientFrame::Hello(said), ClientFrame::Seen(seen)] = frames.as_slice() else {
            panic!("{} frames", frames.len())
        };
        assert_eq!((said.seen_follows, &said.seen), (Some(true), &None));
        assert_eq!(said.token.as_deref(), Some("t"));
        assert_eq!(seen.positions.len(), 1000);
        assert!(serde_json::to_vec(said).unwrap().len() <= limits::MAX_HELLO_BYTES);
    }

    #[test]
    fn a_frame_is_never_too_large() {
        for conversations in [10_500, 20_000] {
            let frames = opening(hello(conversations), TokenIn::Header("t".into())).unwrap();
            for frame in frames {
                let json = frame.encode().unwrap();
                assert!(json.len() <= limits::MAX_FRAME_BYTES);
                assert_eq!(ClientFrame::decode(json.as_bytes()).unwrap(), frame);
            }
        }
    }
}
