//! Headers by which proxies tell who their client is. The broker believes none of them where it is not told to, and
//! does not just leave them aside either: a request that carries one has come by a way that somebody thinks is another.

/// What Envoy says of the certificate of its client.
pub const FORWARDED_CERTIFICATE: &str = "x-forwarded-client-cert";

/// Which names are such headers, in lower case; whatever a name goes on with, it is one of them too.
const BEGINNINGS: &[&str] = &[
    // Certificates: Envoy, Traefik, nginx, RFC 9440, AWS, Azure, Google.
    FORWARDED_CERTIFICATE,
    "x-forwarded-tls-client-cert",
    "x-spiffe-",
    "x-client-cert",
    "x-client-dn",
    "x-client-subject",
    "x-ssl-client-",
    "x-ssl-cert",
    "x-tls-client-",
    "ssl-client-",
    "client-cert",
    "x-amzn-mtls-clientcert",
    "x-arr-clientcert",
    // Meshes.
    "l5d-client-id",
    // Users: oauth2-proxy, ingress controllers, AWS, Azure, Google, Kubernetes' front proxy.
    "x-forwarded-user",
    "x-forwarded-email",
    "x-forwarded-groups",
    "x-forwarded-preferred-username",
    "x-forwarded-access-token",
    "x-auth-request-",
    "x-authenticated-",
    "x-remote-user",
    "x-remote-group",
    "x-remote-extra-",
    "x-webauth-",
    "x-amzn-oidc-",
    "x-ms-client-principal",
    "x-ms-token-",
    "x-goog-authenticated-user-",
    "x-goog-iap-jwt-assertion",
    "x-endpoint-api-userinfo",
    "x-jwt-payload",
    "remote-user",
];

/// Whether a header of this name tells of somebody's identity. `_` and whatever else is no letter or digit stands for
/// `-`, since that is what some make of it on the way.
pub fn tells_identity(name: &str) -> bool {
    BEGINNINGS.iter().any(|beginning| begins(name.as_bytes(), beginning.as_bytes()))
}

fn begins(name: &[u8], beginning: &[u8]) -> bool {
    let plain = |byte: u8| if byte.is_ascii_alphanumeric() { byte.to_ascii_lowercase() } else { b'-' };
    name.len() >= beginning.len() && name.iter().zip(beginning).all(|(byte, wanted)| plain(*byte) == *wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_however_they_are_spelt() {
        for name in [
            "x-forwarded-client-cert",
            "X-Forwarded-Client-Cert",
            "x_forwarded_client_cert",
            "x-forwarded_client-cert",
            "x.forwarded.client.cert",
            "x-forwarded-client-cert-bin",
            "x-spiffe-id",
            "x_spiffe_id",
            "ssl-client-cert",
            "ssl-client-subject-dn",
            "x-ssl-client-verify",
            "client-cert",
            "client-cert-chain",
            "x-forwarded-user",
            "x-remote-user",
            "x-auth-request-email",
            "x-authenticated-userid",
            "remote_user",
        ] {
            assert!(tells_identity(name), "{name}");
        }
    }

    #[test]
    fn what_every_proxy_adds_is_left_alone() {
        for name in [
            "x-forwarded-for",
            "x-forwarded-proto",
            "x-forwarded-host",
            "x-forwarded-port",
            "x-forwarded",
            "x-request-id",
            "x-envoy-attempt-count",
            "x-envoy-expected-rq-timeout-ms",
            "x-envoy-external-address",
            "x-envoy-peer-metadata",
            "x-b3-traceid",
            "traceparent",
            "forwarded",
            "via",
            "content-type",
            "te",
            "user-agent",
            "grpc-timeout",
            "grpc-accept-encoding",
            "x",
            "",
        ] {
            assert!(!tells_identity(name), "{name}");
        }
    }

    #[test]
    fn the_table_is_described() {
        let document = include_str!("../../docs/configuration.md");
        let (_, rest) = document.split_once("<!-- begin: identity headers -->").unwrap();
        let (described, _) = rest.split_once("<!-- end -->").unwrap();
        let described: Vec<&str> = described.split(',').map(|name| name.trim().trim_matches('`')).collect();
        assert_eq!(described, BEGINNINGS);
    }

    #[test]
    fn the_table_is_written_in_the_one_way() {
        for beginning in BEGINNINGS {
            assert!(begins(beginning.as_bytes(), beginning.as_bytes()), "{beginning}");
        }
    }
}
