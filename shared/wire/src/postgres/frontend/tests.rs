use super::*;

fn read(tag: u8, body: &[u8]) -> Option<Frontend<'_>> {
    frontend(&Message { tag, body, cut: None })
}

fn cut(length: u64) -> Cut {
    Cut { length, sha256: [9; 32] }
}

#[test]
fn statements_are_read() {
    assert_eq!(
        read(b'Q', b"select 1;\0"),
        Some(Frontend::Query(Text { bytes: b"select 1;", cut: None }))
    );
    let text = Text { bytes: b"select $1", cut: None };
    let body = b"s1\0select $1\0\0\x01\0\0\0\x17";
    assert_eq!(read(b'P', body), Some(Frontend::Parse { name: b"s1", text }));
    assert_eq!(read(b'E', b"p\0\0\0\0\x05"), Some(Frontend::Execute { portal: b"p" }));
    assert_eq!(read(b'C', b"Ss1\0"), Some(Frontend::CloseStatement(b"s1")));
    assert_eq!(read(b'C', b"P\0"), Some(Frontend::ClosePortal(b"")));
    assert_eq!(read(b'X', b""), Some(Frontend::Terminate));
    assert_eq!(read(b'S', b""), Some(Frontend::Other));
}

fn bind(formats: &[u16], values: &[Option<&[u8]>]) -> Vec<u8> {
    let mut body = b"portal\0statement\0".to_vec();
    body.extend(u16::try_from(formats.len()).unwrap().to_be_bytes());
    body.extend(formats.iter().flat_map(|format| format.to_be_bytes()));
    body.extend(u16::try_from(values.len()).unwrap().to_be_bytes());
    for value in values {
        body.extend(value.map_or(-1, |value| i32::try_from(value.len()).unwrap()).to_be_bytes());
        body.extend_from_slice(value.unwrap_or_default());
    }
    body.extend([0, 1, 0, 0]);
    body
}

#[test]
fn values_have_the_form_that_was_said() {
    let values = [Some(&b"42"[..]), None, Some(b"")];
    let (a, b) = (Parameter::Text(b"42"), Parameter::Text(b""));
    let (c, d) = (Parameter::Binary(b"42"), Parameter::Binary(b""));
    for (formats, wanted) in [
        (&[][..], [a, Parameter::Null, b]),
        (&[0], [a, Parameter::Null, b]),
        (&[1], [c, Parameter::Null, d]),
        (&[0, 1, 1], [a, Parameter::Null, d]),
        (&[7, 0, 1], [Parameter::Unknown, Parameter::Null, d]),
    ] {
        let body = bind(formats, &values);
        let Some(Frontend::Bind(bind)) = read(b'B', &body) else { panic!("{formats:?}") };
        assert_eq!((bind.portal, bind.statement), (&b"portal"[..], &b"statement"[..]));
        assert_eq!(bind.parameters.iter().collect::<Vec<_>>(), wanted, "{formats:?}");
    }
    assert_eq!(read(b'B', &bind(&[0, 1], &values)), None, "two forms for three values");
}

#[test]
fn of_a_cut_message_the_beginning_is_read() {
    let body = bind(&[], &[Some(b"first"), Some(b"second"), Some(b"third")]);
    let end = body.iter().position(|byte| *byte == b'c').unwrap();
    let message = Message { tag: b'B', body: &body[..end], cut: Some(cut(body.len() as u64)) };
    let Some(Frontend::Bind(bind)) = frontend(&message) else { panic!() };
    let values: Vec<_> = bind.parameters.iter().collect();
    assert_eq!(values, [Parameter::Text(b"first"), Parameter::Part(b"se", 6)]);
    assert_eq!(bind.parameters.count(), 3);

    let message = Message { tag: b'Q', body: b"sele", cut: Some(cut(8)) };
    assert_eq!(
        frontend(&message),
        Some(Frontend::Query(Text { bytes: b"sele", cut: Some(cut(8)) }))
    );
    let message = Message { tag: b'P', body: b"s\0select\0\0", cut: Some(cut(6)) };
    let text = Text { bytes: b"select", cut: None };
    assert_eq!(frontend(&message), Some(Frontend::Parse { name: b"s", text }));
}

#[test]
fn function_calls_are_read() {
    let body = b"\0\0\x04\xd2\0\0\0\x02\0\0\0\x03abc\xff\xff\xff\xff\0\0";
    let Some(Frontend::FunctionCall(call)) = read(b'F', body) else { panic!() };
    assert_eq!(call.oid, 1234);
    assert_eq!(
        call.arguments.iter().collect::<Vec<_>>(),
        [Parameter::Text(b"abc"), Parameter::Null]
    );
}

#[test]
fn what_is_short_long_or_odd_is_malformed() {
    for (tag, body) in [
        (b'Q', &b""[..]),
        (b'Q', b"select 1"),
        (b'Q', b"select 1\0select 2\0"),
        (b'P', b"s\0select 1\0"),
        (b'P', b"s\0select 1\0\0\x05\0\0"),
        (b'B', b"p\0s\0\0\0\0\x01\0\0\0\x09abc\0\0"),
        (b'B', b"p\0s\0\0\0\0\x01\xff\xff\xff\xfe\0\0"),
        (b'E', b"p\0"),
        (b'C', b"Qs\0"),
        (b'C', b"S"),
        (b'F', b"\0\0\0"),
        (b'X', b"x"),
    ] {
        assert_eq!(read(tag, body), None, "{} {}", char::from(tag), body.escape_ascii());
    }
}
