//! What ends while it is in force. The clock is moved by hand.

use super::pki::{Spec, client};
use super::{PATIENCE, URI, World, until};
use std::fs;
use token_broker::clock::Clock;
use token_broker::supervisor::Supervisor;
use tokio::time::timeout;

const DAY_MS: i64 = 86_400_000;

/// The clock begins on 2027-01-15; until the end of these days.
const ON_THE_20TH: &str = "20270120000000Z";
const ON_THE_25TH: &str = "20270125000000Z";

fn broker(end: &str) -> Spec<'_> {
    Spec { extensions: "subjectAltName=DNS:broker", end, ..Spec::default() }
}

#[tokio::test]
async fn unready_when_the_certificate_has_ended_and_ready_with_the_next() {
    let world = World::at(Clock::simulated());
    world.show(&world.servers.issue("short", &broker(ON_THE_20TH)));
    let supervisor = Supervisor::new();
    let server = world.followed(&supervisor);
    let line = "certificate_expiry_timestamp_seconds{listener=\"mesh\",certificate=\"server\"}";
    assert_eq!(world.told(line), Some(1_800_403_200.0));
    assert_eq!(world.told("certificate_expiry_timestamp_seconds{listener=\"mesh\",certificate=\"crl\"}"), None);
    let said = || world.readiness.reports()[0].1.clone();
    assert!(world.readiness.is_ready() && said().starts_with("server certificate ends in 4 days"), "{}", said());

    let mut ready = world.readiness.subscribe();
    world.clock.step_wall_ms(6 * DAY_MS);
    timeout(PATIENCE, ready.wait_for(|ready| !ready)).await.unwrap().unwrap();
    assert!(said().starts_with("server certificate has expired"), "{}", said());

    world.show(&world.servers.issue("next", &broker(ON_THE_25TH)));
    timeout(PATIENCE, ready.wait_for(|ready| *ready)).await.unwrap().unwrap();
    assert!(said().starts_with("server certificate ends in 3 days"), "{}", said());
    drop(server);
}

#[tokio::test]
async fn a_list_that_ends_in_force_lets_nobody_in_until_there_is_another() {
    let world = World::at(Clock::simulated());
    let good = world.callers.caller("good", URI);
    fs::write(world.live("crl.pem"), world.callers.revocations_of("20260101000000Z", ON_THE_20TH)).unwrap();
    let supervisor = Supervisor::new();
    let server = world.followed(&supervisor);
    let evidence = world.shake(&server, &good).await.unwrap().evidence;
    let mut moved = world.revisions.subscribe();
    assert!(evidence.holds(world.now()));

    world.clock.step_wall_ms(6 * DAY_MS);
    timeout(PATIENCE, moved.changed()).await.unwrap().unwrap();
    assert!(!evidence.holds(world.now()));
    assert!(world.shake(&server, &good).await.is_err());
    let refused = server.certificate().refused.unwrap();
    assert_eq!(refused.key, "crl_file");

    fs::write(world.live("crl.pem"), world.callers.revocations_of("20260101000000Z", ON_THE_25TH)).unwrap();
    timeout(PATIENCE, moved.changed()).await.unwrap().unwrap();
    assert!(evidence.holds(world.now()));
    assert!(world.shake(&server, &good).await.is_ok());
}

#[tokio::test]
async fn an_authority_that_ends_in_force_counts_no_more() {
    let world = World::at(Clock::simulated());
    let short = world.pki.root_like("short", &Spec { end: ON_THE_20TH, ..Spec::default() });
    let good = world.callers.caller("good", URI);
    // It says that it lives longer than who signed it.
    let longer = short.issue("longer", &Spec { extensions: &client(URI), ..Spec::default() });
    world.trust(&[&world.callers, &short]);
    let supervisor = Supervisor::new();
    let server = world.followed(&supervisor);
    let of_short = world.shake(&server, &longer).await.unwrap().evidence;
    let of_good = world.shake(&server, &good).await.unwrap().evidence;
    let mut moved = world.revisions.subscribe();
    assert!(of_short.holds(world.now()));

    world.clock.step_wall_ms(6 * DAY_MS);
    timeout(PATIENCE, moved.changed()).await.unwrap().unwrap();
    assert!(!of_short.holds(world.now()) && of_good.holds(world.now()));
    assert!(world.shake(&server, &longer).await.is_err());
    assert!(world.shake(&server, &good).await.is_ok());
}

#[tokio::test]
async fn an_authority_counts_no_more_though_the_files_can_not_be_used_when_it_ends() {
    let world = World::at(Clock::simulated());
    let short = world.pki.root_like("short", &Spec { end: ON_THE_20TH, ..Spec::default() });
    let good = world.callers.caller("good", URI);
    let longer = short.issue("longer", &Spec { extensions: &client(URI), ..Spec::default() });
    world.trust(&[&world.callers, &short]);
    let supervisor = Supervisor::new();
    let server = world.followed(&supervisor);
    let of_short = world.shake(&server, &longer).await.unwrap().evidence;
    let of_good = world.shake(&server, &good).await.unwrap().evidence;
    let mut moved = world.revisions.subscribe();
    fs::write(world.live("tls.key"), "none").unwrap();
    until(&world, &server, &good, "the refusal", || server.certificate().refused.is_some()).await;

    world.clock.step_wall_ms(6 * DAY_MS);
    timeout(PATIENCE, moved.changed()).await.unwrap().unwrap();
    assert!(!of_short.holds(world.now()) && of_good.holds(world.now()));
    assert!(world.shake(&server, &longer).await.is_err());
    assert!(world.shake(&server, &good).await.is_ok());
    assert_eq!(server.certificate().refused.unwrap().key, "key_file");
}

#[tokio::test]
async fn where_the_only_authority_ends_nobody_is_let_in() {
    let world = World::at(Clock::simulated());
    let short = world.pki.root_like("short", &Spec { end: ON_THE_20TH, ..Spec::default() });
    let longer = short.issue("longer", &Spec { extensions: &client(URI), ..Spec::default() });
    world.trust(&[&short]);
    let supervisor = Supervisor::new();
    let server = world.followed(&supervisor);
    let evidence = world.shake(&server, &longer).await.unwrap().evidence;
    let mut moved = world.revisions.subscribe();
    world.clock.step_wall_ms(6 * DAY_MS);
    timeout(PATIENCE, moved.changed()).await.unwrap().unwrap();
    assert!(!evidence.holds(world.now()));
    assert!(world.shake(&server, &longer).await.is_err());
    assert_eq!(server.certificate().refused.unwrap().key, "client_ca_file");

    world.trust(&[&world.callers]);
    timeout(PATIENCE, moved.changed()).await.unwrap().unwrap();
    let good = world.callers.caller("good", URI);
    until(&world, &server, &good, "the next authority", || server.certificate().refused.is_none()).await;
}
