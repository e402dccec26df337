//! What is found wrong when the files are first read: which file, and what to do.

use super::pki::{SHORT_RSA, Spec, client, openssl};
use super::{URI, World};
use std::fs;

type Spoil = fn(&World);

/// A change of good files, and the key and words of what is then said.
const SPOILT: &[(Spoil, &str, &str)] = &[
    (|world| fs::remove_file(world.live("tls.crt")).unwrap(), "certificate_file", "can't be read"),
    (|world| fs::write(world.live("tls.crt"), "").unwrap(), "certificate_file", "holds no certificate"),
    (|world| fs::write(world.live("tls.crt"), "hello").unwrap(), "certificate_file", "holds no certificate"),
    (|world| fs::write(world.live("tls.crt"), world.shown.key_pem()).unwrap(), "certificate_file", "no certificate"),
    (|world| fs::create_dir(world.live("tls")).unwrap(), "", ""),
    (|world| garble(world, "tls.crt"), "certificate_file", "can't be read"),
    (|world| cut(world, "tls.crt"), "certificate_file", "cut off"),
    (|world| dated(world, "20200101000000Z", "20200102000000Z"), "certificate_file", "has expired"),
    (|world| dated(world, "20980101000000Z", "20980102000000Z"), "certificate_file", "not valid yet"),
    (|world| fs::remove_file(world.live("tls.key")).unwrap(), "key_file", "can't be read"),
    (|world| fs::write(world.live("tls.key"), world.shown.pem()).unwrap(), "key_file", "holds no private key"),
    (|world| cut(world, "tls.key"), "key_file", "cut off"),
    (|world| encrypt(world), "key_file", "encrypted"),
    (|world| twice(world, "tls.key"), "key_file", "several private keys"),
    (|world| mismatch(world), "key_file", "does not belong"),
    (|world| short_key(world), "key_file", "the key can't be used"),
    (|world| fs::write(world.live("ca.crt"), "").unwrap(), "client_ca_file", "holds no certificate"),
    (|world| cut(world, "ca.crt"), "client_ca_file", "cut off"),
    (|world| leaf_as_authority(world), "client_ca_file", "not of an authority"),
    (|world| ended_authority(world), "client_ca_file", "no authority in it is valid now"),
    (|world| fs::write(world.live("crl.pem"), "").unwrap(), "crl_file", "holds no revocation list"),
    (|world| fs::write(world.live("crl.pem"), world.callers.pem()).unwrap(), "crl_file", "no revocation list"),
    (|world| list(world, "20200101000000Z", "20200102000000Z"), "crl_file", "past its nextUpdate"),
    (|world| list(world, "20980101000000Z", "20990102000000Z"), "crl_file", "not valid yet"),
];

#[test]
fn each_file_that_can_not_be_used_is_named_with_the_reason() {
    for (at, (spoil, key, words)) in SPOILT.iter().enumerate() {
        let world = World::new();
        spoil(&world);
        match world.try_server() {
            Ok(_) => assert!(key.is_empty(), "{at}: {words}"),
            Err(error) => {
                assert_eq!(error.key, *key, "{at}: {error}");
                assert!(!key.is_empty() && error.problem.contains(words), "{at}: {error}");
                assert!(!error.to_string().contains("BEGIN"), "{error}");
            }
        }
    }
}

#[test]
fn no_beginning_of_a_file_passes_for_the_whole() {
    let world = World::new();
    world.show(&world.shown.with(&world.servers));
    world.trust(&[&world.callers, &world.servers]);
    fs::write(world.live("crl.pem"), world.callers.revocations() + &world.callers.revocations()).unwrap();
    assert!(world.try_server().is_ok());
    for name in ["tls.crt", "tls.key", "ca.crt", "crl.pem"] {
        let whole = fs::read_to_string(world.live(name)).unwrap();
        let (mut passed, end) = (Vec::new(), whole.trim_end().len());
        for length in (0..end).filter(|length| length % 5 == 0 || whole.as_bytes()[*length] == b'-') {
            fs::write(world.live(name), &whole.as_bytes()[..length]).unwrap();
            if world.try_server().is_ok() {
                passed.push(length);
            }
        }
        // Two certificates cut exactly between them are one certificate: nothing tells.
        let between = whole.match_indices("-----BEGIN").map(|(at, _)| at).filter(|at| *at > 0);
        let between: Vec<_> = between.flat_map(|at| [at - 1, at]).collect();
        assert!(passed.iter().all(|length| between.contains(length)), "{name}: {passed:?}, not {between:?}");
        fs::write(world.live(name), &whole).unwrap();
    }
}

#[test]
fn an_authority_that_has_ended_is_left_out() {
    let world = World::new();
    let spec = Spec { start: "20200101000000Z", end: "20200102000000Z", ..Spec::default() };
    world.trust(&[&world.pki.root_like("ended", &spec), &world.callers]);
    let server = world.server();
    // 2099-12-31T23:59:59Z
    let end = std::time::UNIX_EPOCH + std::time::Duration::from_secs(4_102_444_799);
    assert_eq!(server.certificate().client_ca.unwrap().until, end);
}

fn garble(world: &World, name: &str) {
    let text = fs::read_to_string(world.live(name)).unwrap();
    fs::write(world.live(name), text.replacen("MII", "AAA", 1)).unwrap();
}

fn cut(world: &World, name: &str) {
    let text = fs::read_to_string(world.live(name)).unwrap();
    fs::write(world.live(name), &text.as_bytes()[..text.len() / 2]).unwrap();
}

fn twice(world: &World, name: &str) {
    let text = fs::read_to_string(world.live(name)).unwrap();
    fs::write(world.live(name), text.repeat(2)).unwrap();
}

fn dated(world: &World, start: &str, end: &str) {
    let spec = Spec { extensions: "subjectAltName=DNS:broker", start, end, ..Spec::default() };
    world.show(&world.servers.issue("dated", &spec));
}

fn encrypt(world: &World) {
    let (from, to) = (world.shown.key.to_str().unwrap(), world.live("tls.key"));
    openssl(&["pkcs8", "-topk8", "-in", from, "-out", to.to_str().unwrap(), "-passout", "pass:secret"]);
}

fn mismatch(world: &World) {
    fs::write(world.live("tls.key"), world.servers.server("other").key_pem()).unwrap();
}

fn short_key(world: &World) {
    let spec = Spec { key: SHORT_RSA, extensions: "subjectAltName=DNS:broker", ..Spec::default() };
    world.show(&world.servers.issue("short", &spec));
}

fn leaf_as_authority(world: &World) {
    let leaf = world.callers.issue("leaf", &Spec { extensions: &client(URI), ..Spec::default() });
    fs::write(world.live("ca.crt"), world.callers.pem() + &leaf.pem()).unwrap();
}

fn ended_authority(world: &World) {
    let spec = Spec { start: "20200101000000Z", end: "20200102000000Z", ..Spec::default() };
    world.trust(&[&world.pki.root_like("ended", &spec)]);
}

fn list(world: &World, last: &str, next: &str) {
    fs::write(world.live("crl.pem"), world.callers.revocations_of(last, next)).unwrap();
}
