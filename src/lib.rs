//! token-broker holds the long-lived secrets of third-party APIs in one place, exchanges them for short-lived tokens,
//! keeps one current token per Workspace, renews it before it expires and hands it out over gRPC.
//!
//! The modules, in reading order. Arrows point down only (a test keeps it so):
//!
//! * **pure** (no I/O, no `.await`, time is an argument): [`token`], [`lifetime`], [`upstream`], [`address`], [`jwt`],
//!   [`identity`], [`policy`], [`error`], [`failure`], [`health`], `engine::plan` and its neighbours
//! * **driven**: [`engine`] (the cache and its tasks), [`provider`] (what speaks to one kind of upstream), [`http`]
//!   (the one upstream HTTP client), [`tls`] (what a listener shows and trusts), [`bearer`] (callers by their JWTs),
//!   [`limits`] (what callers may take), [`audit`] (who got which token), [`config`], [`files`], [`secret`], [`clock`],
//!   [`supervisor`], [`readiness`], [`revision`], [`telemetry`]
//! * **edges**: [`broker`] (authorise, then get: the one way to a token), [`grpc`], [`admin`] (probe HTTP),
//!   [`listener`] (the accept loop), [`sandbox`] (simulated upstreams)
//! * [`app`] wires them, [`cli`] is what a person types.

pub mod address;
pub mod admin;
pub mod app;
pub mod audit;
pub mod bearer;
pub mod broker;
pub mod cli;
pub mod client;
pub mod clock;
pub mod config;
pub mod engine;
pub mod error;
pub mod failure;
pub mod files;
pub mod grpc;
pub mod health;
pub mod http;
pub mod identity;
pub mod jwt;
pub mod lifetime;
pub mod limits;
pub mod listener;
pub mod policy;
pub mod provider;
pub mod readiness;
pub mod revision;
#[cfg(feature = "sandbox")]
pub mod sandbox;
pub mod secret;
pub mod supervisor;
pub mod telemetry;
pub mod tls;
pub mod token;
pub mod upstream;
