//! What `GetToken` answers.

use super::fake::{EXTRA, TAKES, VALUE};
use super::{App, HOUR, WORKSPACE, asking, with_validity};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest as _, Sha256};
use std::time::{Duration, SystemTime};
use token_broker::grpc::pb::{Header, TokenSource};

fn time(timestamp: Option<prost_types::Timestamp>) -> SystemTime {
    timestamp.unwrap().try_into().unwrap()
}

fn span(duration: Option<prost_types::Duration>) -> Duration {
    duration.unwrap().try_into().unwrap()
}

#[tokio::test(start_paused = true)]
async fn every_field_is_as_the_schema_says() {
    let app = App::new().await;
    app.provider.answers(Ok(HOUR));
    let asked_at = app.clock.now().wall;
    let answer = app.get(asking(WORKSPACE)).await.unwrap();
    assert_eq!(answer.source(), TokenSource::Exchanged);
    assert_eq!(span(answer.valid_for) + TAKES, HOUR);

    let token = answer.token.unwrap();
    assert_eq!(token.workspace, WORKSPACE);
    assert_eq!(token.value, format!("{VALUE}1"));
    assert_eq!((token.token_type.as_str(), token.header_name.as_str()), ("Bearer", "authorization"));
    assert_eq!(token.extra_headers, [Header { name: "x-second-key".to_owned(), value: EXTRA.to_owned() }]);
    assert_eq!(
        token.attributes.into_iter().collect::<Vec<_>>(),
        [("instance_url".to_owned(), "https://one.example".to_owned())]
    );
    assert_eq!(time(token.issued_at), asked_at, "from before the request was sent");
    let expires_at = time(token.expires_at);
    assert_eq!(expires_at, asked_at + HOUR);
    let refresh_after = time(token.refresh_after);
    assert!(refresh_after > asked_at && refresh_after < expires_at);
    let micros = asked_at.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_micros();
    assert_eq!(u128::from(token.generation), micros);
    let digest = Sha256::digest(format!("tb-fp-v1{VALUE}1"));
    assert_eq!(token.fingerprint, URL_SAFE_NO_PAD.encode(&digest[..16]));
}

#[tokio::test(start_paused = true)]
async fn the_second_call_is_served_from_memory() {
    let app = App::new().await;
    app.provider.answers(Ok(HOUR));
    let first = app.get(asking(WORKSPACE)).await.unwrap();
    tokio::time::advance(Duration::from_secs(60)).await;
    let second = app.get(with_validity(60, 0)).await.unwrap();
    assert_eq!(second.source(), TokenSource::Cache);
    assert_eq!(span(second.valid_for) + TAKES + Duration::from_secs(60), HOUR);
    assert_eq!(first.token, second.token);
    assert_eq!(app.provider.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn by_refresh_after_there_is_a_newer_token() {
    let app = App::new().await;
    app.provider.answers(Ok(HOUR));
    let first = app.get(asking(WORKSPACE)).await.unwrap().token.unwrap();
    let wait = time(first.refresh_after).duration_since(app.clock.now().wall).unwrap();
    tokio::time::sleep(wait).await;
    let second = app.get(asking(WORKSPACE)).await.unwrap();
    assert_eq!(second.source(), TokenSource::Cache);
    let second = second.token.unwrap();
    assert!(second.generation > first.generation);
    assert_ne!(second.fingerprint, first.fingerprint);
    assert!(time(second.expires_at) > time(first.expires_at));
}

#[tokio::test(start_paused = true)]
async fn an_expired_token_is_never_returned() {
    let app = App::new().await;
    app.provider.answers(Ok(HOUR));
    let first = app.get(asking(WORKSPACE)).await.unwrap().token.unwrap();
    app.provider.answers(Err(token_broker::provider::Failure::Unavailable));
    // Renewals fail for its whole life; it is served up to the margin, and not beyond.
    let margin = Duration::from_secs(5);
    let left = time(first.expires_at).duration_since(app.clock.now().wall).unwrap();
    tokio::time::sleep(left.checked_sub(margin + Duration::from_millis(1)).unwrap()).await;
    let last = app.get(asking(WORKSPACE)).await.unwrap();
    assert_eq!(last.token.unwrap().fingerprint, first.fingerprint);
    assert!(span(last.valid_for) > margin);
    tokio::time::sleep(Duration::from_millis(1)).await;
    let status = app.get(asking(WORKSPACE)).await.unwrap_err();
    assert_eq!(super::told(&status), (tonic::Code::Unavailable, "UPSTREAM_UNAVAILABLE".to_owned()));
}
