//! What a secret may look like in what is written or held: the spellings that a scan looks for.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// A text as it is, in base64 (at each of the three places that it can have in what was encoded), in hex, as in a URL
/// and a form, as in JSON, and in UTF-16.
pub(super) fn encodings(text: &str) -> Vec<Vec<u8>> {
    let mut all = vec![text.as_bytes().to_vec()];
    for before in 0..3 {
        let shifted = [&b"..."[..before], text.as_bytes()].concat();
        for engine in [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD] {
            // The ends share a character with what stands beside the text.
            let encoded = engine.encode(&shifted);
            all.push(encoded.as_bytes()[4..encoded.len() - 2].to_vec());
        }
    }
    let hex = |upper: bool| {
        let byte = |byte: u8| if upper { format!("{byte:02X}") } else { format!("{byte:02x}") };
        text.bytes().map(byte).collect::<String>()
    };
    all.extend([hex(false), hex(true)].map(String::into_bytes));
    let form: String = url::form_urlencoded::byte_serialize(text.as_bytes()).collect();
    all.extend([form.replace('+', "%20"), form.clone(), form.to_lowercase()].map(String::into_bytes));
    all.push(text.replace('/', "\\/").into_bytes());
    all.push(text.encode_utf16().flat_map(u16::to_le_bytes).collect());
    all.sort();
    all.dedup();
    all
}

/// The same of any bytes, with those spellings that only text which is meant to be read would have: every byte as `%41`
/// or `\u0041`, in decimal as `Debug` prints bytes, in lower and upper case, as a `Debug` text, in UTF-16 of both orders.
pub(super) fn all_encodings(secret: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let mut all = vec![("as it is", secret.to_vec())];
    for before in 0..3 {
        let shifted = [&b"..."[..before], secret].concat();
        for (name, engine) in [("base64", &STANDARD_NO_PAD), ("base64url", &URL_SAFE_NO_PAD)] {
            let encoded = engine.encode(&shifted);
            all.push((name, encoded.as_bytes()[4..encoded.len() - 2].to_vec()));
        }
    }
    let each = |write: &dyn Fn(u8) -> String| secret.iter().map(|byte| write(*byte)).collect::<String>();
    let decimal = secret.iter().map(ToString::to_string).collect::<Vec<_>>();
    all.extend(
        [
            ("hex", each(&|byte| format!("{byte:02x}"))),
            ("hex", each(&|byte| format!("{byte:02X}"))),
            ("hex with spaces", each(&|byte| format!("{byte:02x} ")).trim_end().to_owned()),
            ("hex with colons", each(&|byte| format!("{byte:02x}:")).trim_end_matches(':').to_owned()),
            ("escaped bytes", each(&|byte| format!("\\x{byte:02x}"))),
            ("percent", each(&|byte| format!("%{byte:02X}"))),
            ("percent", each(&|byte| format!("%{byte:02x}"))),
            ("\\u", each(&|byte| format!("\\u{byte:04x}"))),
            ("\\u", each(&|byte| format!("\\u{byte:04X}"))),
            ("decimal", decimal.join(", ")),
            ("decimal", decimal.join(",")),
        ]
        .map(|(name, text)| (name, text.into_bytes())),
    );
    if let Ok(text) = std::str::from_utf8(secret) {
        all.extend(of_text(text));
    }
    all.sort();
    all.dedup_by(|one, other| one.1 == other.1);
    all
}

/// In lower case, and written in another way than the spellings are.
pub(super) fn hex(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from_digit(u32::from(value), 16).unwrap();
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

fn of_text(text: &str) -> Vec<(&'static str, Vec<u8>)> {
    let form: String = url::form_urlencoded::byte_serialize(text.as_bytes()).collect();
    let json = serde_json::to_string(text).unwrap();
    let inside = |quoted: &str| quoted.split_at(quoted.len() - 1).0.split_at(1).1.to_owned();
    let lossless = [
        ("form", form.clone()),
        ("form", form.to_lowercase()),
        ("url", form.replace('+', "%20")),
        ("url", url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>().replace("%3D", "=")),
        ("JSON", inside(&json)),
        ("JSON", inside(&json).replace('/', "\\/")),
        ("JSON twice", inside(&serde_json::to_string(&inside(&json)).unwrap())),
        ("Debug", inside(&format!("{text:?}"))),
        ("lower case", text.to_lowercase()),
        ("upper case", text.to_uppercase()),
    ];
    let mut all: Vec<_> = lossless.into_iter().map(|(name, text)| (name, text.into_bytes())).collect();
    all.push(("UTF-16", text.encode_utf16().flat_map(u16::to_le_bytes).collect()));
    all.push(("UTF-16", text.encode_utf16().flat_map(u16::to_be_bytes).collect()));
    all
}

/// How often one is in the other (Horspool's way: a debug build looks at each byte slowly).
pub(super) fn occurrences(bytes: &[u8], needle: &[u8]) -> usize {
    let last = needle.len() - 1;
    let mut skips = [needle.len(); 256];
    for (at, byte) in needle[..last].iter().enumerate() {
        skips[usize::from(*byte)] = last - at;
    }
    let (mut at, mut found) = (0, 0);
    while let Some(window) = bytes.get(at..at + needle.len()) {
        found += usize::from(window == needle);
        at += skips[usize::from(window[last])];
    }
    found
}

#[test]
fn each_spelling_is_found_where_it_stands() {
    let secret = "cAnArY/+planted=77 \u{2d}&x0123456789";
    let found = |bytes: &[u8]| encodings(secret).iter().map(|needle| occurrences(bytes, needle)).sum::<usize>() > 0;
    let around = |text: &str| format!("user:{text}\r\n");
    for before in ["", "u", "us", "use"] {
        let text = format!("{before}{secret}@");
        assert!(found(STANDARD_NO_PAD.encode(&text).as_bytes()), "base64 after {before}");
        assert!(found(URL_SAFE_NO_PAD.encode(&text).as_bytes()), "base64url after {before}");
    }
    let form: String = url::form_urlencoded::byte_serialize(secret.as_bytes()).collect();
    let hex = hex(around(secret).as_bytes());
    for text in [around(secret), around(&form), hex, serde_json::to_string(&around(secret)).unwrap()] {
        assert!(found(text.as_bytes()), "{text}");
    }
    let wide: Vec<u8> = around(secret).encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert!(found(&wide));
    assert!(!found(b"cAnArY/+planted and nothing else"));
}

#[test]
fn a_text_is_counted_wherever_it_is_and_each_time() {
    assert_eq!(occurrences(b"abcabcab", b"abc"), 2);
    assert_eq!(occurrences(b"xxabc", b"abc"), 1);
    assert_eq!(occurrences(b"ab", b"abc"), 0);
    assert_eq!(occurrences(b"", b"abc"), 0);
}
