//! Authorities and certificates by Debian's openssl, in a directory that is gone with the test.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// A directory of authorities.
pub(crate) struct Pki(TempDir);

/// An authority, by its directory.
#[derive(Debug, Clone)]
pub(crate) struct Authority {
    dir: PathBuf,
}

/// A certificate, its key, and what else is shown with it.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

/// What a certificate is to be.
#[derive(Debug, Clone)]
pub(crate) struct Spec<'a> {
    pub(crate) key: &'a [&'a str],
    /// Lines of an extension section.
    pub(crate) extensions: &'a str,
    /// `YYYYMMDDHHMMSSZ`
    pub(crate) start: &'a str,
    pub(crate) end: &'a str,
    pub(crate) digest: &'a str,
}

pub(crate) const P256: &[&str] = &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"];
pub(crate) const P384: &[&str] = &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"];
pub(crate) const RSA: &[&str] = &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"];
pub(crate) const SHORT_RSA: &[&str] = &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024"];
pub(crate) const ED25519: &[&str] = &["-algorithm", "ED25519"];

const AUTHORITY: &str = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign";
const CLIENT: &str = "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\n\
                      extendedKeyUsage=clientAuth\nsubjectAltName=";

/// What a client's certificate holds, with these alternative names.
pub(crate) fn client(names: &str) -> String {
    format!("{CLIENT}{names}")
}

impl Default for Spec<'_> {
    fn default() -> Self {
        Self { key: P256, extensions: AUTHORITY, start: "20200101000000Z", end: "20991231235959Z", digest: "sha256" }
    }
}

impl Pki {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A root.
    pub(crate) fn root(&self, name: &str) -> Authority {
        self.root_like(name, &Spec::default())
    }

    pub(crate) fn root_like(&self, name: &str, spec: &Spec<'_>) -> Authority {
        let authority = self.authority(name);
        make_key(&authority.key(), spec.key);
        authority.sign(&authority.key(), &authority.certificate(), name, spec, &["-selfsign"]);
        authority
    }

    /// An authority below another one.
    pub(crate) fn below(&self, name: &str, issuer: &Authority) -> Authority {
        let authority = self.authority(name);
        make_key(&authority.key(), P256);
        issuer.sign(&authority.key(), &authority.certificate(), name, &Spec::default(), &[]);
        authority
    }

    fn authority(&self, name: &str) -> Authority {
        let dir = self.path(name);
        fs::create_dir_all(dir.join("issued")).unwrap();
        fs::write(dir.join("index.txt"), "").unwrap();
        fs::write(dir.join("crlnumber"), "01\n").unwrap();
        let config = format!(
            "[ca]\ndefault_ca=d\n[d]\ndatabase={0}/index.txt\nnew_certs_dir={0}/issued\nrand_serial=yes\n\
             crlnumber={0}/crlnumber\ncertificate={0}/ca.pem\nprivate_key={0}/ca.key\ndefault_md=sha256\n\
             policy=any\nunique_subject=no\n[any]\ncommonName=optional\n[req]\ndistinguished_name=dn\n[dn]\n",
            dir.display()
        );
        fs::write(dir.join("ca.cnf"), config).unwrap();
        Authority { dir }
    }
}

impl Authority {
    pub(crate) fn certificate(&self) -> PathBuf {
        self.dir.join("ca.pem")
    }

    pub(crate) fn key(&self) -> PathBuf {
        self.dir.join("ca.key")
    }

    pub(crate) fn pem(&self) -> String {
        fs::read_to_string(self.certificate()).unwrap()
    }

    /// A caller's certificate, with these alternative names.
    pub(crate) fn caller(&self, name: &str, names: &str) -> Identity {
        self.issue(name, &Spec { extensions: &client(names), ..Spec::default() })
    }

    /// The broker's own.
    pub(crate) fn server(&self, name: &str) -> Identity {
        let extensions = "basicConstraints=critical,CA:FALSE\nextendedKeyUsage=serverAuth\nsubjectAltName=DNS:broker";
        self.issue(name, &Spec { extensions, ..Spec::default() })
    }

    pub(crate) fn issue(&self, name: &str, spec: &Spec<'_>) -> Identity {
        let (certificate, key) = (self.dir.join(format!("{name}.pem")), self.dir.join(format!("{name}.key")));
        make_key(&key, spec.key);
        self.sign(&key, &certificate, name, spec, &[]);
        Identity { certificate, key }
    }

    fn sign(&self, key: &Path, certificate: &Path, name: &str, spec: &Spec<'_>, further: &[&str]) {
        let (request, extensions) = (certificate.with_extension("csr"), certificate.with_extension("ext"));
        let subject = format!("/CN={}", name.rsplit('/').next().unwrap_or_default());
        let config = self.dir.join("ca.cnf");
        openssl(&[
            "req",
            "-new",
            "-config",
            text(&config),
            "-key",
            text(key),
            "-subj",
            &subject,
            "-out",
            text(&request),
        ]);
        fs::write(&extensions, format!("{}\n", spec.extensions)).unwrap();
        let mut line = vec!["ca", "-batch", "-notext", "-config", text(&config), "-in", text(&request)];
        line.extend(["-out", text(certificate), "-extfile", text(&extensions), "-md", spec.digest]);
        line.extend(["-startdate", spec.start, "-enddate", spec.end]);
        if further.contains(&"-selfsign") {
            line.extend(["-keyfile", text(key)]);
        }
        line.extend(further);
        openssl(&line);
    }

    pub(crate) fn revoke(&self, certificate: &Path) {
        openssl(&["ca", "-config", text(&self.dir.join("ca.cnf")), "-revoke", text(certificate)]);
    }

    /// The list of what was revoked until now.
    pub(crate) fn revocations(&self) -> String {
        self.revocations_of("20200101000000Z", "20991231235959Z")
    }

    pub(crate) fn revocations_of(&self, last: &str, next: &str) -> String {
        let (config, out) = (self.dir.join("ca.cnf"), self.dir.join("crl.pem"));
        let line = ["ca", "-config", text(&config), "-gencrl", "-crl_lastupdate", last, "-crl_nextupdate", next];
        openssl(&[&line[..], &["-out", text(&out)]].concat());
        fs::read_to_string(out).unwrap()
    }
}

impl Identity {
    /// The same, with another certificate shown behind it.
    pub(crate) fn with(&self, authority: &Authority) -> Self {
        let certificate = self.certificate.with_extension("chain.pem");
        fs::write(&certificate, self.pem() + &authority.pem()).unwrap();
        Self { certificate, key: self.key.clone() }
    }

    pub(crate) fn pem(&self) -> String {
        fs::read_to_string(&self.certificate).unwrap()
    }

    pub(crate) fn key_pem(&self) -> String {
        fs::read_to_string(&self.key).unwrap()
    }
}

fn make_key(path: &Path, kind: &[&str]) {
    openssl(&[&["genpkey", "-out", text(path)], kind].concat());
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

pub(crate) fn openssl(line: &[&str]) {
    let out = Command::new("openssl").args(line).output().expect("openssl is not installed: test.sh does it");
    assert!(out.status.success(), "openssl {line:?}: {}", String::from_utf8_lossy(&out.stderr));
}
