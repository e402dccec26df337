//! Small sources on either side of each rule.

/// File, text, and a part of the one offence that it must give.
pub(super) const REFUSED: &[(&str, &str, &str)] = &[
    // Walls.
    ("broker.rs", "use tonic::Status;", "names tonic"),
    ("broker.rs", "use ::tonic::Status;", "names tonic"),
    ("broker.rs", "fn f() -> ::tonic::Status {}", "names tonic"),
    ("listener.rs", "use {http::Uri, tonic::Code};", "names tonic"),
    ("listener/tls.rs", "use tonic::Status;", "names tonic"),
    ("app.rs", "type H = tonic_health::pb::X;", "names tonic_health"),
    ("token.rs", "#[derive(prost::Message)] struct T;", "names prost"),
    ("cli.rs", "use prost_types::Duration as D;", "names prost_types"),
    ("provider/exchange/write.rs", "use reqwest::Client;", "names reqwest"),
    ("engine.rs", "use sqlx::Row;", "names sqlx"),
    // Secrets.
    ("grpc/status.rs", "fn f(t: &T) { t.expose(); }", "exposes a secret"),
    ("provider.rs", "fn f() { t.map(T::expose); }", "exposes a secret"),
    ("cli.rs", "use secrecy::ExposeSecret;", "exposes a secret"),
    ("cli.rs", "fn f() { s.expose_secret(); }", "exposes a secret"),
    // Purity.
    ("token.rs", "async fn f() {}", "says `async`"),
    ("engine/plan/backoff.rs", "fn f() { x.await }", "says `await`"),
    ("policy.rs", "use crate::clock::Clock;", "only Now"),
    ("lifetime.rs", "use crate::clock::{Clock, Now};", "only Now"),
    ("lifetime.rs", "use crate::clock;", "only Now"),
    // Layers.
    ("token.rs", "use crate::engine::Engine;", "imports engine::Engine"),
    ("engine/plan.rs", "use super::entry::Entry;", "imports engine::entry::Entry"),
    ("engine/plan.rs", "use crate::{token::T, engine::E};", "imports engine::E"),
    ("engine/plan/backoff.rs", "use super::super::Entry;", "imports engine::Entry"),
    ("http.rs", "fn f() { crate::broker::get() }", "imports broker::get"),
    ("listener.rs", "use crate::app::{self as whole};", "imports app::self"),
    ("grpc.rs", "pub use crate::{app::*};", "imports app::*"),
    ("app.rs", "use super::cli;", "imports cli"),
    // Siblings.
    ("grpc/broker.rs", "use crate::envoy::sds;", "envoy and grpc"),
    ("envoy.rs", "use crate::grpc::convert;", "envoy and grpc"),
    // Tasks.
    ("app.rs", "fn f() { tokio::spawn(g()); }", "starts a task"),
    ("app.rs", "use tokio::task; fn f() { task::spawn(g()); }", "starts a task"),
    ("app.rs", "use tokio::{net, task::{self, spawn}};", "starts a task"),
    ("app.rs", "fn f() { std::thread::spawn(g); }", "starts a task"),
    // Files and names.
    ("engine/mod.rs", "", "mod.rs"),
    ("http/util.rs", "", "named util"),
    ("http/helpers/url.rs", "", "named helpers"),
    ("http.rs", "mod types { }", "named types"),
    ("surprise.rs", "", "not in LAYERS"),
    ("surprise/deep.rs", "", "not in LAYERS"),
    // What looks like test code, a comment or a literal and is not.
    ("app.rs", "#[cfg(test)] fn t() {} fn f() { tokio::spawn(g()); }", "starts a task"),
    ("app.rs", "#[cfg(test)] use a::{b, c}; use tokio::spawn;", "starts a task"),
    ("app.rs", "#[cfg(not(test))] fn f() { tokio::spawn(g()); }", "starts a task"),
    ("app.rs", r#"const A: &str = "//"; use tokio::spawn;"#, "starts a task"),
    ("app.rs", r#"const A: &str = "\"//\\"; use tokio::spawn;"#, "starts a task"),
    ("app.rs", r##"const A: &[u8] = br#""/*"#; use tokio::spawn;"##, "starts a task"),
    ("app.rs", r#"const A: char = '"'; use tokio::spawn;"#, "starts a task"),
    ("app.rs", r"const A: char = '\''; fn f<'a>() {} use tokio::spawn;", "starts a task"),
    ("app.rs", "/* a /* b */ c */ use tokio::spawn;", "starts a task"),
];

/// File and text that give no offence.
pub(super) const ALLOWED: &[(&str, &str)] = &[
    ("engine/queue.rs", "pub(super) struct Queue; pub(in crate::engine) fn f() {}"),
    ("grpc/status.rs", "use tonic::Status; use crate::broker::Broker;"),
    ("client.rs", "use tonic::transport::Channel;"),
    ("broker.rs", "fn f() { a.tonics(); isotonic::b(); crate::grpc::tonic(); }"),
    ("http/head.rs", "fn f(r: reqwest::Response) {}"),
    ("provider/exchange/write.rs", "fn f(s: &S) { s.expose(); } use crate::http::Client;"),
    ("config/secret_source.rs", "fn f(s: &S) { s.expose(); }"),
    ("cli.rs", "fn expose(x: X) { let expose = x; }"),
    ("token.rs", "use crate::clock::Now; use crate::secret::AccessToken;"),
    ("engine.rs", "async fn f() { g().await } use crate::clock::Clock;"),
    ("engine/plan.rs", "use self::backoff; use super::schedule; use crate::clock::{Now};"),
    ("supervisor.rs", "fn f() { tokio::spawn(g()); }"),
    ("app.rs", "use crate::{broker, grpc::serve, envoy};"),
    ("app.rs", "fn f() { supervisor.spawn(g()); set.spawn(h()); }"),
    ("main.rs", "fn main() { token_broker::cli::run() }"),
    ("lib.rs", "pub mod app; pub mod clock;"),
    ("app.rs", "// tokio::spawn(tonic)\n/// reqwest::Client\nconst A: &str = \"tokio::spawn\";"),
    ("app.rs", "/* tokio::spawn() */ const A: &str = r#\"a \" tokio::spawn()\"#;"),
    ("app.rs", "#[cfg(test)]\nmod tests { fn f() { tokio::spawn(tonic::f()); } }"),
    ("app.rs", "#[cfg(test)] #[allow(x)] use tonic::{Status, Code}; fn f() {}"),
];
