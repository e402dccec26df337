use super::*;
use crate::identity::Invalid;

fn caller(text: &str) -> Caller {
    Caller::parse(text).unwrap()
}

#[test]
fn patterns_fit_callers_of_their_kind_alone() {
    let rows: [(&str, &[&str], &[&str]); 14] = [
        ("**", &["loopback", "unix:0", "spiffe://d/p", "dns:a.b", "jwt:c:s"], &[]),
        ("loopback", &["loopback"], &["unix:0", "dns:loopback"]),
        ("unix:1000", &["unix:1000"], &["unix:100", "unix:10000", "loopback"]),
        ("unix:*", &["unix:0", "unix:1000"], &["loopback", "dns:unix"]),
        ("spiffe://d/ns/a/sa/*", &["spiffe://d/ns/a/sa/x"], &["spiffe://d/ns/a/sa/x/y", "spiffe://e/ns/a/sa/x"]),
        ("spiffe://d/**", &["spiffe://d/a", "spiffe://d/a/b"], &["spiffe://d.e/a", "spiffe://dd/a", "dns:d.a"]),
        (
            "spiffe://d/ns/*/sa/api",
            &["spiffe://d/ns/a/sa/api"],
            &["spiffe://d/ns/a/b/sa/api", "spiffe://d/ns/a/sa/apis"],
        ),
        ("dns:*.example", &["dns:a.example"], &["dns:example", "dns:a.b.example", "dns:a.example.org", "dns:a.exampl"]),
        ("dns:**.example", &["dns:a.example", "dns:a.b.example"], &["dns:example", "dns:a.notexample"]),
        ("dns:**", &["dns:a", "dns:a.b"], &["loopback", "jwt:c:dns"]),
        (
            "jwt:c:system:serviceaccount:ns:*",
            &["jwt:c:system:serviceaccount:ns:a"],
            &[
                "jwt:c:system:serviceaccount:ns:a:b",
                "jwt:c:system:serviceaccount:ns:a/b",
                "jwt:d:system:serviceaccount:ns:a",
                "jwt:c:system:serviceaccount:nsx:a",
            ],
        ),
        ("jwt:c:**", &["jwt:c:a", "jwt:c:a:b", "jwt:c:https://a/b"], &["jwt:cc:a", "jwt:d:c:a"]),
        ("jwt:c:repo:org/*:ref:**", &["jwt:c:repo:org/a:ref:refs/heads/main"], &["jwt:c:repo:org/a/b:ref:x"]),
        ("jwt:c:*", &["jwt:c:auth0|1"], &["jwt:c:a:b", "jwt:c:a/b"]),
    ];
    for (pattern, fitting, others) in rows {
        let read = CallerPattern::parse(pattern).unwrap();
        assert_eq!(read.as_str(), pattern);
        for name in fitting {
            assert!(read.fits(&caller(name)), "{pattern} {name}");
        }
        for name in others {
            assert!(!read.fits(&caller(name)), "{pattern} {name}");
        }
    }
}

#[test]
fn what_can_fit_no_caller_is_refused() {
    let rows = [
        ("", InvalidPattern::Caller(Invalid::Kind)),
        ("*", InvalidPattern::Head),
        ("***", InvalidPattern::Head),
        ("loop*", InvalidPattern::Head),
        ("*://d/p", InvalidPattern::Head),
        ("**/a", InvalidPattern::Head),
        ("unix:10*", InvalidPattern::Uid),
        ("unix:**", InvalidPattern::Uid),
        ("unix:01", InvalidPattern::Caller(Invalid::Uid)),
        ("spiffe://*/a", InvalidPattern::Head),
        ("spiffe://**", InvalidPattern::Head),
        ("spiffe://d*/a", InvalidPattern::Head),
        ("spiffe://d", InvalidPattern::Caller(Invalid::NoPath)),
        ("spiffe://D/**", InvalidPattern::Caller(Invalid::TrustDomain)),
        ("spiffe://d/a/", InvalidPattern::Caller(Invalid::Path)),
        ("spiffe://d//*", InvalidPattern::Caller(Invalid::Path)),
        ("spiffe://d/../*", InvalidPattern::Caller(Invalid::Path)),
        ("spiffe://d/a?*", InvalidPattern::Caller(Invalid::Path)),
        ("spiffe://d/a**", InvalidPattern::PartOfSegment),
        ("spiffe://d/**/b**/c", InvalidPattern::PartOfSegment),
        ("dns:A.*", InvalidPattern::Caller(Invalid::DnsName)),
        ("dns:*.", InvalidPattern::Caller(Invalid::DnsName)),
        ("dns:1.2.3.*.4", InvalidPattern::Caller(Invalid::DnsName)),
        ("dns:a**", InvalidPattern::PartOfSegment),
        ("jwt:*:a", InvalidPattern::Head),
        ("jwt:**", InvalidPattern::Head),
        ("jwt:c", InvalidPattern::Caller(Invalid::Subject)),
        ("jwt:c:", InvalidPattern::Caller(Invalid::Subject)),
        ("jwt:c:a *", InvalidPattern::Caller(Invalid::Subject)),
        ("jwt:c:a**", InvalidPattern::PartOfSegment),
    ];
    for (text, why) in rows {
        assert_eq!(CallerPattern::parse(text), Err(why), "{text:?}");
    }
}

#[test]
fn what_can_fit_no_workspace_is_refused() {
    use token::InvalidName;
    for text in ["a", "*", "**", "a/*", "a*/**", "team-*/**/prod", &"x".repeat(128), &format!("{}*", "x".repeat(127))] {
        assert_eq!(WorkspacePattern::parse(text).map(|pattern| pattern.as_str().to_owned()), Ok(text.to_owned()));
    }
    let long = format!("*{}", "x".repeat(128));
    let rows = [
        ("", InvalidPattern::Workspace(InvalidName::Empty)),
        ("A*", InvalidPattern::Workspace(InvalidName::Character)),
        ("a/*?", InvalidPattern::Workspace(InvalidName::Character)),
        ("/**", InvalidPattern::Workspace(InvalidName::EmptySegment)),
        ("a//*", InvalidPattern::Workspace(InvalidName::EmptySegment)),
        ("a/**/", InvalidPattern::Workspace(InvalidName::EmptySegment)),
        (&long, InvalidPattern::Workspace(InvalidName::TooLong)),
        ("a**", InvalidPattern::PartOfSegment),
        ("a/***", InvalidPattern::PartOfSegment),
    ];
    for (text, why) in rows {
        assert_eq!(WorkspacePattern::parse(text), Err(why), "{text:?}");
    }
}

#[test]
fn no_refusal_quotes_what_it_refuses() {
    for text in ["hunter2", "hunter2*", "unix:hunter2*", "spiffe://hunter2", "spiffe://d/hunter2**", "jwt:c:hunter2**"]
    {
        let refusal = CallerPattern::parse(text).unwrap_err().to_string();
        assert!(!refusal.contains("hunter2"), "{refusal}");
    }
}
