use super::*;

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![tag];
    bytes.extend_from_slice(&u32::try_from(body.len() + 4).unwrap().to_be_bytes());
    bytes.extend_from_slice(body);
    bytes
}

fn all(mut frames: Frames, pieces: &[&[u8]]) -> Vec<(u8, Vec<u8>, Option<Cut>)> {
    let mut found = Vec::new();
    for piece in pieces {
        let mut at = 0;
        while let Some(message) = frames.next(piece, &mut at).unwrap() {
            found.push((message.tag, message.body.to_vec(), message.cut));
        }
        assert_eq!(at, piece.len());
    }
    assert!(frames.between());
    found
}

#[test]
fn what_nobody_wants_goes_by_and_the_rest_is_found_at_every_cut() {
    let stream = [
        message(b'Q', b"select 1\0"),
        message(b'd', &[7; 300]),
        message(b'S', b""),
        message(b'P', b"s\0select $1\0\0\0"),
        message(b'X', b""),
    ]
    .concat();
    let wanted = [
        (b'Q', b"select 1\0".to_vec(), None),
        (b'P', b"s\0select $1\0\0\0".to_vec(), None),
        (b'X', Vec::new(), None),
    ];
    for cut in 0..=stream.len() {
        let (first, second) = stream.split_at(cut);
        assert_eq!(all(Frames::frontend(100), &[first, second]), wanted, "cut at {cut}");
    }
}

#[test]
fn the_body_of_a_whole_message_is_not_copied() {
    let stream = message(b'Q', b"select 1\0");
    let mut frames = Frames::frontend(100);
    let found = frames.next(&stream, &mut 0).unwrap().unwrap();
    assert!(std::ptr::eq(found.body, &raw const stream[5..]));
}

#[test]
fn of_a_long_statement_the_digest_is_of_the_statement_alone() {
    let text = "x".repeat(1000);
    let sha256: [u8; 32] = Sha256::digest(&text).into();
    let cut = Some(Cut { length: 1000, sha256 });
    let query = message(b'Q', format!("{text}\0").as_bytes());
    let parse = message(b'P', format!("name\0{text}\0\0\x02\0\0\0\x17\0\0\0\x19").as_bytes());
    for (stream, tag) in [(query, b'Q'), (parse, b'P')] {
        for step in [1, 3, 10, 5000] {
            let pieces: Vec<&[u8]> = stream.chunks(step).collect();
            let found = all(Frames::frontend(50), &pieces);
            assert_eq!(found, [(tag, stream[5..55].to_vec(), cut)], "{step}");
        }
    }
    let bind = message(b'B', &[5; 100]);
    let sha256: [u8; 32] = Sha256::digest([5; 100]).into();
    let found = all(Frames::frontend(50), &[&bind]);
    assert_eq!(found, [(b'B', vec![5; 50], Some(Cut { length: 100, sha256 }))]);
}

#[test]
fn lengths_and_types_that_cannot_be_end_the_stream() {
    let head = |tag: u8, length: u32| [&[tag][..], &length.to_be_bytes()].concat();
    for (tag, length) in [
        (b'Q', 3),
        (b'Q', 0),
        (b'Q', 0x4000_0000),
        (b'Q', u32::MAX),
        (b'E', 20_000),
        (b'S', 20_000),
    ] {
        let error = Frames::frontend(50).next(&head(tag, length), &mut 0).unwrap_err();
        assert!(
            matches!(error, FrameError::Length { length: said, .. } if said == length),
            "{error}"
        );
    }
    for tag in [0, b'x', b'p', b'Z', 0x16] {
        let error = Frames::frontend(50).next(&[tag], &mut 0).unwrap_err();
        assert_eq!(error, FrameError::Unknown(tag));
    }
    let error = Frames::backend(50).next(&head(b'D', u32::MAX), &mut 0).unwrap_err();
    assert_eq!(
        error.to_string(),
        "message 'D' of 4294967295 bytes, between 4 and 1073741823 are possible"
    );
    assert_eq!(Frames::backend(50).next(b"H", &mut 0), Ok(None));
    assert_eq!(Frames::backend(50).next(b"Q", &mut 0), Err(FrameError::Unknown(b'Q')));
}

#[test]
fn memory_is_what_is_kept_and_is_given_back() {
    let mut frames = Frames::frontend(64 << 10);
    let mut stream = message(b'Q', &vec![b'x'; 10 << 20]);
    for piece in stream.chunks(4096) {
        let _ = frames.next(piece, &mut 0).unwrap();
        assert!(frames.kept.capacity() <= 128 << 10);
    }
    stream = message(b'S', b"");
    let _ = frames.next(&stream, &mut 0).unwrap();
    assert!(frames.kept.capacity() <= ROOM);
}
