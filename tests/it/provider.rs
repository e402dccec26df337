//! Providers against the answers of their vendors' documentation, of recordings, and of nobody's good will, over real
//! sockets.
//!
//! A case is a directory `tests/fixtures/providers/<kind>/<case>/`. The kind is a preset, or an API that is described
//! in the case (`kind = "http"`), or `hostile`: a generic OAuth 2.0 client whose upstream means no good.
//!
//! * `case.toml`: what would stand in a configuration. `[upstream]` is the table of the upstream without its name, with
//!   `{server}` for the address of the server that answers; `[workspace]` that of the Workspace without its name, its
//!   upstream and its credential; `[credential]` the secrets themselves, which the test puts into files. A secret
//!   `generated:rsa` or `generated:p256` is a key that is made for the run. `exchanges` says how often the credential
//!   is exchanged, by one provider: once, if nothing is said.
//! * What came, for each request: `head.json` (status and headers) and `body` (absent: empty); or `raw`, all bytes of
//!   the answer as they are on the wire. Instead of a large `body` or `raw` there is `body.made.json`: an array of
//!   texts, of `{"repeat": …, "times": …}` and of `{"header": …, "jwt": …}` (a JWT without signature).
//! * `sent.http`: the request that is expected; `provider/sent.rs` says what is written down of it.
//! * `expected.json`: what the broker makes of it, `provider/case.rs` says in which words; an array where there is more
//!   than one exchange.
//!
//! Where a case takes more than one request, the files are numbered from 1: `sent-1.http`, `head-1.json`, `body-1`, …
//! A `case.toml` or `sent.http` that a case lacks is that of its kind, one level up.
//!
//! For every case, neither what is logged at TRACE nor what the outcome shows of itself may hold a secret of the
//! credential, a text of the answers or what was made of them. `UPDATE_FIXTURES=1` writes down what is sent and made of
//! the answers instead of comparing it: for a person to read before it is committed.
//!
//! Beside the cases: `broken` (servers that stall or never end), `steps` and `hostile` (recipes made for the test).

mod broken;
mod case;
mod coverage;
mod hostile;
mod keys;
mod loading;
mod observed;
mod recipes;
mod replay;
mod script;
mod sent;
mod server;
mod serving;
mod steps;
