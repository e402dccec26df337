//! Files that change under a listener in use.

use super::pki::Identity;
use super::{ID, PATIENCE, URI, World, until};
use rcgen::{CertificateParams, Issuer, KeyPair};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};
use token_broker::identity::Evidence;
use token_broker::supervisor::Supervisor;
use token_broker::tls::Server;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Kubernetes' way: a directory of files behind a link, and links to them through it. A change swaps the one link.
fn swap(live: &Path, generation: usize, files: &[(&str, String)]) {
    let fresh = live.join(format!("..{generation}"));
    fs::create_dir(&fresh).unwrap();
    for (name, content) in files {
        fs::write(fresh.join(name), content).unwrap();
        if fs::symlink_metadata(live.join(name)).is_ok_and(|metadata| !metadata.is_symlink()) {
            fs::remove_file(live.join(name)).unwrap();
        }
        if fs::symlink_metadata(live.join(name)).is_err() {
            symlink(Path::new("..data").join(name), live.join(name)).unwrap();
        }
    }
    symlink(fresh.file_name().unwrap(), live.join("..data_tmp")).unwrap();
    fs::rename(live.join("..data_tmp"), live.join("..data")).unwrap();
    let before = generation.checked_sub(1).map(|before| live.join(format!("..{before}")));
    if let Some(before) = before.filter(|before| before.exists()) {
        fs::remove_dir_all(before).unwrap();
    }
}

/// Writes over what is there, one file after another.
fn overwrite(live: &Path, _generation: usize, files: &[(&str, String)]) {
    for (name, content) in files {
        fs::write(live.join(name), content).unwrap();
    }
}

/// An authority of one round, made in the process: there are many.
struct Round {
    pem: String,
    caller: Identity,
    broker: (String, String),
    ends: SystemTime,
}

impl Round {
    fn new(world: &World, at: usize) -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, format!("callers {at}"));
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        let (certificate, caller_key) = issue(&params, &key);
        let paths = (world.pki.path(&format!("{at}.crt")), world.pki.path(&format!("{at}.key")));
        fs::write(&paths.0, certificate).unwrap();
        fs::write(&paths.1, caller_key).unwrap();

        let mut root = CertificateParams::default();
        root.distinguished_name = rcgen::DistinguishedName::new();
        root.distinguished_name.push(rcgen::DnType::CommonName, "servers");
        let root_key = fs::read_to_string(world.servers.key()).unwrap();
        let issuer = Issuer::new(root, KeyPair::from_pem(&root_key).unwrap());
        let mut params = CertificateParams::new(vec!["broker".to_owned()]).unwrap();
        let ends = SystemTime::UNIX_EPOCH + Duration::from_secs(4_000_000_000 + at as u64);
        params.not_after = ends.into();
        let key = KeyPair::generate().unwrap();
        let broker = (params.signed_by(&key, &issuer).unwrap().pem(), key.serialize_pem());
        Self { pem, caller: Identity { certificate: paths.0, key: paths.1 }, broker, ends }
    }
}

fn issue(ca: &CertificateParams, key: &KeyPair) -> (String, String) {
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![rcgen::SanType::URI(ID.try_into().unwrap())];
    let own = KeyPair::generate().unwrap();
    (params.signed_by(&own, &Issuer::from_params(ca, key)).unwrap().pem(), own.serialize_pem())
}

/// Goes round so often. Each round has a new certificate and another authority beside the last one, to which callers go
/// over once it is trusted; the one before the last is no longer among them.
async fn go_round(rounds: usize, change: fn(&Path, usize, &[(&str, String)])) -> (u64, Duration) {
    let world = World::new();
    let all: Vec<_> = (0..=rounds).map(|at| Round::new(&world, at)).collect();
    let (supervisor, all) = (Supervisor::new(), Arc::new(all));
    fs::write(world.live("ca.crt"), &all[0].pem).unwrap();
    let server = world.followed(&supervisor);
    let world = Arc::new(world);
    let (round, done) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let mut load = JoinSet::new();
    for _ in 0..2 {
        let (world, server, all) = (Arc::clone(&world), server.clone(), Arc::clone(&all));
        let (round, done) = (Arc::clone(&round), Arc::clone(&done));
        load.spawn(async move {
            let (mut count, mut failed) = (0, Vec::new());
            while !done.load(Ordering::SeqCst) {
                let at = usize::try_from(round.load(Ordering::SeqCst)).unwrap();
                failed.extend(world.shake(&server, &all[at].caller).await.err());
                count += 1;
            }
            (count, failed)
        });
    }
    let begun = tokio::time::Instant::now();
    for at in 1..=rounds {
        let (last, this) = (&all[at - 1], &all[at]);
        let files = [
            ("tls.crt", this.broker.0.clone()),
            ("tls.key", this.broker.1.clone()),
            ("ca.crt", [last.pem.as_str(), &this.pem].concat()),
        ];
        change(&world.live(""), at, &files);
        until(&world, &server, &last.caller, "a round", || server.certificate().period.until == this.ends).await;
        round.store(at as u64, Ordering::SeqCst);
        if let Some(gone) = at.checked_sub(2) {
            assert!(world.shake(&server, &all[gone].caller).await.is_err(), "round {at}");
        }
    }
    let took = begun.elapsed();
    done.store(true, Ordering::SeqCst);
    let ends = load.join_all().await;
    let failed: Vec<_> = ends.iter().flat_map(|(_, failed)| failed).collect();
    assert!(failed.is_empty(), "{failed:?}");
    let accepted = world.counted("tls_reloads_total{listener=\"mesh\",outcome=\"accepted\"}");
    assert_eq!(accepted.map(|told| told >= rounds), Some(true), "{accepted:?}");
    (ends.iter().map(|(count, _)| count).sum(), took)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_rounds_in_the_manner_of_kubernetes_fail_no_handshake() {
    let (handshakes, took) = go_round(60, swap).await;
    assert!(handshakes >= 60, "{handshakes} in {took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_written_over_one_after_another_fail_no_handshake() {
    let (handshakes, _) = go_round(10, overwrite).await;
    assert!(handshakes >= 10, "{handshakes}");
}

/// What is put in place, and what is said of it.
type Bad = (&'static str, fn(&World), &'static str);

const BAD: &[Bad] = &[
    ("an expired certificate", |world| dated(world, "20200101000000Z", "20200102000000Z"), "it has expired"),
    ("one that is not valid yet", |world| dated(world, "20980101000000Z", "20980102000000Z"), "not valid yet"),
    ("half a certificate", |world| halve(world, "tls.crt"), "cut off"),
    ("half a key", |world| halve(world, "tls.key"), "cut off"),
    ("half an authority", |world| halve(world, "ca.crt"), "cut off"),
    ("another's key", |world| fs::write(world.live("tls.key"), world.servers.server("x").key_pem()).unwrap(), "belong"),
    ("no certificate", |world| fs::remove_file(world.live("tls.crt")).unwrap(), "can't be read"),
    ("an empty file", |world| fs::write(world.live("ca.crt"), "").unwrap(), "holds no certificate"),
];

fn dated(world: &World, start: &str, end: &str) {
    let extensions = "subjectAltName=DNS:broker";
    world.show(&world.servers.issue("dated", &super::pki::Spec { extensions, start, end, ..Default::default() }));
}

fn halve(world: &World, name: &str) {
    let text = fs::read_to_string(world.live(name)).unwrap();
    fs::write(world.live(name), &text.as_bytes()[..text.len() / 2]).unwrap();
}

#[tokio::test]
async fn what_can_not_be_used_is_told_and_what_was_there_stays() {
    let world = World::new();
    let good = world.callers.caller("good", URI);
    let supervisor = Supervisor::new();
    let server = world.followed(&supervisor);
    let before = server.certificate();
    for (refused, (what, put, words)) in BAD.iter().enumerate() {
        put(&world);
        let is_told = || server.certificate().refused.is_some_and(|error| error.problem.contains(words));
        until(&world, &server, &good, what, is_told).await;
        assert_eq!(server.certificate().period, before.period, "{what}");
        assert_eq!(world.told("tls_files_refused{listener=\"mesh\"}"), Some(1.0));
        let count = world.counted("tls_reloads_total{listener=\"mesh\",outcome=\"refused\"}");
        assert_eq!(count, Some(refused + 1), "{what}");
        let said = &world.readiness.reports()[0].1;
        assert!(
            world.readiness.is_ready() && said.contains("the files were refused") && said.contains(words),
            "{said}"
        );

        world.show(&world.shown);
        world.trust(&[&world.callers]);
        until(&world, &server, &good, "recovery", || server.certificate().refused.is_none()).await;
        assert_eq!(world.told("tls_files_refused{listener=\"mesh\"}"), Some(0.0));
    }
}

/// Two evidences: of a caller whose authority goes, and of one whose authority stays.
async fn two(world: &World, server: &Server, one: &Identity, other: &Identity) -> [Arc<dyn Evidence>; 2] {
    let shaken = [world.shake(server, one).await.unwrap(), world.shake(server, other).await.unwrap()];
    shaken.map(|proven| proven.evidence)
}

#[tokio::test]
async fn an_authority_that_goes_takes_its_open_connections_along() {
    let world = World::new();
    let next = world.pki.root("next");
    let (old, new) = (world.callers.caller("old", URI), next.caller("new", URI));
    world.trust(&[&world.callers, &next]);
    let supervisor = Supervisor::new();
    let server = world.followed(&supervisor);
    let mut moved = world.revisions.subscribe();
    let [of_old, of_new] = two(&world, &server, &old, &new).await;
    assert!(of_old.holds(world.now()) && of_new.holds(world.now()));

    world.trust(&[&next]);
    timeout(PATIENCE, moved.changed()).await.unwrap().unwrap();
    assert!(!of_old.holds(world.now()) && of_new.holds(world.now()));
    assert!(world.shake(&server, &old).await.is_err());
    assert!(world.shake(&server, &new).await.is_ok());

    // It is judged by what is trusted now: an authority that comes back brings them back.
    world.trust(&[&next, &world.callers]);
    timeout(PATIENCE, moved.changed()).await.unwrap().unwrap();
    assert!(of_old.holds(world.now()) && of_new.holds(world.now()));
}

#[tokio::test]
async fn a_certificate_revoked_while_its_connection_is_open_counts_no_more() {
    let world = World::new();
    let (one, other) = (world.callers.caller("one", URI), world.callers.caller("other", URI));
    fs::write(world.live("crl.pem"), world.callers.revocations()).unwrap();
    let supervisor = Supervisor::new();
    let server = world.followed(&supervisor);
    let mut moved = world.revisions.subscribe();
    let [of_one, of_other] = two(&world, &server, &one, &other).await;
    world.callers.revoke(&one.certificate);
    fs::write(world.live("crl.pem"), world.callers.revocations()).unwrap();
    timeout(PATIENCE, moved.changed()).await.unwrap().unwrap();
    assert!(!of_one.holds(world.now()) && of_other.holds(world.now()));
    assert!(world.shake(&server, &one).await.is_err());
    assert!(world.shake(&server, &other).await.is_ok());
}

/// The broker's own certificate is nobody's reason to look again.
#[tokio::test]
async fn a_new_certificate_of_the_broker_moves_nothing_else() {
    let world = World::new();
    let good = world.callers.caller("good", URI);
    let supervisor = Supervisor::new();
    let server = world.followed(&supervisor);
    let moved = world.revisions.subscribe();
    let evidence = world.shake(&server, &good).await.unwrap().evidence;
    let accepted = || world.told("tls_reloads_total{listener=\"mesh\",outcome=\"accepted\"}");
    world.show(&world.servers.server("second"));
    until(&world, &server, &good, "a new certificate", || accepted() == Some(1.0)).await;
    assert!(!moved.has_changed().unwrap() && evidence.holds(world.now()));
}
