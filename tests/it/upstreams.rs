//! The kinds of upstreams against the simulators of the sandbox: a configuration as a person writes it, its flows over
//! real sockets, and what callers get of it.
//!
//! The clock stands still until a test moves it, for the broker and for the upstream alike, so that a renewal that is
//! due in a year is a matter of milliseconds and no test waits.

mod emnify;
mod oauth2;
mod odd;
mod sensos;
mod stand;
mod wyvern;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::Value;
use stand::{Broker, Upstream};
use token_broker::engine::Served;
use token_broker::error::{Error, Reason};

/// The claims of a token.
fn claims(served: &Served) -> Value {
    let token = served.token.value.expose();
    let payload = token.split('.').nth(1).expect("it is no JWT");
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}

fn reason(answer: &Result<Served, Error>) -> Option<Reason> {
    answer.as_ref().err().map(|error| error.reason)
}
