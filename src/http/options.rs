//! What can be set for an upstream's client, and what is wrong with it.

use crate::address::{Hosts, NotAHost, Objection, proxy_objections};
use crate::secret::{Broken, LongLivedSecret, Sealed};
use std::fmt;
use std::time::Duration;
use url::Url;

/// What can be set per upstream.
pub struct Options {
    /// How long one attempt may take, from before the name is resolved to the end of the body.
    pub timeout: Duration,
    /// How long name resolution, TCP and TLS may take together.
    pub connect_timeout: Duration,
    /// Hosts (names or address literals) that may be reached over plain http and in private address space.
    pub allow_private: Vec<String>,
    /// The only proxy that is used; `http` or `https`, without userinfo. It resolves the upstream's name, so the check
    /// of addresses is its own.
    pub proxy: Option<Url>,
    /// Certificates (PEM) to trust instead of the bundled roots.
    pub ca_pem: Option<Vec<u8>>,
    /// A client certificate chain with its key (PEM, one text), made by [`seal_identity`].
    pub client_identity_pem: Option<Sealed>,
}

/// Seals a client certificate chain with its key (PEM, one text).
pub fn seal_identity(pem: &LongLivedSecret) -> Sealed {
    Sealed::new(pem, NOBODY, CLIENT_IDENTITY)
}

/// What a client certificate is sealed for: the options of a client know no name.
const NOBODY: &str = "";
const CLIENT_IDENTITY: &str = "client_certificate";

/// What is wrong with the options of a client, or with an upstream's URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// An entry of `allow_private` that is no host.
    #[error("allow_private holds an entry that is neither a host name nor an address")]
    AllowPrivate,
    /// The upstream's URL.
    #[error("the URL {0}")]
    Url(Objection),
    /// The proxy's URL.
    #[error("the URL of the proxy {0}")]
    Proxy(Objection),
    /// The certificates to trust.
    #[error("holds no certificate in PEM form that can be read")]
    Ca,
    /// The client certificate.
    #[error("must hold a certificate and its private key in PEM form")]
    Identity,
    /// What only shows when everything is put together: mostly a certificate that is PEM outside and broken inside.
    #[error("the TLS settings do not fit together")]
    Build,
}

impl Options {
    /// Whether an upstream at this URL may be spoken to. Pure; what its name resolves to is judged when connecting.
    pub fn check_url(&self, url: &Url) -> Result<(), Error> {
        check(&self.hosts()?, url)
    }

    pub(super) fn hosts(&self) -> Result<Hosts, Error> {
        Hosts::parse(&self.allow_private).map_err(|NotAHost| Error::AllowPrivate)
    }

    pub(super) fn roots(&self) -> Result<Vec<reqwest::Certificate>, Error> {
        let Some(pem) = &self.ca_pem else {
            return webpki_root_certs::TLS_SERVER_ROOT_CERTS
                .iter()
                .map(|der| reqwest::Certificate::from_der(der))
                .collect::<Result<_, _>>()
                .map_err(|error| Error::build(&error));
        };
        match reqwest::Certificate::from_pem_bundle(pem) {
            Ok(roots) if !roots.is_empty() => Ok(roots),
            Ok(_) | Err(_) => Err(Error::Ca),
        }
    }

    /// The client certificate chain with its key, if there is one.
    pub fn open_identity(&self) -> Result<Option<LongLivedSecret>, Broken> {
        self.client_identity_pem.as_ref().map(|pem| pem.open(NOBODY, CLIENT_IDENTITY)).transpose()
    }

    pub(super) fn identity(&self) -> Result<Option<reqwest::Identity>, Error> {
        let pem = self.open_identity().or(Err(Error::Identity))?;
        let identity = pem.map(|pem| reqwest::Identity::from_pem(pem.expose().as_bytes()));
        identity.transpose().or(Err(Error::Identity))
    }

    pub(super) fn proxy(&self) -> Result<Option<reqwest::Proxy>, Error> {
        let Some(url) = &self.proxy else {
            return Ok(None);
        };
        if let Some(objection) = proxy_objections(url).into_iter().next() {
            return Err(Error::Proxy(objection));
        }
        reqwest::Proxy::all(url.clone()).map(Some).or(Err(Error::Proxy(Objection::Scheme)))
    }
}

/// The first thing that speaks against a URL.
pub(super) fn check(hosts: &Hosts, url: &Url) -> Result<(), Error> {
    hosts.objections(url).into_iter().next().map_or(Ok(()), |objection| Err(Error::Url(objection)))
}

impl Default for Options {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(3),
            allow_private: Vec::new(),
            proxy: None,
            ca_pem: None,
            client_identity_pem: None,
        }
    }
}

/// By hand, because a URL shows its password until it has been checked.
impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("timeout", &self.timeout)
            .field("connect_timeout", &self.connect_timeout)
            .field("allow_private", &self.allow_private)
            .field("proxy", &self.proxy.as_ref().and_then(Url::host_str))
            .field("ca_pem", &self.ca_pem.is_some())
            .field("client_identity_pem", &self.client_identity_pem)
            .finish()
    }
}

impl Error {
    /// reqwest's own words may quote a path or a key file, so they stay here.
    pub(super) fn build(_error: &reqwest::Error) -> Self {
        Self::Build
    }
}
