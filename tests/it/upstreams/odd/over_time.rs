//! Shapes whose oddness shows in the course of time.

use super::{SECONDS, Shape};
use crate::upstreams::{Broker, Upstream};
use std::time::Duration;
use token_broker::sandbox::{Route, Settings};

const DAY: Duration = Duration::from_secs(86_400);
/// More logins than any test here takes.
const MANY: u64 = 100;

/// Renews until so much time is over. Says how many tokens there were; none was missing in between.
async fn lived(broker: &Broker, upstream: &Upstream, time: Duration) -> usize {
    let end = upstream.clock.now().mono + time;
    let mut seen = vec![broker.get("one").await.unwrap().token.fingerprint];
    while upstream.clock.now().mono < end {
        assert!(logins(upstream) < MANY, "it is a loop");
        assert_eq!(broker.renewed("one").await.outcome, "token");
        let fingerprint = broker.get("one").await.unwrap().token.fingerprint;
        if seen.last() != Some(&fingerprint) {
            seen.push(fingerprint);
        }
    }
    seen.len()
}

fn logins(upstream: &Upstream) -> u64 {
    upstream.control.counters().of(Route::OddToken).total
}

/// Only in the last 20 minutes of its two hours there is another: renewals move there instead of asking on and on.
#[tokio::test(start_paused = true)]
async fn the_same_token_until_late_is_no_loop() {
    let upstream = Upstream::start(Settings::default()).await;
    let broker = Shape::new("same-until-late", SECONDS).start(&upstream);
    let tokens = lived(&broker, &upstream, DAY).await;
    // At least one per life, and each at most 20 minutes before the end of the last.
    assert!((12..=15).contains(&tokens), "{tokens} tokens");
    // Now and then one comes too early, and the next is planned later.
    let logins = usize::try_from(logins(&upstream)).unwrap();
    assert!((tokens..=2 * tokens).contains(&logins), "{logins} logins for {tokens} tokens");
}

#[tokio::test(start_paused = true)]
async fn three_minutes_are_renewed_in_time_and_not_more_often() {
    let upstream = Upstream::start(Settings::default()).await;
    let broker = Shape::new("three-minutes", SECONDS).start(&upstream);
    let tokens = lived(&broker, &upstream, Duration::from_secs(3_600)).await;
    // Half of the life, and a tenth of that to either side.
    assert!((37..=46).contains(&tokens), "{tokens} tokens");
    assert_eq!(logins(&upstream), u64::try_from(tokens).unwrap());
}

#[tokio::test(start_paused = true)]
async fn two_years_are_renewed_after_one() {
    let upstream = Upstream::start(Settings::default()).await;
    let broker = Shape::new("two-years", SECONDS).start(&upstream);
    let begun = upstream.clock.now().mono;
    assert_eq!(lived(&broker, &upstream, DAY).await, 2);
    let days = (upstream.clock.now().mono - begun).as_secs() / 86_400;
    assert!((328..=402).contains(&days), "after {days} days");
    assert_eq!(logins(&upstream), 2);
}

/// Refreshing ends the old access token, and an old refresh token ends them all.
#[tokio::test(start_paused = true)]
async fn refresh_tokens_that_rotate_are_each_used_once() {
    let answer = "token = \"access_token\"\nrefresh_token = \"refresh_token\"\n\
                  expiry = [{ relative = \"expires_in\", unit = \"s\" }]\n\
                  [upstreams.flows.login.refresh]\npath = \"/refresh\"\nsingle_use = true\n\
                  json = { refresh_token = \"{refresh_token}\" }\n\
                  answer = { token = \"access_token\", refresh_token = \"refresh_token\", \
                  expiry = [{ relative = \"expires_in\", unit = \"s\" }] }";
    let shape = Shape::new("rotating", answer);
    let upstream = Upstream::start(Settings::default()).await;
    let broker = shape.start(&upstream);
    broker.get("one").await.unwrap();
    for _ in 0..6 {
        assert_eq!(broker.renewed("one").await.outcome, "token");
        assert!(super::opens(&upstream, &shape, &broker.get("one").await.unwrap()).await);
    }
    assert_eq!(upstream.control.counters().of(Route::OddRefresh).with_status(200), 6);
    assert_eq!(logins(&upstream), 1);
}

/// `null` where a refresh token could be is none.
#[tokio::test(start_paused = true)]
async fn a_refresh_token_that_is_null_is_none() {
    let answer = "token = \"access_token\"\nrefresh_token = \"refresh_token\"\n\
                  expiry = [{ relative = \"expires_in\", unit = \"s\" }]\n\
                  [upstreams.flows.login.refresh]\npath = \"/refresh\"\n\
                  json = { refresh_token = \"{refresh_token}\" }\n\
                  answer = { token = \"access_token\", expiry = [{ relative = \"expires_in\", unit = \"s\" }] }";
    let upstream = Upstream::start(Settings::default()).await;
    let broker = Shape::new("nulls", answer).start(&upstream);
    broker.get("one").await.unwrap();
    assert_eq!(broker.renewed("one").await.outcome, "token");
    assert_eq!(broker.steps(), ["login", "login"]);
}
