use super::*;
use proptest::prelude::*;

fn refused(text: &str) -> Invalid {
    Caller::parse(text).expect_err(text)
}

#[test]
fn a_name_is_read_back_as_it_was_written() {
    let long = format!("spiffe://{}/{}", "d".repeat(255), "p".repeat(2048 - 9 - 255 - 1));
    let names = [
        "loopback",
        "unix:0",
        "unix:1000",
        "unix:4294967295",
        "spiffe://prod.example/ns/payments/sa/api",
        "spiffe://prod_1.example-2/A.b-c_D",
        "spiffe://d/...",
        &long,
        "dns:localhost",
        "dns:api.prod.example",
        "dns:xn--bcher-kva.example",
        "dns:1.2.3.4a",
        "jwt:cluster:system:serviceaccount:payments:api",
        "jwt:c-1:auth0|5f7c8ec7",
        "jwt:c:https://example.org//x?y#z",
        "jwt:c::",
    ];
    for name in names {
        assert_eq!(Caller::parse(name).map(|caller| caller.to_string()), Ok(name.to_owned()));
    }
}

#[test]
fn each_kind_is_made_as_it_is_read() {
    let id = SpiffeId::parse("spiffe://prod.example/ns/a").unwrap();
    assert_eq!((id.as_str(), id.trust_domain().as_str()), ("spiffe://prod.example/ns/a", "prod.example"));
    assert_eq!(Caller::spiffe(&id), Caller::parse("spiffe://prod.example/ns/a").unwrap());
    assert_eq!(Caller::dns("a.example"), Caller::parse("dns:a.example"));
    assert_eq!(Ok(Caller::unix(7)), Caller::parse("unix:7"));
    assert_eq!(Caller::bearer("c", "a:b"), Caller::parse("jwt:c:a:b"));
    assert_eq!(Ok(Caller::loopback()), Caller::parse("loopback"));
}

#[test]
fn what_is_of_no_kind_is_refused() {
    for text in
        ["", "Loopback", "loopback ", " loopback", "loopback:", "*", "**", "root", "UNIX:0", "uid:0", "SPIFFE://d/p"]
    {
        assert_eq!(refused(text), Invalid::Kind, "{text:?}");
    }
    assert_eq!(refused(&format!("jwt:c:{}", "x".repeat(2048))), Invalid::TooLong);
}

#[test]
fn a_uid_has_one_spelling() {
    for text in ["", "00", "01", "+1", "-1", " 1", "1 ", "4294967296", "0x1", "root", "1:2", "*"] {
        assert_eq!(refused(&format!("unix:{text}")), Invalid::Uid, "{text:?}");
    }
}

#[test]
fn a_spiffe_id_is_one_by_the_letter() {
    let many = "d".repeat(256);
    for domain in ["", "A", "a b", "user@d", "d:443", "d%20", "[::1]", "*", "ü", &many] {
        assert_eq!(SpiffeId::parse(&format!("spiffe://{domain}/p")), Err(Invalid::TrustDomain), "{domain:?}");
        assert_eq!(SpiffeId::parse(&format!("spiffe://{domain}")), Err(Invalid::TrustDomain), "{domain:?}");
    }
    assert_eq!(SpiffeId::parse("spiffe://d?q/p"), Err(Invalid::TrustDomain));
    assert_eq!(SpiffeId::parse("spiffe://d"), Err(Invalid::NoPath));
    for path in [
        "", "/", "a/", "/a", "a//b", ".", "..", "a/./b", "a/../b", "a?q", "a#f", "a b", "a%2fb", "a\0", "a\n", "*",
        "a/**", "ä", "a\\b", "a:b", "a;b", "a~b",
    ] {
        assert_eq!(SpiffeId::parse(&format!("spiffe://d/{path}")), Err(Invalid::Path), "{path:?}");
    }
    for text in ["", "spiffe:", "spiffe:/", "spiffe:/d/p", "Spiffe://d/p", "http://d/p", " spiffe://d/p", "dns:a"] {
        assert_eq!(SpiffeId::parse(text), Err(Invalid::Scheme), "{text:?}");
    }
    assert_eq!(SpiffeId::parse(&format!("spiffe://d/{}", "p".repeat(2048))), Err(Invalid::TooLong));
}

#[test]
fn a_dns_name_is_a_host_in_lower_case() {
    let label = "l".repeat(64);
    let long = [&*"l".repeat(63), &*"l".repeat(63), &*"l".repeat(63), &*"l".repeat(62)].join(".");
    assert_eq!(long.len(), 254);
    let names = [
        "",
        ".",
        "a.",
        ".a",
        "a..b",
        "A",
        "api.Prod",
        "*.example",
        "a*",
        "-a",
        "a-",
        "a.-b",
        "a_b",
        "a b",
        "a\0",
        "a/b",
        "a:1",
        "ä",
        "1.2.3.4",
        "1",
        "a.1",
        "[::1]",
        &label,
        &long,
    ];
    for name in names {
        assert_eq!(Caller::dns(name), Err(Invalid::DnsName), "{name:?}");
    }
    assert!(Caller::dns(long.get(1..).unwrap()).is_ok(), "253 bytes");
}

#[test]
fn an_issuer_and_a_subject_are_told_apart_by_the_first_colon() {
    let (issuer, subject) = ("i".repeat(65), "s".repeat(256));
    for name in ["", "C", "c_1", "c.d", "c d", "c/d", "*", &issuer] {
        assert_eq!(Caller::bearer(name, "s"), Err(Invalid::Issuer), "{name:?}");
    }
    assert_eq!(Caller::bearer("a:b", "c"), Err(Invalid::Issuer), "else it would be the subject b:c of a");
    for text in ["", "a b", "*", "a*", "ä", "a\n", "a\0", "a\t", "\u{7f}", &subject] {
        assert_eq!(Caller::bearer("c", text), Err(Invalid::Subject), "{text:?}");
    }
    for text in ["jwt:", "jwt:c", "jwt:c:"] {
        assert_eq!(refused(text), Invalid::Subject, "{text:?}");
    }
    assert_eq!(refused("jwt::s"), Invalid::Issuer);
}

#[test]
fn no_refusal_quotes_what_it_refuses() {
    for text in ["hunter2", "unix:hunter2", "spiffe://hunter2", "spiffe://d/hunter2/", "dns:hunter2.", "jwt:hunter2"] {
        assert!(!refused(text).to_string().contains("hunter2"), "{text}");
    }
}

proptest! {
    /// Whatever is taken is taken as it is, and fit for a log and a pattern.
    #[test]
    fn nothing_is_mended(text in "(loopback|unix:|spiffe://|dns:|jwt:)?[ -~]{0,40}|\\PC{0,20}") {
        if let Ok(caller) = Caller::parse(&text) {
            prop_assert_eq!(caller.as_str(), &text);
            prop_assert!(text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'*'));
        }
    }

    /// Two callers of different kinds, or of different parts, never share a name.
    #[test]
    fn a_bearer_is_its_issuer_and_its_subject(issuer in "[a-z0-9-]{1,64}", subject in "[!-)+-~]{1,255}") {
        let caller = Caller::bearer(&issuer, &subject).unwrap();
        let (read, rest) = caller.as_str().strip_prefix(JWT).unwrap().split_once(':').unwrap();
        prop_assert_eq!((read, rest), (&*issuer, &*subject));
        prop_assert_eq!(Caller::parse(caller.as_str()), Ok(caller.clone()));
    }

    #[test]
    fn every_id_of_the_grammar_is_taken(domain in "[a-z0-9._-]{1,255}", path in "(/[A-Za-z0-9_-][A-Za-z0-9._-]{0,9}){1,9}") {
        let text = format!("spiffe://{domain}{path}");
        let id = SpiffeId::parse(&text).unwrap();
        prop_assert_eq!(id.trust_domain().as_str(), domain);
        let caller = Caller::spiffe(&id);
        prop_assert_eq!(caller.as_str(), &*text);
    }
}
