use super::*;
use rcgen::string::Ia5String;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, KeyUsagePurpose, SanType};

const ID: &str = "spiffe://prod.example/ns/payments/sa/api";

fn uri(text: &str) -> SanType {
    SanType::URI(Ia5String::try_from(text).unwrap())
}

fn host(text: &str) -> SanType {
    SanType::DnsName(Ia5String::try_from(text).unwrap())
}

fn mail(text: &str) -> SanType {
    SanType::Rfc822Name(Ia5String::try_from(text).unwrap())
}

/// A self-signed certificate with these names.
fn with(names: &[SanType], change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "host.example");
    params.subject_alt_names = names.to_vec();
    change(&mut params);
    params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
}

fn name_of(names: &[SanType]) -> Result<Name, Error> {
    Name::of(&with(names, |_| {}))
}

fn caller_of(names: &[SanType]) -> Result<String, Error> {
    Ok(name_of(names)?.caller(&[])?.as_str().to_owned())
}

#[test]
fn one_uri_is_the_caller_whatever_stands_beside_it() {
    let address = SanType::IpAddress([127, 0, 0, 1].into());
    for beside in [vec![], vec![host("a.example")], vec![host("*.example"), host("B"), address, mail("a@b.example")]] {
        let names = [beside, vec![uri(ID)]].concat();
        assert_eq!(caller_of(&names).as_deref(), Ok(ID), "{names:?}");
    }
}

#[test]
fn without_a_uri_the_one_dns_name_is_the_caller() {
    let address = SanType::IpAddress([127, 0, 0, 1].into());
    assert_eq!(caller_of(&[host("api.pay.example")]).as_deref(), Ok("dns:api.pay.example"));
    assert_eq!(caller_of(&[address, host("api"), mail("a@b.example")]).as_deref(), Ok("dns:api"));
}

#[test]
fn what_names_nobody_or_two_is_refused() {
    let address = SanType::IpAddress([127, 0, 0, 1].into());
    let other = "spiffe://prod.example/ns/payments/sa/web";
    for (names, expected) in [
        (vec![], Error::Nameless),
        (vec![address], Error::Nameless),
        (vec![mail("a@b.example")], Error::Nameless),
        (vec![uri(ID), uri(other)], Error::SeveralUris),
        (vec![uri(ID), uri(ID)], Error::SeveralUris),
        (vec![uri(ID), uri("https://a.example/")], Error::SeveralUris),
        (vec![host("a.example"), host("b.example")], Error::SeveralDnsNames),
        (vec![host("a.example"), host("a.example")], Error::SeveralDnsNames),
        // A DNS name does not stand in for a URI that is of no use.
        (vec![uri("https://a.example/"), host("a.example")], Error::Uri(Invalid::Scheme)),
        (vec![uri("SPIFFE://prod.example/a")], Error::Uri(Invalid::Scheme)),
        (vec![uri("spiffe://Prod.example/a")], Error::Uri(Invalid::TrustDomain)),
        (vec![uri("spiffe://prod.example:1/a")], Error::Uri(Invalid::TrustDomain)),
        (vec![uri("spiffe://me@prod.example/a")], Error::Uri(Invalid::TrustDomain)),
        (vec![uri("spiffe:///a")], Error::Uri(Invalid::TrustDomain)),
        (vec![uri("spiffe://prod.example")], Error::Uri(Invalid::NoPath)),
        (vec![uri("spiffe://prod.example/")], Error::Uri(Invalid::Path)),
        (vec![uri("spiffe://prod.example/a/")], Error::Uri(Invalid::Path)),
        (vec![uri("spiffe://prod.example//a")], Error::Uri(Invalid::Path)),
        (vec![uri("spiffe://prod.example/a/../b")], Error::Uri(Invalid::Path)),
        (vec![uri("spiffe://prod.example/a%2fb")], Error::Uri(Invalid::Path)),
        (vec![uri("spiffe://prod.example/a?b")], Error::Uri(Invalid::Path)),
        (vec![uri("spiffe://prod.example/*")], Error::Uri(Invalid::Path)),
        (vec![uri("")], Error::Uri(Invalid::Scheme)),
        (vec![host("*.example")], Error::DnsName(Invalid::DnsName)),
        (vec![host("API.example")], Error::DnsName(Invalid::DnsName)),
        (vec![host("api.example.")], Error::DnsName(Invalid::DnsName)),
        (vec![host("a..example")], Error::DnsName(Invalid::DnsName)),
        (vec![host("127.0.0.1")], Error::DnsName(Invalid::DnsName)),
        (vec![host("a b")], Error::DnsName(Invalid::DnsName)),
        (vec![host("")], Error::DnsName(Invalid::DnsName)),
    ] {
        assert_eq!(name_of(&names), Err(expected), "{names:?}");
    }
}

#[test]
fn an_authority_or_a_key_that_does_not_sign_is_no_caller() {
    let ca = with(&[uri(ID)], |params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
    assert_eq!(Name::of(&ca), Err(Error::Authority));
    assert!(Facts::of(&ca).unwrap().authority);
    for (usage, expected) in [
        (KeyUsagePurpose::KeyCertSign, Err(Error::Authority)),
        (KeyUsagePurpose::CrlSign, Err(Error::Authority)),
        (KeyUsagePurpose::KeyEncipherment, Err(Error::CannotSign)),
        (KeyUsagePurpose::DigitalSignature, Ok(Name::Spiffe(SpiffeId::parse(ID).unwrap()))),
    ] {
        let leaf = with(&[uri(ID)], |params| params.key_usages = vec![usage]);
        assert_eq!(Name::of(&leaf), expected);
        assert!(!Facts::of(&leaf).unwrap().authority);
    }
}

#[test]
fn a_trust_domain_that_is_not_listed_is_refused_and_a_host_is_of_none() {
    let domain = |name| TrustDomain::parse(name).unwrap();
    let listed = [domain("other.example"), domain("prod.example")];
    let spiffe = || name_of(&[uri(ID)]).unwrap();
    assert!(spiffe().caller(&listed).is_ok());
    assert_eq!(spiffe().caller(&listed[..1]), Err(Error::TrustDomain));
    assert!(name_of(&[host("a.example")]).unwrap().caller(&listed).is_ok());
}

/// Names that can't be written with rcgen: put in by hand, in the place of others of the same length.
#[test]
fn a_name_that_is_not_text_is_refused() {
    let good = with(&[host("a.example"), uri(ID)], |_| {});
    let place = good.windows(9).position(|window| window == b"a.example").unwrap();
    let mut bad = good.clone();
    bad[place] = 0xff;
    assert!(Name::of(&good).is_ok());
    assert_eq!(Name::of(&bad), Err(Error::Malformed));
    let mut with_nul = good;
    let place = with_nul.windows(3).position(|window| window == b"/ns").unwrap();
    with_nul[place] = 0;
    assert!(Name::of(&with_nul).is_err());
}

#[test]
fn what_is_no_certificate_is_refused_at_every_length() {
    let good = with(&[uri(ID)], |_| {});
    for length in 0..good.len() {
        assert_eq!(Name::of(&good[..length]), Err(Error::Malformed), "{length} bytes");
    }
    assert_eq!(Name::of(&[&good[..], &[0]].concat()), Err(Error::Malformed));
}

#[test]
fn a_period_counts_from_its_first_to_its_last_second() {
    let second = |number| UNIX_EPOCH + Duration::from_secs(number);
    let der = with(&[uri(ID)], |params| {
        params.not_before = second(1_000_000_000).into();
        params.not_after = second(1_000_003_600).into();
    });
    let period = Facts::of(&der).unwrap().period;
    assert_eq!(period, Period { from: second(1_000_000_000), until: second(1_000_003_600) });
    for (now, expected) in [(999_999_999, false), (1_000_000_000, true), (1_000_003_600, true), (1_000_003_601, false)]
    {
        assert_eq!(period.holds(second(now)), expected, "{now}");
    }
    assert!(!period.is_over(second(999_999_999)) && period.is_over(second(1_000_003_601)));
}
