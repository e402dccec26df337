//! The one HTTP client that speaks to upstreams, and the only user of reqwest.
//!
//! Promises, each a test:
//! * One attempt per call: no redirect is followed, nothing is retried, no proxy but the configured one is used.
//! * https only, unless the host is loopback or listed in `allow_private`; roots are bundled or the configured ones.
//! * It connects only to addresses it has checked itself: what a name resolves to is judged at the moment of
//!   connecting.
//! * Every call ends at its deadline, whatever the upstream sends or withholds; a body above [`MAX_BODY`] is cut off.
//! * A connection serves one exchange and is closed; secret headers are marked sensitive; no referer is sent.
//!
//! It says of a failure what kind it was, in our own words: never a URL, a header or a body. It must not know what the
//! exchanges mean, nor any provider.

mod failure;
mod head;
mod options;
mod resolver;

pub use failure::{Cause, SendError};
pub use head::{Head, LONGEST_RETRY_AFTER};
pub use options::{Error, Options, seal_identity};

use crate::address::Hosts;
use bytes::Bytes;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, redirect, retry};
use resolver::{Lookup, Resolver, SystemLookup};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};
use url::Url;
use zeroize::Zeroizing;

/// The largest body that is read, in bytes.
pub const MAX_BODY: usize = 64 * 1024;

/// How many headers an answer may have over HTTP/1. An API gateway sends about twenty.
const MAX_HEADERS: usize = 96;
/// How large the headers of an answer may be over HTTP/2, in bytes. Over HTTP/1 hyper stops at about 400 KiB.
const MAX_HEADER_LIST: u32 = 16 * 1024;
/// How much an upstream may send over HTTP/2 before it is read, in bytes.
const WINDOW: u32 = 128 * 1024;
const JSON: &str = "application/json";
const USER_AGENT: &str = concat!("token-broker/", env!("CARGO_PKG_VERSION"));

/// Sends requests to one upstream. Holds no connection between calls.
pub struct Client {
    inner: reqwest::Client,
    hosts: Hosts,
    timeout: Duration,
}

/// One request. Its body and its headers are zeroed when they have been dropped.
pub struct Request {
    method: Method,
    url: Url,
    query: Option<String>,
    headers: HeaderMap,
    body: Option<Bytes>,
}

/// A header that can't be sent: its name is none, or its value holds control characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("holds characters that no header can carry")]
pub struct InvalidHeader;

/// A whole answer, of whatever status.
pub struct Response {
    /// Status and headers.
    pub head: Head,
    /// The body, at most [`MAX_BODY`] bytes, not decompressed. Likely holds a secret.
    pub body: Bytes,
}

// === impl Client ===

impl Client {
    /// A client with these limits.
    pub fn new(options: &Options) -> Result<Self, Error> {
        Self::with_lookup(options, Arc::new(SystemLookup))
    }

    fn with_lookup(options: &Options, lookup: Arc<dyn Lookup>) -> Result<Self, Error> {
        let hosts = options.hosts()?;
        let resolver = Resolver::new(hosts.clone().with_proxy(options.proxy.as_ref()), lookup);
        let mut builder = reqwest::Client::builder()
            .no_proxy()
            .redirect(redirect::Policy::none())
            .retry(retry::never())
            .referer(false)
            .user_agent(USER_AGENT)
            .connect_timeout(options.connect_timeout)
            .pool_max_idle_per_host(0)
            .http1_max_headers(MAX_HEADERS)
            .http2_max_header_list_size(MAX_HEADER_LIST)
            .http2_initial_stream_window_size(WINDOW)
            .http2_initial_connection_window_size(WINDOW)
            .tls_certs_only(options.roots()?)
            .dns_resolver(Arc::new(resolver));
        if let Some(identity) = options.identity()? {
            builder = builder.identity(identity);
        }
        if let Some(proxy) = options.proxy()? {
            builder = builder.proxy(proxy);
        }
        Ok(Self { inner: builder.build().map_err(|error| Error::build(&error))?, hosts, timeout: options.timeout })
    }

    /// Whether this client may speak to this URL; see [`Options::check_url`].
    pub fn check_url(&self, url: &Url) -> Result<(), Error> {
        options::check(&self.hosts, url)
    }

    /// When an attempt that begins now is over.
    pub fn deadline(&self) -> Instant {
        Instant::now() + self.timeout
    }

    /// One attempt, over at the deadline at the latest, the body included. Several requests of one attempt share one.
    pub async fn send_by(&self, request: Request, deadline: Instant) -> Result<Response, SendError> {
        if self.check_url(&request.url).is_err() {
            return Err(SendError::NoAnswer(Cause::Refused));
        }
        let sent = self.inner.execute(request.into_inner());
        let answer = match timeout_at(deadline, sent).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Err(SendError::NoAnswer(Cause::of(&error))),
            Err(_elapsed) => return Err(SendError::NoAnswer(Cause::Timeout)),
        };
        let head = Head::new(answer.status().as_u16(), answer.headers());
        let read = timeout_at(deadline, read_body(answer)).await;
        match read.unwrap_or(Err(Cause::Timeout)) {
            Ok(body) => Ok(Response { head, body }),
            Err(cause) => Err(SendError::Body(head, cause)),
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

/// Counts what really comes: a length that was announced may be a lie.
async fn read_body(mut answer: reqwest::Response) -> Result<Bytes, Cause> {
    let announced = answer.content_length().unwrap_or_default();
    if announced > MAX_BODY as u64 {
        return Err(Cause::TooLarge);
    }
    // As large as it may become: one that grew would leave copies of a token behind.
    let mut body = Zeroizing::new(Vec::with_capacity(MAX_BODY));
    while let Some(chunk) = answer.chunk().await.map_err(|error| Cause::of(&error))? {
        if body.len() + chunk.len() > MAX_BODY {
            return Err(Cause::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Bytes::from_owner(body))
}

// === impl Request ===

impl Request {
    /// A `GET`, which has no body. JSON is asked for.
    pub fn get(url: Url) -> Self {
        let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(JSON))]);
        Self { method: Method::GET, url, query: None, headers, body: None }
    }

    /// A `POST` without a body so far. JSON is asked for.
    pub fn post(url: Url) -> Self {
        Self { method: Method::POST, body: Some(Bytes::new()), ..Self::get(url) }
    }

    /// The body, and what it is.
    #[must_use]
    pub fn with_body(mut self, media_type: &'static str, body: Zeroizing<Vec<u8>>) -> Self {
        self.headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
        self.body = Some(Bytes::from_owner(body));
        self
    }

    /// What stands behind the `?`, encoded. Never a secret.
    #[must_use]
    pub fn with_query(mut self, query: String) -> Self {
        self.query = Some(query);
        self
    }

    /// Adds a header, in the place of one of this name.
    pub fn with_header(mut self, name: &str, value: Zeroizing<Vec<u8>>) -> Result<Self, InvalidHeader> {
        let (name, value) = header(name, value)?;
        self.headers.insert(name, value);
        Ok(self)
    }

    /// Adds a header whose value must not be shown or indexed.
    pub fn with_secret_header(mut self, name: &str, value: Zeroizing<Vec<u8>>) -> Result<Self, InvalidHeader> {
        let (name, mut value) = header(name, value)?;
        value.set_sensitive(true);
        self.headers.insert(name, value);
        Ok(self)
    }

    fn into_inner(mut self) -> reqwest::Request {
        self.url.set_query(self.query.as_deref());
        let mut inner = reqwest::Request::new(self.method, self.url);
        *inner.headers_mut() = self.headers;
        *inner.body_mut() = self.body.map(Into::into);
        inner
    }
}

/// The value is not copied, and so zeroed when the header has been dropped.
fn header(name: &str, value: Zeroizing<Vec<u8>>) -> Result<(HeaderName, HeaderValue), InvalidHeader> {
    let name = HeaderName::from_bytes(name.as_bytes()).or(Err(InvalidHeader))?;
    let value = HeaderValue::from_maybe_shared(Bytes::from_owner(value)).or(Err(InvalidHeader))?;
    Ok((name, value))
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("method", &self.method)
            .field("host", &self.url.host_str())
            .finish_non_exhaustive()
    }
}

// === impl Response ===

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response").field("head", &self.head).field("body_bytes", &self.body.len()).finish()
    }
}

#[cfg(test)]
mod tests;
