//! What many tokens at once cost.

use super::signer::Signer;
use super::stand::{Server, Stand, claims, with};
use futures_util::future::join_all;
use serde_json::json;
use token_broker::bearer::Refusal;

/// Each names another key, so each could be a good one that is new.
#[tokio::test]
async fn a_thousand_unknown_keys_are_one_look() {
    let server = Server::start().await;
    let known = Signer::p256("known");
    let stand = Stand::with(&server, &[&known]).await;
    let stranger = Signer::p256("stranger");
    let tokens: Vec<_> =
        (0..1_000).map(|n| stranger.signed(&json!({ "alg": "ES256", "kid": format!("k{n}") }), &claims())).collect();
    let answers = join_all(tokens.iter().map(|token| stand.ask(token))).await;
    assert!(answers.iter().all(Result::is_err));
    assert_eq!(server.script.count(), 2, "at the start, and once for all of them");
    let told = answers.iter().filter(|answer| matches!(answer, Err(Refusal::Invalid(_)))).count();
    assert!((1..=256).contains(&told), "those who waited were told, the others are to come again: {told}");
    assert_eq!(stand.issuers.remembered(), 0);
    assert!(stand.ask(&known.token(&claims())).await.is_ok());
}

#[tokio::test]
async fn a_token_is_verified_once() {
    let server = Server::start().await;
    let signer = Signer::p256("k");
    let stand = Stand::with(&server, &[&signer]).await;
    let token = signer.token(&claims());
    for _ in 0..100 {
        assert_eq!(stand.caller(&token).await, Ok("jwt:idp:svc-1".to_owned()));
    }
    assert!(stand.metric("bearer_tokens_total{outcome=\"verified\"} 1"));
    assert!(stand.metric("bearer_tokens_total{outcome=\"remembered\"} 99"));
}

#[tokio::test]
async fn many_good_tokens_at_once_are_all_taken() {
    let server = Server::start().await;
    let signer = Signer::p256("k");
    let stand = Stand::with(&server, &[&signer]).await;
    let tokens: Vec<_> = (0..500).map(|n| signer.token(&with(&json!({ "sub": format!("svc-{n}") })))).collect();
    let answers = join_all(tokens.iter().map(|token| stand.caller(token))).await;
    for (n, answer) in answers.into_iter().enumerate() {
        assert_eq!(answer, Ok(format!("jwt:idp:svc-{n}")));
    }
    assert_eq!(stand.issuers.remembered(), 500);
}
