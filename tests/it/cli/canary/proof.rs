//! The scanner proves itself: what leaks is found, however it is spelled and wherever it is.

use super::super::spellings::all_encodings;
use super::scanner::{Scanner, Secret, Seen, gzipped};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rcgen::KeyPair;

/// Where the outputs of the other tests come from.
const KINDS: [&str; 9] =
    ["stdout", "stderr", "log", "audit", "metrics", "error details", "argv", "environ", "a file that was written"];

#[test]
fn a_planted_leak_is_found_in_every_spelling_and_every_kind_of_output() {
    let secret = Secret::planted("a secret that leaks");
    let scanner = Scanner::new([&secret]);
    let lines = ["{\"level\":\"INFO\",\"message\":\"", "\"}\n"];
    let samples: Vec<Vec<u8>> = all_encodings(secret.text.as_bytes()).into_iter().map(|(_, sample)| sample).collect();
    assert!(samples.len() >= 28, "{}", samples.len());
    for sample in &samples {
        let line = [lines[0].as_bytes(), sample, lines[1].as_bytes()].concat();
        for kind in KINDS {
            let mut seen = Seen::default();
            seen.add(kind, line.clone());
            let hits = seen.hits(&scanner);
            assert!(!hits.is_empty() && hits.iter().all(|hit| hit.starts_with(kind)), "{kind}: {sample:?}");
        }
        let member = [b"before", gzipped(&line).as_slice(), b"behind"].concat();
        assert!(scanner.hits(&member).iter().any(|hit| hit.starts_with("gzip: ")), "{sample:?}");
    }
    for harmless in ["", "a secret that leaks", "the end of the world as we know it, and I feel fine"] {
        assert!(scanner.hits(harmless.as_bytes()).is_empty(), "{harmless}");
    }
}

/// Not written by the code that makes the needles.
#[test]
fn what_others_write_is_found() {
    let secret = Secret::planted("a secret in what others write");
    let (scanner, text) = (Scanner::new([&secret]), secret.text.as_str());
    for before in ["", "u", "us", "use", "user:"] {
        let whole = format!("{before}{text}:more");
        assert!(!scanner.hits(STANDARD.encode(&whole).as_bytes()).is_empty(), "base64 after {before:?}");
        assert!(!scanner.hits(URL_SAFE_NO_PAD.encode(&whole).as_bytes()).is_empty(), "base64url after {before:?}");
    }
    let url = url::Url::parse_with_params("http://a/", [("q", text)]).unwrap();
    let toml = toml::to_string(&std::collections::BTreeMap::from([("key", text)])).unwrap();
    let samples = [
        url.to_string(),
        toml,
        format!("{:?}", Some(text)),
        format!("{:?}", text.as_bytes()),
        format!("{:?}", bytes::Bytes::copy_from_slice(text.as_bytes())),
        format!("{:x?}", text.as_bytes()),
        serde_json::json!({ "message": format!("{:?}", text) }).to_string(),
        text.escape_unicode().to_string().replace("\\u{", "\\u00").replace('}', ""),
        // Cut off, as errors are.
        text.chars().skip(7).take(24).collect(),
    ];
    for sample in samples {
        // `{:x?}` is what nothing here prints, and shows that a sample can be missed.
        assert_eq!(
            scanner.hits(sample.as_bytes()).is_empty(),
            sample.starts_with('[') && sample.contains("3d, "),
            "{sample}"
        );
    }
}

#[test]
fn a_private_key_is_found_by_each_of_its_lines_and_whole() {
    let key = KeyPair::generate().unwrap();
    let pem = key.serialize_pem();
    let scanner = Scanner::new([&Secret::key("key", &pem)]);
    for line in pem.lines().filter(|line| !line.starts_with("-----")) {
        assert!(!scanner.hits(format!("bad line: {line}!").as_bytes()).is_empty(), "{line}");
    }
    let der = key.serialize_der();
    let samples = [der.clone(), STANDARD.encode(&der).into_bytes(), URL_SAFE_NO_PAD.encode(&der[36..68]).into_bytes()];
    for sample in samples {
        assert!(!scanner.hits(&[b"x", sample.as_slice(), b"y"].concat()).is_empty());
    }
    // What is public is no leak.
    assert!(scanner.hits(key.public_key_pem().as_bytes()).is_empty());
}
