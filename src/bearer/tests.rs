use super::*;
use ::http::HeaderValue;

fn said(values: &[&[u8]]) -> Result<String, Refusal> {
    let mut headers = HeaderMap::new();
    for value in values {
        headers.append(AUTHORIZATION, HeaderValue::from_bytes(value).unwrap());
    }
    credentials(&headers).map(str::to_owned)
}

#[test]
fn one_header_one_scheme_one_token() {
    for good in [&b"Bearer a.b.c"[..], b"bearer a.b.c", b"BEARER a.b.c", b"Bearer   a.b.c"] {
        assert_eq!(said(&[good]), Ok("a.b.c".to_owned()));
    }
    let bad: [&[&[u8]]; 12] = [
        &[],
        &[b"Bearer a.b.c", b"Bearer a.b.c"],
        &[b"Bearer a.b.c", b"Basic eDp5"],
        &[b"Basic eDp5"],
        &[b"a.b.c"],
        &[b"Bearer"],
        &[b"Bearer "],
        &[b"Bearer\ta.b.c"],
        &[b"Bearer a.b.c d"],
        &[b"Bearer a.b.c, Bearer d"],
        &[b"Bearer a.b.c\xff"],
        &[b"Token a.b.c"],
    ];
    for values in bad {
        assert!(matches!(said(values), Err(Refusal::Invalid(_))), "{values:?}");
    }
}
