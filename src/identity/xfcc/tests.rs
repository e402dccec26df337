use super::*;
use proptest::prelude::*;

fn named(header: &str) -> Result<String, Unbelievable> {
    caller(header.as_bytes(), &[]).map(|caller| caller.as_str().to_owned())
}

const A: &str = "spiffe://prod.example/ns/a/sa/a";

#[test]
fn what_envoy_writes_is_understood() {
    let hash = "468ed33be74eee6556d90c0149c1309e9ba61d6425303443c0748a02dd8de688";
    let rows = [
        (format!("URI={A}"), A),
        (format!("By=spiffe://prod.example/edge;Hash={hash};Subject=\"\";URI={A}"), A),
        (format!("Hash={hash};Subject=\"CN=a, O=\\\"A;B\\\"\";URI={A};DNS=a.example;DNS=b.example"), A),
        (format!("Hash={hash};URI=\"{A}\""), A),
        (format!("uri={A}"), A),
        (format!("By=spiffe://one;By=spiffe://two;URI={A}"), A),
        (format!("Hash={hash};URI=;DNS=a.example"), "dns:a.example"),
        ("DNS=a.example".to_owned(), "dns:a.example"),
        ("Cert=\"-----BEGIN%20CERTIFICATE-----%0A\";DNS=a.example".to_owned(), "dns:a.example"),
    ];
    for (header, name) in rows {
        assert_eq!(named(&header).as_deref(), Ok(name), "{header}");
    }
}

#[test]
fn whatever_could_mean_two_things_means_nothing() {
    use Unbelievable::{Elements, Malformed, Name, Names};
    let two = format!("URI={A},URI=spiffe://prod.example/b");
    let rows = [
        ("", Malformed),
        (" ", Malformed),
        ("=", Malformed),
        ("URI", Malformed),
        (";", Malformed),
        (",", Elements),
        (&two, Elements),
        ("URI=spiffe://prod.example/a,", Elements),
        (",URI=spiffe://prod.example/a", Elements),
        ("URI=\"spiffe://prod.example/a\",URI=\"spiffe://prod.example/b\"", Elements),
        ("URI=spiffe://prod.example/a;URI=spiffe://prod.example/a", Names),
        ("URI=spiffe://prod.example/a;uri=spiffe://prod.example/b", Names),
        ("URI=", Names),
        ("URI=;URI=spiffe://prod.example/a", Names),
        ("DNS=a.example;URI=spiffe://prod.example/a;URI=", Names),
        ("URI=;URI=;DNS=a.example", Names),
        ("URI=;DNS=;DNS=a.example", Names),
        ("URI=\"\"", Names),
        ("Subject=\"CN=a\"", Names),
        ("DNS=a.example;DNS=b.example", Names),
        ("By=spiffe://prod.example/a;Hash=00", Names),
        ("URI=https://prod.example/a;DNS=a.example", Name),
        ("URI=spiffe://prod.example", Name),
        ("URI=spiffe://PROD.example/a", Name),
        ("URI=spiffe://prod.example/a/../b", Name),
        ("URI=spiffe://prod.example/%61", Name),
        ("URI=spiffe://prod.example/*", Name),
        ("DNS=*.example", Name),
        ("DNS=A.example", Name),
        ("URI= spiffe://prod.example/a", Malformed),
        ("URI =spiffe://prod.example/a", Malformed),
        ("Hash=00; URI=spiffe://prod.example/a", Malformed),
        ("URI=spiffe://prod.example/a;", Malformed),
        (";URI=spiffe://prod.example/a", Malformed),
        ("URI==spiffe://prod.example/a", Malformed),
        ("URI=\"spiffe://prod.example/a", Malformed),
        ("URI=\"spiffe://prod.example/a\\\"", Malformed),
        ("URI=\"spiffe://prod.example/a\\", Malformed),
        ("URI=\"spiffe://prod.example\"/a", Malformed),
        ("URI=spiffe://prod.example/\"a\"", Malformed),
        ("Subject=\"x\" ;URI=spiffe://prod.example/a", Malformed),
        ("Subject=CN=a;URI=spiffe://prod.example/a", Malformed),
        ("URI=spiffe://prod.example/a\t", Malformed),
        ("URI=spiffe://prod.example/ä", Malformed),
        ("U-RI=spiffe://prod.example/a", Malformed),
        // Quotes hide what they hold.
        ("Subject=\"\\\";URI=spiffe://prod.example/a;x=\"", Names),
        ("Subject=\";URI=spiffe://prod.example/a\"", Names),
        ("Subject=\"a\\\";URI=spiffe://prod.example/a\"", Names),
    ];
    for (header, why) in rows {
        assert_eq!(named(header), Err(why), "{header}");
    }
    assert_eq!(caller(b"URI=spiffe://prod.example/a\0", &[]), Err(Malformed));
    assert_eq!(caller(b"URI=spiffe://prod.example/\xff", &[]), Err(Malformed));
}

#[test]
fn it_has_an_end() {
    let long = format!("Subject=\"{}\";URI={A}", "x".repeat(LONGEST));
    assert_eq!(named(&long), Err(Unbelievable::TooLong));
    let fits = format!("{}URI={A}", "By=x;".repeat(MOST_PAIRS - 1));
    assert_eq!(named(&fits).as_deref(), Ok(A));
    assert_eq!(named(&format!("By=x;{fits}")), Err(Unbelievable::TooLong));
}

#[test]
fn other_trust_domains_are_refused_where_some_are_listed() {
    let listed = [TrustDomain::parse("prod.example").unwrap()];
    let judge = |header: &str| caller(header.as_bytes(), &listed).map(|caller| caller.as_str().to_owned());
    assert_eq!(judge(&format!("URI={A}")).as_deref(), Ok(A));
    assert_eq!(judge("URI=spiffe://prod.example.evil/a"), Err(Unbelievable::TrustDomain));
    assert_eq!(judge("DNS=a.example").as_deref(), Ok("dns:a.example"));
}

fn quote(value: &str) -> String {
    format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
}

proptest! {
    /// Whatever comes, there is an answer, and one that names somebody is for a header with that name in it.
    #[test]
    fn nothing_makes_it_panic(header in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(caller) = caller(&header, &[]) {
            let name = caller.as_str().trim_start_matches("dns:").to_owned();
            let text = String::from_utf8(header).unwrap();
            prop_assert!(text.contains(&name) || text.contains('\\'));
        }
    }

    #[test]
    fn nothing_that_looks_alike_makes_it_panic(header in "(URI|DNS|By|,|;|=|\"|\\\\| |spiffe://a/b|a.b){0,12}") {
        let _judged = caller(header.as_bytes(), &[]);
    }

    /// A subject is of the client's choosing: whatever it is, as long as it is quoted, it names nobody.
    #[test]
    fn no_subject_changes_who_it_is(subject in "[ -~]{0,60}", before in any::<bool>()) {
        let subject = format!("Subject={}", quote(&subject));
        let header = if before { format!("{subject};URI={A}") } else { format!("URI={A};{subject}") };
        prop_assert_eq!(named(&header), Ok(A.to_owned()));
    }
}
