//! The judgement over all classes of addresses, and what a list of hosts opens. URLs as they are written in a
//! configuration are in `tests/it/config/urls.rs`.

use super::*;

#[test]
fn addresses_lead_where_the_registries_say() {
    let table = [
        (Reach::Public, "1.1.1.1 100.63.255.255 172.32.0.1 192.0.1.1 223.255.255.255 168.63.129.17"),
        (Reach::Public, "2600:9000::1 2a00:1450::1 2001:4860::8888 64:ff9b::101:101 2002:101:101::1"),
        (Reach::Private, "127.0.0.1 127.9.9.9 10.0.0.1 172.16.0.1 172.31.255.255 192.168.1.1 100.64.0.1"),
        (Reach::Private, "198.18.0.1 ::1 fc00::1 fd12::1 64:ff9b::a00:1 2002:a00:1:: 64:ff9b:1::1.1.1.1"),
        (Reach::Special, "0.0.0.0 0.1.2.3 169.254.169.253 224.0.0.1 255.255.255.255 192.0.2.1 240.0.0.1"),
        (Reach::Special, ":: ::ffff:1.1.1.1 ::ffff:10.0.0.1 ::1.2.3.4 ::ffff:0:1.1.1.1 fe80::1 fec0::1"),
        (Reach::Special, "ff02::1 2001:db8::1 2001:0:1::1 2001:2::1 3fff::1 4000::1 64:ff9b::a9fe:1"),
        (Reach::Metadata, "169.254.169.254 169.254.170.2 100.100.100.200 168.63.129.16 192.0.0.192"),
        (Reach::Metadata, "fd00:ec2::254 fd00:ec2::23 fd20:ce::254 fe80::a9fe:a9fe 64:ff9b:1::a9fe:a9fe"),
        (Reach::Metadata, "64:ff9b::a9fe:a9fe 2002:a9fe:a9fe:: ::ffff:169.254.169.254 ::169.254.169.254"),
        (Reach::Metadata, "::ffff:0:169.254.169.254 ::ffff:100.100.100.200 2002:6464:64c8::1"),
    ];
    for (expected, addresses) in table {
        for address in addresses.split(' ') {
            assert_eq!(reach(address.parse().unwrap()), expected, "{address}");
        }
    }
}

fn listed(entries: &[&str]) -> Hosts {
    let entries: Vec<_> = entries.iter().map(ToString::to_string).collect();
    Hosts::parse(&entries).unwrap()
}

/// What may be connected to for a name of each standing, over an address of each class.
#[test]
fn a_name_leads_only_where_its_standing_lets_it() {
    let hosts = listed(&["mock.internal"]);
    let table = [
        ("1.1.1.1", [true, true, false]),
        ("2600:9000::1", [true, true, false]),
        ("64:ff9b::101:101", [true, true, false]),
        ("10.0.0.1", [false, true, false]),
        ("172.16.0.1", [false, true, false]),
        ("192.168.0.1", [false, true, false]),
        ("100.64.0.1", [false, true, false]),
        ("198.18.0.1", [false, true, false]),
        ("fd12::1", [false, true, false]),
        ("64:ff9b::a00:1", [false, true, false]),
        ("2002:a00:1::", [false, true, false]),
        ("127.0.0.1", [false, true, true]),
        ("::1", [false, true, true]),
        ("0.0.0.0", [false; 3]),
        ("::", [false; 3]),
        ("169.254.1.1", [false; 3]),
        ("fe80::1", [false; 3]),
        ("224.0.0.1", [false; 3]),
        ("ff02::1", [false; 3]),
        ("255.255.255.255", [false; 3]),
        ("240.0.0.1", [false; 3]),
        ("192.0.2.1", [false; 3]),
        ("2001:db8::1", [false; 3]),
        ("::ffff:127.0.0.1", [false; 3]),
        ("::ffff:10.0.0.1", [false; 3]),
        ("::127.0.0.1", [false; 3]),
        ("2001:0:7f00:1::", [false; 3]),
        ("169.254.169.254", [false; 3]),
        ("fd00:ec2::254", [false; 3]),
        ("100.100.100.200", [false; 3]),
        ("168.63.129.16", [false; 3]),
        ("64:ff9b::a9fe:a9fe", [false; 3]),
        ("2002:a9fe:a9fe::", [false; 3]),
    ];
    for (address, expected) in table {
        let parsed = address.parse().unwrap();
        let may = ["api.example.com", "mock.internal", "localhost"].map(|name| hosts.may_connect(name, parsed));
        assert_eq!(may, expected, "{address}: a name, a listed name, localhost");
    }
}

#[test]
fn entries_that_are_no_hosts_are_refused() {
    for bad in ["", "http://a", "a:1", "10.0.0.0/8", "a b", "a/", "*", "*.a", "a%2eb", "mock.internal.", "u@a", "[::1"]
    {
        let refused = host(bad) == Err(NotAHost);
        assert!(refused, "{bad}");
    }
    assert_eq!(host("[::1]"), Ok(Host::Ipv6(Ipv6Addr::LOCALHOST)));
    assert_eq!(host("::1"), Ok(Host::Ipv6(Ipv6Addr::LOCALHOST)));
    assert_eq!(host("A.Example"), Ok(Host::Domain("a.example".to_owned())));
}
