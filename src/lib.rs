//! token-broker holds the long-lived secrets of third-party APIs in one place, exchanges them for short-lived tokens,
//! keeps one current token per Workspace, renews it before it expires and hands it out over gRPC.
//!
//! The modules, in reading order. Arrows point down only (a test keeps it so):
//!
//! * **pure** (no I/O, no `.await`, time is an argument): [`token`], [`lifetime`], [`jwt`], [`identity`], [`policy`],
//!   [`error`], `engine::plan`, `engine::upstream`
//! * **driven**: [`engine`] (the cache and its tasks), [`provider`] (what speaks to one kind of upstream), [`http`]
//!   (the one upstream HTTP client), [`config`], [`secret`], [`clock`], [`supervisor`], [`readiness`], [`telemetry`]
//! * **edges**: [`broker`] (authorise, then get: the one way to a token), [`grpc`], [`admin`] (probe HTTP),
//!   [`listener`] (the accept loop), [`sandbox`] (simulated upstreams)
//! * [`app`] wires them, [`cli`] is what a person types.

pub mod clock;
pub mod error;
pub mod identity;
pub mod lifetime;
pub mod policy;
pub mod provider;
#[cfg(feature = "sandbox")]
pub mod sandbox;
pub mod secret;
pub mod token;
