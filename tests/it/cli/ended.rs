//! Streams of a real process that are open while what their callers are judged by changes, in files or with time: they
//! end, and those of others go on.

use super::doors::{Doors, GRANTS, URI, get, key_set, now, replace, watch};
use super::{PATIENCE, WORKSPACE};
use crate::bearer::signer::Signer;
use crate::holds::{Form, report};
use crate::tls::pki::Identity;
use serde_json::json;
use std::time::Duration;
use token_broker::grpc::pb::WatchTokensResponse;
use token_broker::grpc::pb::watch_tokens_response::State;
use tokio::time::{Instant, timeout};
use tonic::{Code, Streaming};
use tonic_types::StatusExt as _;

/// What is asked: a second after it was noticed, and it is looked for twice a second (keys: once).
const LIMIT: Duration = Duration::from_secs(2);
/// What outlives somebody else's end goes on for this long at least.
const A_WHILE: Duration = Duration::from_millis(300);

/// What is told next: that there is a token, or why there is none, or how the stream ended.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    Token,
    Withdrawn(String),
    Ended(Code, String),
}

async fn next(stream: &mut Streaming<WatchTokensResponse>) -> Told {
    match timeout(PATIENCE, stream.message()).await.expect("nothing came") {
        Ok(message) => match message.expect("it ended without a status").state.unwrap() {
            State::Token(_) => Told::Token,
            State::Withdrawn(withdrawn) => Told::Withdrawn(withdrawn.reason),
        },
        Err(status) => {
            let reason = status.get_details_error_info().map(|info| info.reason).unwrap_or_default();
            Told::Ended(status.code(), reason)
        }
    }
}

fn unauthenticated() -> Told {
    Told::Ended(Code::Unauthenticated, "CALLER_UNAUTHENTICATED".to_owned())
}

/// Up to the first token.
async fn with_token(mut stream: Streaming<WatchTokensResponse>) -> Streaming<WatchTokensResponse> {
    loop {
        match next(&mut stream).await {
            Told::Token => return stream,
            Told::Withdrawn(reason) => assert_eq!(reason, "TOKEN_PENDING"),
            ended @ Told::Ended(..) => panic!("{ended:?}"),
        }
    }
}

impl Doors {
    async fn watched_by(&self, identity: &Identity) -> Streaming<WatchTokensResponse> {
        with_token(watch(self.mesh_channel(identity).await, &[]).await.unwrap()).await
    }

    async fn watched_with(&self, bearer: &str) -> Streaming<WatchTokensResponse> {
        let shown = format!("Bearer {bearer}");
        with_token(watch(self.tokens_channel().await, &[("authorization", &shown)]).await.unwrap()).await
    }

    fn put(&self, name: &str, text: &str) -> Instant {
        replace(&self.files.0.path().join(name), text);
        Instant::now()
    }
}

/// This is told next, in time.
async fn is_told(what: &str, since: Instant, stream: &mut Streaming<WatchTokensResponse>, expected: Told) {
    assert_eq!(next(stream).await, expected, "{what}");
    let took = since.elapsed();
    report("an open stream", format!("{what}: told after {took:?}, the look at the files included"));
    Form::of_process().check_time(what, took, LIMIT);
}

async fn goes_on(stream: &mut Streaming<WatchTokensResponse>) {
    let message = timeout(A_WHILE, stream.message()).await;
    assert!(message.is_err(), "{message:?}");
}

#[tokio::test]
async fn an_authority_that_goes_ends_the_streams_of_its_callers() {
    let doors = Doors::new().await;
    let mut stream = doors.watched_by(&doors.good()).await;
    let mut other = doors.watched_by(&doors.next.caller("other", URI)).await;
    let since = doors.put("ca.crt", &doors.next.pem());
    is_told("the authority goes", since, &mut stream, unauthenticated()).await;
    goes_on(&mut other).await;
}

#[tokio::test]
async fn a_certificate_that_is_revoked_ends_the_streams_of_its_caller() {
    let doors = Doors::new().await;
    let (revoked, good) = (doors.good(), doors.callers.caller("other", URI));
    let channel = doors.mesh_channel(&revoked).await;
    let mut stream = with_token(watch(channel.clone(), &[]).await.unwrap()).await;
    let mut other = doors.watched_by(&good).await;
    doors.callers.revoke(&revoked.certificate);
    let since = doors.put("crl.pem", &(doors.callers.revocations() + &doors.next.revocations()));
    is_told("the certificate is revoked", since, &mut stream, unauthenticated()).await;
    let refused = get(channel, WORKSPACE, &[]).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated, "a call on the connection that stands: {refused:?}");
    goes_on(&mut other).await;
}

#[tokio::test]
async fn a_key_that_goes_ends_the_streams_that_it_verified() {
    let doors = Doors::new().await;
    let second = Signer::p256("second");
    doors.put("keys.json", &key_set(&[&doors.issuer, &second]));
    let token = second.token(&super::doors::claims(&json!({ "sub": "svc-2" })));
    let mut stream = doors.watched_with(&doors.bearer(&json!({}))).await;
    let mut other = until_known(&doors, &token).await;
    let since = doors.put("keys.json", &key_set(&[&second]));
    is_told("the key goes", since, &mut stream, unauthenticated()).await;
    goes_on(&mut other).await;
}

/// The new key is found with the next look.
async fn until_known(doors: &Doors, token: &str) -> Streaming<WatchTokensResponse> {
    let shown = format!("Bearer {token}");
    let known = async {
        loop {
            if let Ok(stream) = watch(doors.tokens_channel().await, &[("authorization", &shown)]).await {
                return stream;
            }
        }
    };
    with_token(timeout(PATIENCE, known).await.expect("the key is never found")).await
}

#[tokio::test]
async fn a_grant_that_goes_withdraws_the_token_and_one_that_comes_back_gives_it_again() {
    let doors = Doors::new().await;
    let mut stream = doors.watched_by(&doors.good()).await;
    let mut other = doors.watched_with(&doors.bearer(&json!({}))).await;
    doors.grant(&GRANTS.replace("payments/sa/*", "payments/sa/another"));
    let forbidden = Told::Withdrawn("CALLER_FORBIDDEN".to_owned());
    is_told("the grant goes", Instant::now(), &mut stream, forbidden).await;
    goes_on(&mut other).await;
    doors.grant(GRANTS);
    is_told("the grant comes back", Instant::now(), &mut stream, Told::Token).await;
}

/// How long what ends soon may be used: a busy machine has to open a stream within it.
const SHORT: Duration = Duration::from_secs(6);

#[tokio::test]
async fn the_end_of_a_certificate_is_the_end_of_its_streams() {
    let doors = Doors::new().await;
    let mut other = doors.watched_by(&doors.good()).await;
    let (begun, short) = (Instant::now(), doors.short_lived(&doors.callers, SHORT).await);
    let mut stream = doors.watched_by(&short).await;
    assert_eq!(next(&mut stream).await, unauthenticated());
    report(
        "an open stream",
        format!("the certificate of {SHORT:?} ends: told {:?} after it was made", begun.elapsed()),
    );
    // It is made for whole seconds, the one that has begun included.
    assert!(begun.elapsed() + Duration::from_secs(2) >= SHORT, "before its time");
    goes_on(&mut other).await;
}

#[tokio::test]
async fn the_end_of_a_bearer_is_the_end_of_its_streams() {
    let doors = Doors::new().await;
    let mut other = doors.watched_with(&doors.bearer(&json!({ "sub": "svc-2" }))).await;
    let begun = Instant::now();
    let mut stream = doors.watched_with(&doors.bearer(&json!({ "exp": now() + SHORT.as_secs() }))).await;
    assert_eq!(next(&mut stream).await, unauthenticated());
    report("an open stream", format!("the bearer of {SHORT:?} ends: told {:?} after it was made", begun.elapsed()));
    assert!(begun.elapsed() + Duration::from_secs(2) >= SHORT, "before its time");
    goes_on(&mut other).await;
}
