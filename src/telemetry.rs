//! What operators see of the process: log lines and metrics.
//!
//! Promises: no secret gets in, since secret types have no text; libraries never log below INFO, where they would quote
//! headers and bodies; the number of time series is bounded. Must not know what is measured: modules bring their own
//! handles.

pub mod logs;
pub mod metrics;
pub mod request;
pub mod rpc;
