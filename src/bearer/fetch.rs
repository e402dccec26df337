//! Gets the keys of an issuer: from a URL, by OIDC discovery, from a file.
//!
//! The one HTTP client of the house is used, with all its limits: no redirect, https but for loopback and listed hosts,
//! every address judged when it is connected to, 64 KiB at most. What a discovery document names is judged by the same
//! rules. Each failure is one of a few words; nothing of an answer is in it.

use super::keys::{KeySet, Unusable};
use crate::http::{Cause, Client, Request, SendError};
use crate::jwt;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use serde_json::Value;
use std::fmt;
use std::path::{Path, PathBuf};
use tokio::io::AsyncReadExt as _;
use tokio::time::Instant;
use url::Url;
use zeroize::Zeroizing;

/// The largest file of keys, and the largest token of our own, in bytes.
pub const LARGEST_FILE: usize = 64 * 1024;

/// Where an issuer's keys are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// At this URL.
    Url(Url),
    /// Where the document at this URL says.
    Discovery(Url),
    /// In this file.
    File(PathBuf),
}

/// What gets keys.
pub(super) trait Source: Send + Sync + fmt::Debug {
    fn fetch(&self) -> BoxFuture<'_, Result<KeySet, Failure>>;
}

/// Why there are no keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Failure {
    #[error("no answer: {0}")]
    NoAnswer(Cause),
    #[error("answered with status {0}")]
    Status(u16),
    #[error("what came {0}")]
    Keys(Unusable),
    #[error("the discovery document is not a JSON object with the texts \"issuer\" and \"jwks_uri\"")]
    Document,
    #[error("the discovery document is of another issuer")]
    OtherIssuer,
    #[error("the discovery document names a jwks_uri that may not be asked")]
    Address,
    #[error("the file can't be read, or is larger than 64 KiB")]
    File,
    #[error("token_file can't be read, or holds no token")]
    TokenFile,
}

impl Failure {
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::NoAnswer(_) => "no_answer",
            Self::Status(_) => "status",
            Self::Keys(_) => "unusable",
            Self::Document | Self::OtherIssuer | Self::Address => "discovery",
            Self::File | Self::TokenFile => "file",
        }
    }
}

/// Keys in a file.
#[derive(Debug)]
pub(super) struct File(pub(super) PathBuf);

/// Keys behind a URL.
#[derive(Debug)]
pub(super) struct Remote {
    pub(super) client: Client,
    /// Where they are, or where it is said where they are.
    pub(super) url: Url,
    pub(super) kind: Kind,
    /// The bearer token that is shown, read anew each time.
    pub(super) token_file: Option<PathBuf>,
}

/// What is behind the URL.
#[derive(Debug)]
pub(super) enum Kind {
    Keys,
    /// A discovery document, which must be of this issuer.
    Document(String),
}

// === impl File ===

impl Source for File {
    fn fetch(&self) -> BoxFuture<'_, Result<KeySet, Failure>> {
        Box::pin(async {
            let content = read(&self.0).await.ok_or(Failure::File)?;
            KeySet::parse(&content).map_err(Failure::Keys)
        })
    }
}

// === impl Remote ===

impl Source for Remote {
    fn fetch(&self) -> BoxFuture<'_, Result<KeySet, Failure>> {
        Box::pin(async {
            let deadline = self.client.deadline();
            let answer = self.get(self.url.clone(), deadline).await?;
            let keys = match &self.kind {
                Kind::Keys => answer,
                Kind::Document(issuer) => self.get(self.named(&answer, issuer)?, deadline).await?,
            };
            KeySet::parse(&keys).map_err(Failure::Keys)
        })
    }
}

impl Remote {
    async fn get(&self, mut url: Url, deadline: Instant) -> Result<Bytes, Failure> {
        let (query, shows) = (url.query().map(str::to_owned), self.may_show_token_to(&url));
        url.set_query(None);
        let mut request = Request::get(url);
        if let Some(query) = query {
            request = request.with_query(query);
        }
        if let Some(file) = self.token_file.as_deref().filter(|_| shows) {
            let value = authorization(file).await.ok_or(Failure::TokenFile)?;
            request = request.with_secret_header("authorization", value).or(Err(Failure::TokenFile))?;
        }
        let answer = self.client.send_by(request, deadline).await.map_err(|error| match error {
            SendError::NoAnswer(cause) | SendError::Body(_, cause) => Failure::NoAnswer(cause),
        })?;
        if answer.head.status == 200 { Ok(answer.body) } else { Err(Failure::Status(answer.head.status)) }
    }

    /// Where a discovery document (`OpenID` Connect Discovery 1.0 §3) says that the keys are.
    fn named(&self, document: &[u8], issuer: &str) -> Result<Url, Failure> {
        let document = jwt::unique_object(document).or(Err(Failure::Document))?;
        let text = |name| document.get(name).and_then(Value::as_str).ok_or(Failure::Document);
        if text("issuer")? != issuer {
            return Err(Failure::OtherIssuer);
        }
        let url = Url::parse(text("jwks_uri")?).or(Err(Failure::Address))?;
        // Asked for apart: some issuers need one here.
        let mut bare = url.clone();
        bare.set_query(None);
        self.client.check_url(&bare).or(Err(Failure::Address))?;
        Ok(url)
    }

    /// The token is the broker's own: to another place than the configured one it goes only over TLS, and that one the
    /// configured certificates must vouch for (without `ca_file` there is no `token_file`).
    fn may_show_token_to(&self, url: &Url) -> bool {
        url.scheme() == "https" || url.origin() == self.url.origin()
    }
}

async fn authorization(file: &Path) -> Option<Zeroizing<Vec<u8>>> {
    let content = read(file).await?;
    let token = content.trim_ascii();
    let plausible = !token.is_empty() && token.iter().all(u8::is_ascii_graphic);
    plausible.then(|| Zeroizing::new([b"Bearer ", token].concat()))
}

async fn read(file: &Path) -> Option<Zeroizing<Vec<u8>>> {
    // Before it is opened: to open a pipe would wait for its other end.
    if !tokio::fs::metadata(file).await.ok()?.is_file() {
        return None;
    }
    // As large as it may become: one that grew would leave copies behind.
    let mut content = Zeroizing::new(Vec::with_capacity(LARGEST_FILE + 1));
    let limit = u64::try_from(LARGEST_FILE).ok()? + 1;
    tokio::fs::File::open(file).await.ok()?.take(limit).read_to_end(&mut content).await.ok()?;
    (content.len() <= LARGEST_FILE).then_some(content)
}
