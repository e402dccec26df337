//! The one upstream HTTP client.

use crate::secret::LongLivedSecret;
use std::time::Duration;

/// How one upstream is reached.
#[derive(Debug)]
pub struct Options {
    /// From connecting to the last byte of the body.
    pub timeout: Duration,
    /// Until the connection stands.
    pub connect_timeout: Duration,
    /// Hosts and addresses that may be private, or plain http.
    pub allow_private: Vec<String>,
    /// Where requests go through.
    pub proxy: Option<url::Url>,
    /// Roots to trust, as PEM.
    pub ca_pem: Option<Vec<u8>>,
    /// Certificate chain and key, as PEM.
    pub client_identity_pem: Option<LongLivedSecret>,
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
