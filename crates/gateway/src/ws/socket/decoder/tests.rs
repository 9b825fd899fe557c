use proptest::prelude::*;

use super::super::testing::*;
use super::*;

fn text(text: &str) -> Message {
    Message::Text(Bytes::copy_from_slice(text.as_bytes()))
}

fn close_payload(code: u16, reason: &[u8]) -> Vec<u8> {
    [&code.to_be_bytes(), reason].concat()
}

#[track_caller]
fn refused(bytes: &[u8], violation: Violation, close_code: u16) {
    for piece in [1, usize::MAX] {
        assert_eq!(
            decode_in(piece, bytes, ROOMY_LIMITS),
            (vec![], Some(violation))
        );
    }
    assert_eq!(violation.close_code(), close_code);
}

#[test]
fn messages_come_out_as_they_were_sent() {
    let bytes = [
        last(TEXT_OPCODE, b"Hello"),
        last(BINARY_OPCODE, &[7; 300]),
        last(TEXT_OPCODE, b""),
        last(PONG_OPCODE, b"x"),
    ]
    .concat();
    let expected = vec![
        text("Hello"),
        Message::Binary(Bytes::from(vec![7; 300])),
        text(""),
        Message::Pong(Bytes::from("x")),
    ];
    assert_eq!(decode(&bytes), (expected, None));
}

#[test]
fn reserved_bits_and_opcodes_are_protocol_errors() {
    for bit in [0x40, 0x20, 0x10] {
        refused(
            &frame(0x80 | bit | TEXT_OPCODE, b"x"),
            Violation::ReservedBits,
            1002,
        );
    }
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        refused(&last(opcode, b"x"), Violation::ReservedOpcode, 1002);
    }
}

#[test]
fn unmasked_frame_is_protocol_error() {
    refused(b"\x81\x05Hello", Violation::Unmasked, 1002);
    refused(b"\x81\x05", Violation::Unmasked, 1002);
}

#[test]
fn control_frames_are_short_and_whole() {
    for opcode in [CLOSE_OPCODE, PING_OPCODE, PONG_OPCODE] {
        refused(&more(opcode, b""), Violation::FragmentedControl, 1002);
        refused(&last(opcode, &[b'x'; 126]), Violation::LongControl, 1002);
        refused(
            &last(opcode, &[b'x'; 70_000])[..2],
            Violation::LongControl,
            1002,
        );
    }
    let longest = Bytes::from(vec![b'x'; 125]);
    assert_eq!(
        decode(&last(PING_OPCODE, &longest)),
        (vec![Message::Ping(longest)], None)
    );
}

#[test]
fn a_length_has_one_form() {
    let mask = [0; 4];
    let padded = [&[0x82, 0xfe, 0, 125][..], &mask, &[0; 125]].concat();
    refused(&padded, Violation::LengthForm, 1002);
    let padded = [&[0x82, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff][..], &mask].concat();
    refused(&padded, Violation::LengthForm, 1002);
    let highest_bit = [&[0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0][..], &mask].concat();
    refused(&highest_bit, Violation::LengthForm, 1002);
}

#[test]
fn fragments_must_belong_to_one_message() {
    refused(
        &last(CONTINUATION_OPCODE, b"x"),
        Violation::StrayContinuation,
        1002,
    );
    refused(
        &more(CONTINUATION_OPCODE, b"x"),
        Violation::StrayContinuation,
        1002,
    );
    for opcode in [TEXT_OPCODE, BINARY_OPCODE] {
        let nested = [more(TEXT_OPCODE, b"a"), last(opcode, b"b")].concat();
        refused(&nested, Violation::NestedMessage, 1002);
    }
    let after_the_last = [
        more(TEXT_OPCODE, b"a"),
        last(CONTINUATION_OPCODE, b"b"),
        last(CONTINUATION_OPCODE, b"c"),
    ];
    let expected = (vec![text("ab")], Some(Violation::StrayContinuation));
    assert_eq!(decode(&after_the_last.concat()), expected);
}

#[test]
fn control_frames_between_fragments_come_at_once() {
    let bytes = [
        more(TEXT_OPCODE, b"a"),
        last(PING_OPCODE, b"1"),
        more(CONTINUATION_OPCODE, b""),
        last(PONG_OPCODE, b"2"),
        last(CONTINUATION_OPCODE, b"b"),
    ];
    let expected = vec![
        Message::Ping(Bytes::from("1")),
        Message::Pong(Bytes::from("2")),
        text("ab"),
    ];
    assert_eq!(
        decode_in(1, &bytes.concat(), ROOMY_LIMITS),
        (expected, None)
    );
}

#[test]
fn text_may_be_cut_inside_a_character() {
    let word = "κόσμε 🎈";
    for cut in 0..=word.len() {
        let (head, tail) = word.as_bytes().split_at(cut);
        let bytes = [more(TEXT_OPCODE, head), last(CONTINUATION_OPCODE, tail)].concat();
        assert_eq!(decode_in(1, &bytes, ROOMY_LIMITS), (vec![text(word)], None));
    }
}

#[test]
fn non_utf8_text_is_invalid_payload() {
    let not_text: [&[u8]; 5] = [
        b"\xff",
        b"\xc0\x80",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"a\x80",
    ];
    for bytes in not_text {
        refused(&last(TEXT_OPCODE, bytes), Violation::Utf8, 1007);
    }
    refused(
        &last(TEXT_OPCODE, "ü".as_bytes().split_at(1).0),
        Violation::Utf8,
        1007,
    );
    let cut_short = [
        more(TEXT_OPCODE, b"\xe2\x82"),
        last(CONTINUATION_OPCODE, b""),
    ]
    .concat();
    refused(&cut_short, Violation::Utf8, 1007);
}

#[test]
fn text_is_refused_at_first_bad_byte() {
    let fragment_that_others_follow = more(TEXT_OPCODE, b"abc\xff");
    refused(&fragment_that_others_follow, Violation::Utf8, 1007);
    let beginning_of_a_long_frame = &last(TEXT_OPCODE, &[&b"\xff"[..], &[b'a'; 500]].concat())[..9];
    refused(beginning_of_a_long_frame, Violation::Utf8, 1007);
}

#[test]
fn message_above_limit_is_too_large() {
    let limits = Limits::bytes(10);
    assert_eq!(
        decode_in(1, &last(TEXT_OPCODE, &[b'x'; 10]), limits),
        (vec![text("xxxxxxxxxx")], None)
    );
    assert_eq!(
        decode_in(1, &last(TEXT_OPCODE, &[b'x'; 11]), limits),
        (vec![], Some(Violation::TooLarge))
    );
    let fragments = [
        more(TEXT_OPCODE, b"aaaaa"),
        more(CONTINUATION_OPCODE, b"bbbbb"),
        last(CONTINUATION_OPCODE, b"c"),
    ];
    assert_eq!(
        decode_in(1, &fragments.concat(), limits),
        (vec![], Some(Violation::TooLarge))
    );
    assert_eq!(Violation::TooLarge.close_code(), 1009);
}

#[test]
fn a_size_is_refused_from_the_header_alone() {
    for length in [1 << 21, u64::MAX >> 1] {
        let header = [&[0x82, 0xff][..], &length.to_be_bytes(), &[0; 4]].concat();
        refused(&header, Violation::TooLarge, 1009);
    }
}

#[test]
fn control_frames_do_not_count_against_the_limit() {
    let bytes = [
        more(TEXT_OPCODE, b"0123456789"),
        last(PING_OPCODE, &[1; 125]),
        last(CONTINUATION_OPCODE, b""),
    ]
    .concat();
    let (messages, violation) = decode_in(1, &bytes, Limits::bytes(10));
    assert_eq!((messages.len(), violation), (2, None));
}

#[test]
fn an_endless_message_of_empty_fragments_ends() {
    let bytes = [
        more(BINARY_OPCODE, b""),
        more(CONTINUATION_OPCODE, b"").repeat(5000),
    ]
    .concat();
    refused(&bytes, Violation::TooManyFragments, 1009);
    let allowed = [
        more(BINARY_OPCODE, b""),
        more(CONTINUATION_OPCODE, b"").repeat(4094),
        last(CONTINUATION_OPCODE, b"x"),
    ];
    assert_eq!(
        decode(&allowed.concat()).0,
        [Message::Binary(Bytes::from("x"))]
    );
}

#[test]
fn memory_follows_received_not_announced_bytes() {
    let mut decoder = Decoder::new(Limits::bytes(1 << 30));
    let header = [
        &[0x82, 0xff][..],
        &(1u64 << 30).to_be_bytes(),
        &[0; 4],
        b"x",
    ]
    .concat();
    assert_eq!(decoder.decode(&mut BytesMut::from(&header[..])), Ok(None));
    assert!(decoder.message.unwrap().payload.capacity() < 1 << 16);
}

#[test]
fn a_close_gives_its_code_and_reason() {
    let close = |code, reason: &str| Message::Close {
        code,
        reason: reason.to_owned(),
    };
    assert_eq!(
        decode(&last(CLOSE_OPCODE, b"")),
        (vec![close(None, "")], None)
    );
    for code in [
        1000, 1001, 1003, 1007, 1011, 1012, 1014, 3000, 3999, 4000, 4999,
    ] {
        let bytes = last(CLOSE_OPCODE, &close_payload(code, "über".as_bytes()));
        assert_eq!(
            decode_in(1, &bytes, ROOMY_LIMITS),
            (vec![close(Some(code), "über")], None)
        );
    }
}

#[test]
fn a_close_with_an_invalid_payload_is_refused() {
    refused(&last(CLOSE_OPCODE, b"\x03"), Violation::CloseCode, 1002);
    for code in [
        0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535,
    ] {
        refused(
            &last(CLOSE_OPCODE, &close_payload(code, b"")),
            Violation::CloseCode,
            1002,
        );
    }
    refused(
        &last(CLOSE_OPCODE, &close_payload(1000, b"\xff")),
        Violation::Utf8,
        1007,
    );
}

/// A data message cut into fragments, with a ping behind each of them.
fn fragmented() -> impl Strategy<Value = (Message, Vec<u8>)> {
    let text = ".{0,200}".prop_map(|text| (TEXT_OPCODE, text.into_bytes()));
    let binary =
        prop::collection::vec(any::<u8>(), 0..70_000).prop_map(|bytes| (BINARY_OPCODE, bytes));
    let cuts = prop::collection::vec(any::<prop::sample::Index>(), 0..6);
    (prop_oneof![text, binary], cuts).prop_map(|((opcode, payload), cuts)| {
        let mut cuts: Vec<_> = cuts
            .iter()
            .map(|cut| cut.index(payload.len() + 1))
            .collect();
        cuts.sort_unstable();
        let ends = cuts.iter().copied().chain([payload.len()]);
        let starts = [0].into_iter().chain(cuts.iter().copied());
        let fragments: Vec<_> = starts
            .zip(ends)
            .map(|(start, end)| &payload[start..end])
            .collect();
        let mut bytes = Vec::new();
        for (index, fragment) in fragments.iter().enumerate() {
            let opcode = if index == 0 {
                opcode
            } else {
                CONTINUATION_OPCODE
            };
            let is_last = index + 1 == fragments.len();
            bytes.extend(if is_last {
                last(opcode, fragment)
            } else {
                more(opcode, fragment)
            });
            bytes.extend(last(PING_OPCODE, b""));
        }
        let whole = Bytes::from(payload.clone());
        (
            if opcode == TEXT_OPCODE {
                Message::Text(whole)
            } else {
                Message::Binary(whole)
            },
            bytes,
        )
    })
}

proptest! {
    #[test]
    fn any_bytes_in_pieces_decode_alike(
        bytes in prop::collection::vec(any::<u8>(), 0..400),
        piece in 1..50_usize,
    ) {
        let whole = decode(&bytes);
        prop_assert_eq!(decode_in(piece, &bytes, ROOMY_LIMITS), whole);
    }

    #[test]
    fn likely_frames_in_pieces_decode_alike(
        frames in prop::collection::vec((any::<u8>(), prop::collection::vec(0x20..0x90_u8, 0..9)), 0..9),
        piece in 1..50_usize,
    ) {
        let bytes: Vec<u8> =
            frames.iter().flat_map(|(first, payload)| frame(first & 0x8f, payload)).collect();
        prop_assert_eq!(decode_in(piece, &bytes, ROOMY_LIMITS), decode(&bytes));
    }

    #[test]
    fn messages_survive_any_fragmentation(
        sent in prop::collection::vec(fragmented(), 1..4),
        piece in 1..5000_usize,
    ) {
        let (messages, frames): (Vec<_>, Vec<_>) = sent.into_iter().unzip();
        let (mut heard, violation) = decode_in(piece, &frames.concat(), ROOMY_LIMITS);
        heard.retain(|message| !matches!(message, Message::Ping(_)));
        prop_assert_eq!((heard, violation), (messages, None));
    }
}
