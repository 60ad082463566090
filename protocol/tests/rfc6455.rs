//! RFC 6455, requirement by requirement, named by section: the frames (5 to 8).
//!
//! The opening handshake, section 4, is in `upgrade.rs`; what depends on sockets (7.1.1, who closes the TCP
//! connection) is tested on the gateway.

mod frames;

use frames::{BINARY, CLOSE, FIN, KEY, LAST, MORE, PING, PONG, Said, TEXT, feed, frame, said};
use ringway_protocol::websocket::{
    CloseCode, Event, FrameError, FrameReader, Opcode, Role, append_close, append_close_answer, append_frame,
    append_masked_frame, decode_frame_header,
};

fn text(text: &str) -> Said {
    Said::Text(text.to_owned())
}

fn failed(code: u16) -> Vec<Said> {
    vec![Said::Failed(code)]
}

#[test]
fn section_5_1_a_client_frame_that_is_not_masked_fails_the_connection() {
    assert_eq!(said(b"\x81\x05Hello"), failed(1002));
    assert_eq!(said(b"\x89\x00"), failed(1002));
}

#[test]
fn section_5_1_a_server_frame_that_is_masked_fails_the_connection() {
    let mut reader = FrameReader::new(Role::Client, 100);
    assert_eq!(reader.next(&mut &mut frame(TEXT, b"Hello")[..]), Err(FrameError::Masked));
}

#[test]
fn section_5_1_a_server_masks_nothing() {
    let mut out = Vec::new();
    append_frame(&mut out, Opcode::Text, b"Hello");
    append_close(&mut out, CloseCode::NORMAL, "");
    assert_eq!(out, b"\x81\x05Hello\x88\x02\x03\xe8");
}

#[test]
fn section_5_2_a_reserved_bit_fails_the_connection() {
    for bit in [0x40, 0x20, 0x10] {
        assert_eq!(said(&frame(TEXT | bit, b"Hello")), failed(1002));
        assert_eq!(said(&frame(PING | bit, b"")), failed(1002));
    }
}

#[test]
fn section_5_2_an_unknown_opcode_fails_the_connection() {
    for opcode in [0x3, 0x4, 0x5, 0x6, 0x7, 0xb, 0xc, 0xd, 0xe, 0xf] {
        assert_eq!(said(&frame(FIN | opcode, b"")), failed(1002), "opcode {opcode}");
    }
}

#[test]
fn section_5_2_lengths_are_taken_in_their_shortest_form_only() {
    for len in [0, 1, 125, 126, 127, 128, 65535, 65536] {
        let payload = vec![b'*'; len];
        assert_eq!(said(&frame(BINARY, &payload)), [Said::Binary(payload)], "{len} bytes");
    }
    let not_minimal: [&[u8]; 3] = [
        b"\x82\xfe\x00\x7d",
        b"\x82\xff\x00\x00\x00\x00\x00\x00\xff\xff",
        b"\x82\xff\x00\x00\x00\x00\x00\x00\x00\x01",
    ];
    for header in not_minimal {
        assert_eq!(decode_frame_header(header, Role::Server), Err(FrameError::LengthNotMinimal));
    }
}

#[test]
fn section_5_2_the_top_bit_of_a_64_bit_length_must_be_0() {
    assert_eq!(said(b"\x82\xff\x80\x00\x00\x00\x00\x00\x00\x00"), failed(1002));
    assert_eq!(said(b"\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff"), failed(1002));
}

#[test]
fn section_5_2_a_length_is_big_endian() {
    let mut out = Vec::new();
    append_frame(&mut out, Opcode::Binary, &[0; 0x0102]);
    assert_eq!(&out[..4], b"\x82\x7e\x01\x02");
    out.clear();
    append_frame(&mut out, Opcode::Binary, &vec![0; 0x01_0203]);
    assert_eq!(&out[..10], b"\x82\x7f\x00\x00\x00\x00\x00\x01\x02\x03");
}

#[test]
fn section_5_3_the_examples_mask() {
    let mut out = Vec::new();
    append_masked_frame(&mut out, Opcode::Text, b"Hello", KEY);
    assert_eq!(out, b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58", "section 5.7");
    assert_eq!(said(&out), [text("Hello")]);
}

#[test]
fn section_5_4_a_message_is_the_sum_of_its_fragments() {
    let stream =
        [frame(TEXT & !FIN, b"Hel"), frame(MORE, b""), frame(MORE, b"l"), frame(LAST, b"o")].concat();
    assert_eq!(said(&stream), [text("Hello")]);
    let stream = [frame(BINARY & !FIN, b""), frame(LAST, b"")].concat();
    assert_eq!(said(&stream), [Said::Binary(vec![])]);
}

#[test]
fn section_5_4_control_frames_may_come_between_fragments() {
    let stream = [
        frame(TEXT & !FIN, b"Hel"),
        frame(PING, b"are you there"),
        frame(MORE, b"l"),
        frame(PONG, b""),
        frame(LAST, b"o"),
        frame(TEXT, b"next"),
    ]
    .concat();
    let expected = [Said::Ping(b"are you there".to_vec()), Said::Pong(vec![]), text("Hello"), text("next")];
    assert_eq!(said(&stream), expected);
}

#[test]
fn section_5_4_a_close_between_fragments_ends_the_message_too() {
    let stream = [frame(TEXT & !FIN, b"Hel"), frame(CLOSE, b"\x03\xe8bye"), frame(LAST, b"lo")].concat();
    assert_eq!(said(&stream), [Said::Close(Some(1000), "bye".to_owned())]);
}

#[test]
fn section_5_4_fragments_of_two_messages_are_not_interleaved() {
    for first in [TEXT, BINARY, TEXT & !FIN, BINARY & !FIN] {
        let stream = [frame(TEXT & !FIN, b"Hel"), frame(first, b"x")].concat();
        assert_eq!(said(&stream), failed(1002));
    }
}

#[test]
fn section_5_4_a_continuation_continues_a_message() {
    assert_eq!(said(&frame(LAST, b"lo")), failed(1002));
    assert_eq!(said(&frame(MORE, b"lo")), failed(1002));
    let after_the_end = [frame(TEXT & !FIN, b"Hel"), frame(LAST, b"lo"), frame(LAST, b"!")].concat();
    assert_eq!(said(&after_the_end), [text("Hello"), Said::Failed(1002)]);
}

#[test]
fn section_5_5_a_control_frame_is_not_fragmented() {
    for first in [CLOSE, PING, PONG] {
        assert_eq!(said(&frame(first & !FIN, b"")), failed(1002));
    }
}

#[test]
fn section_5_5_a_control_frame_has_at_most_125_bytes() {
    assert_eq!(said(&frame(PING, &[b'*'; 125])), [Said::Ping(vec![b'*'; 125])]);
    for first in [CLOSE, PING, PONG] {
        assert_eq!(said(&frame(first, &[3; 126])), failed(1002));
    }
}

#[test]
fn section_5_5_1_a_close_says_why_or_nothing() {
    assert_eq!(said(&frame(CLOSE, b"")), [Said::Close(None, String::new())]);
    assert_eq!(said(&frame(CLOSE, b"\x03\xe9")), [Said::Close(Some(1001), String::new())]);
    assert_eq!(
        said(&frame(CLOSE, b"\x0f\xa0gr\xc3\xbc\xc3\x9fe")),
        [Said::Close(Some(4000), "grüße".to_owned())]
    );
    assert_eq!(said(&frame(CLOSE, b"\x03")), failed(1002), "one byte is no code");
    assert_eq!(said(&frame(CLOSE, b"\x03\xe8\xff")), failed(1007), "a reason is UTF-8");
}

#[test]
fn section_5_5_1_nothing_after_a_close_counts() {
    let stream = [frame(CLOSE, b"\x03\xe8"), frame(TEXT, b"late"), b"\xff\xff\xff".to_vec()].concat();
    let mut reader = FrameReader::new(Role::Server, 100);
    let mut heard = Vec::new();
    feed(&mut reader, &stream, &mut heard);
    feed(&mut reader, &frame(PING, b"late"), &mut heard);
    assert_eq!(heard, [Said::Close(Some(1000), String::new())]);
    assert!(reader.has_ended());
}

#[test]
fn section_5_5_1_the_answer_to_a_close_echoes_its_code() {
    let mut out = Vec::new();
    append_close_answer(&mut out, Some(CloseCode::GOING_AWAY));
    append_close_answer(&mut out, None);
    assert_eq!(out, b"\x88\x02\x03\xe9\x88\x00");
}

#[test]
fn section_5_5_2_a_ping_brings_what_its_pong_must_carry() {
    assert_eq!(said(&frame(PING, b"")), [Said::Ping(vec![])]);
    assert_eq!(said(&frame(PING, b"\x00\xff")), [Said::Ping(vec![0, 0xff])]);
}

#[test]
fn section_5_5_3_a_pong_may_come_unasked() {
    assert_eq!(
        said(&[frame(PONG, b"beat"), frame(TEXT, b"a")].concat()),
        [Said::Pong(b"beat".to_vec()), text("a")]
    );
}

#[test]
fn section_5_6_binary_is_any_bytes_and_text_may_be_empty() {
    assert_eq!(said(&frame(BINARY, b"\xff\xfe\x00")), [Said::Binary(vec![0xff, 0xfe, 0])]);
    assert_eq!(said(&frame(TEXT, b"")), [text("")]);
}

#[test]
fn section_7_1_7_nothing_counts_after_the_connection_has_failed() {
    let stream = [frame(TEXT | 0x40, b"x"), frame(TEXT, b"late")].concat();
    assert_eq!(said(&stream), failed(1002));
}

#[test]
fn section_7_4_codes_that_are_not_for_the_wire_fail_the_connection() {
    for code in [0u16, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535] {
        assert_eq!(said(&frame(CLOSE, &code.to_be_bytes())), failed(1002), "{code}");
    }
    for code in [1000u16, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999] {
        assert_eq!(
            said(&frame(CLOSE, &code.to_be_bytes())),
            [Said::Close(Some(code), String::new())],
            "{code}"
        );
    }
}

#[test]
fn section_8_1_text_is_utf_8_over_its_fragments() {
    // Every cut of every character, also inside one.
    let message = "κόσμε\u{1F600}";
    for cut in 0..=message.len() {
        let (front, back) = message.as_bytes().split_at(cut);
        let stream = [frame(TEXT & !FIN, front), frame(PING, b""), frame(LAST, back)].concat();
        assert_eq!(said(&stream), [Said::Ping(vec![]), text(message)], "cut at {cut}");
    }
}

#[test]
fn section_8_1_text_that_is_not_utf_8_fails_the_connection() {
    let invalid: [&[u8]; 10] = [
        b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited",
        b"\x80",
        b"\xc0\xaf",
        b"\xe0\x80\xaf",
        b"\xf0\x80\x80\xaf",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"\xf8\x88\x80\x80\x80",
        b"\xff",
        b"Hello\xe2\x82",
    ];
    for payload in invalid {
        assert_eq!(said(&frame(TEXT, payload)), failed(1007), "{payload:?}");
        let stream = [frame(TEXT & !FIN, payload), frame(LAST, b"")].concat();
        assert_eq!(said(&stream), failed(1007), "{payload:?} in fragments");
    }
}

#[test]
fn section_8_1_it_fails_as_soon_as_the_wrong_byte_is_there() {
    // The frame announces 100 bytes; the eighth can no longer be UTF-8.
    let mut whole = frame(TEXT, &[b'a'; 100]);
    let header = whole.len() - 100;
    whole[header + 7] = 0xff ^ KEY[7 % 4];
    let mut reader = FrameReader::new(Role::Server, 1000);
    assert_eq!(reader.next(&mut &mut whole[..header + 7]), Ok(None));
    assert_eq!(reader.next(&mut &mut whole[header + 7..header + 8]), Err(FrameError::NotUtf8));

    // A surrogate's second byte, though the sequence would have three.
    let mut stream = frame(TEXT & !FIN, b"\xed\xa0");
    let mut reader = FrameReader::new(Role::Server, 1000);
    assert_eq!(reader.next(&mut &mut stream[..]), Err(FrameError::NotUtf8));
}

#[test]
fn section_10_4_a_message_too_long_fails_when_its_header_says_so() {
    let mut reader = FrameReader::new(Role::Server, 64 * 1024);
    // 2^62 bytes announced, none sent.
    let mut header = *b"\x82\xff\x40\x00\x00\x00\x00\x00\x00\x00\x37\xfa\x21\x3d";
    let error = reader.next(&mut &mut header[..]).unwrap_err();
    assert_eq!(error.close_code(), CloseCode::MESSAGE_TOO_BIG);
    assert_eq!(reader.heap_bytes(), 0);
}

#[test]
fn section_10_4_a_message_too_long_by_its_fragments_fails_at_the_one_that_passes() {
    let mut reader = FrameReader::new(Role::Server, 1000);
    let mut heard = Vec::new();
    feed(&mut reader, &frame(BINARY & !FIN, &[0; 600]), &mut heard);
    feed(&mut reader, &frame(MORE, &[0; 400]), &mut heard);
    assert_eq!(heard, []);
    let next = frame(MORE, &[0; 1]);
    feed(&mut reader, &next[..next.len() - 1], &mut heard);
    assert_eq!(heard, failed(1009), "before its payload is there");
}

#[test]
fn section_10_4_a_message_of_a_million_fragments_costs_its_bytes_only() {
    let mut reader = FrameReader::new(Role::Server, 64 * 1024);
    let mut heard = Vec::new();
    feed(&mut reader, &frame(BINARY & !FIN, b""), &mut heard);
    let empty = frame(MORE, b"").repeat(1000);
    for _ in 0..1000 {
        feed(&mut reader, &empty, &mut heard);
    }
    assert!(reader.heap_bytes() < 512);
    let one = frame(MORE, b"x").repeat(1000);
    for _ in 0..65 {
        feed(&mut reader, &one, &mut heard);
    }
    feed(&mut reader, &one, &mut heard);
    assert_eq!(heard, failed(1009));
    assert_eq!(reader.heap_bytes(), 0);
}

#[test]
fn no_bytes_are_an_event_and_the_rest_is_left_for_the_next_call() {
    let mut stream = [frame(TEXT, b"a"), frame(TEXT, b"b")].concat();
    let half = stream.len() / 2;
    let mut reader = FrameReader::new(Role::Server, 100);
    let mut left = &mut stream[..];
    assert_eq!(reader.next(&mut left), Ok(Some(Event::Text("a"))));
    assert_eq!(left.len(), half);
    assert_eq!(reader.next(&mut left), Ok(Some(Event::Text("b"))));
    assert_eq!(reader.next(&mut left), Ok(None));
}
