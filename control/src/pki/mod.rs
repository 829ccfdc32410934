//! The certificates: an own authority, the server's certificate, client certificates and the kubeconfigs that hold them.
//!
//! Used by [`crate::run`] at start and by `control kubeconfig`. Everything lies in `<data dir>/pki` and is used again;
//! a certificate is issued anew, with the same key, when it nears its end or lacks a name. Next: [`crate::api::serve`].
//!
//! ```text
//! pki/ca.crt ca.key           the authority, ten years; may be replaced by one's own before the first start
//! pki/server.crt server.key   the server, one year
//! pki/admin.crt admin.key     kubernetes-admin of system:masters, one year
//! ```

mod files;
mod kubeconfig;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType, date_time_ymd,
};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use crate::config::SubjectName;

pub use files::write_private;

const CA_LIFE: Duration = Duration::from_secs(3650 * 24 * 3600);
const LIFE: Duration = Duration::from_secs(365 * 24 * 3600);
/// A certificate with less than this left is issued anew.
const RENEW: Duration = Duration::from_secs(90 * 24 * 3600);
/// Clocks of other machines may be this far behind.
const SKEW: Duration = Duration::from_secs(3600);

/// The authority of a data directory.
pub struct Pki {
    dir: PathBuf,
    ca: Certificate,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate with its key, both as PEM.
#[derive(Clone)]
pub struct Credentials {
    /// The certificate.
    pub certificate: String,
    /// Its private key, PKCS #8.
    pub key: String,
}

/// Why a certificate could not be had.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file could not be read or written.
    #[error("cannot read or write {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file does not hold what it should.
    #[error("{path} holds no usable certificate or key: {reason}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Only one half of a pair is there.
    #[error("{missing} is missing, but its other half is there: restore it, or remove both to start over")]
    Half {
        /// The missing file.
        missing: PathBuf,
    },
    /// The data directory has no authority yet.
    #[error("{0} has no certificate authority: run `control serve` with this data directory first")]
    NoAuthority(PathBuf),
    /// The authority has come to its end.
    #[error("the certificate authority {0} has expired: replace it and its key, and all kubeconfigs")]
    Expired(PathBuf),
    /// Making a certificate failed.
    #[error("cannot issue a certificate")]
    Issue(#[from] rcgen::Error),
    /// TLS does not take the certificate.
    #[error("cannot use the certificates for TLS")]
    Tls(#[from] rustls::Error),
    /// TLS does not take the authority.
    #[error("cannot check client certificates")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
    /// A kubeconfig could not be put into words.
    #[error("cannot write a kubeconfig: {0}")]
    Kubeconfig(String),
}

/// A certificate, encoded, with the file it is from.
struct Certificate {
    path: PathBuf,
    der: CertificateDer<'static>,
    pem: String,
}

impl Pki {
    /// The authority in `<data_dir>/pki`, made if there is none.
    ///
    /// # Errors
    /// Files that cannot be read or written, or hold something else.
    pub fn open_or_create(data_dir: &Path) -> Result<Pki, PkiError> {
        let dir = data_dir.join("pki");
        files::make_private_dir(&dir)?;
        if files::read_pair(&dir, "ca")?.is_none() {
            files::write_pair(&dir, "ca", &new_authority()?)?;
        }
        Pki::open(data_dir)
    }

    /// The authority in `<data_dir>/pki`.
    ///
    /// # Errors
    /// There is none, it has expired, or its files cannot be read.
    pub fn open(data_dir: &Path) -> Result<Pki, PkiError> {
        let dir = data_dir.join("pki");
        let pair = files::read_pair(&dir, "ca")?.ok_or_else(|| PkiError::NoAuthority(data_dir.into()))?;
        let ca = Certificate::parse(dir.join("ca.crt"), pair.certificate)?;
        if remaining(&ca.read()?).is_none() {
            return Err(PkiError::Expired(ca.path));
        }
        let key = parse_key(&dir, "ca", &pair.key)?;
        let issuer = Issuer::from_ca_cert_der(&ca.der, key)?;
        Ok(Pki { dir, ca, issuer })
    }

    /// What the server needs for TLS: a certificate for `names`, and the check of client certificates, which clients
    /// may do without.
    ///
    /// # Errors
    /// See [`PkiError`].
    pub fn server_config(&self, names: &BTreeSet<SubjectName>) -> Result<ServerConfig, PkiError> {
        let credentials = self.kept("server", server_params(names)?, names)?;
        let chain = vec![Certificate::parse(self.dir.join("server.crt"), credentials.certificate)?.der];
        let key = parse_key(&self.dir, "server", &credentials.key)?;
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut roots = RootCertStore::empty();
        roots.add(self.ca.der.clone())?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        let verifier = verifier.allow_unauthenticated().build()?;
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        Ok(config
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)?)
    }

    /// The administrator's client certificate: kubernetes-admin of system:masters.
    ///
    /// # Errors
    /// See [`PkiError`].
    pub fn admin(&self) -> Result<Credentials, PkiError> {
        self.kept(
            "admin",
            client_params("kubernetes-admin", Some("system:masters")),
            &BTreeSet::new(),
        )
    }

    /// A new client certificate, which is kept nowhere here.
    ///
    /// # Errors
    /// See [`PkiError`].
    pub fn client(&self, user: &str, group: Option<&str>) -> Result<Credentials, PkiError> {
        let key = KeyPair::generate()?;
        self.issue(client_params(user, group), &key)
    }

    /// A kubeconfig for `user` that trusts this authority, as YAML.
    ///
    /// # Errors
    /// See [`PkiError`].
    pub fn kubeconfig(&self, server: &str, user: &str, credentials: &Credentials) -> Result<String, PkiError> {
        kubeconfig::render(server, &self.ca.pem, user, credentials)
    }

    /// The credentials in a pair of files; issued anew if they near their end, lack a name or are of another authority.
    fn kept(
        &self,
        name: &str,
        params: CertificateParams,
        names: &BTreeSet<SubjectName>,
    ) -> Result<Credentials, PkiError> {
        let key = match files::read_pair(&self.dir, name)? {
            Some(pair) => {
                let certificate = Certificate::parse(self.dir.join(format!("{name}.crt")), pair.certificate.clone())?;
                if self.is_good(&certificate, names)? {
                    return Ok(pair);
                }
                tracing::info!(name, "issuing the certificate anew");
                parse_key(&self.dir, name, &pair.key)?
            }
            None => KeyPair::generate()?,
        };
        let issued = self.issue(params, &key)?;
        files::write_pair(&self.dir, name, &issued)?;
        Ok(issued)
    }

    fn is_good(&self, certificate: &Certificate, names: &BTreeSet<SubjectName>) -> Result<bool, PkiError> {
        let (ca, certificate) = (self.ca.read()?, certificate.read()?);
        let ours = certificate.verify_signature(Some(ca.public_key())).is_ok();
        let lasts = remaining(&certificate).is_some_and(|left| left > RENEW);
        Ok(ours && lasts && names.is_subset(&subject_names(&certificate)))
    }

    fn issue(&self, params: CertificateParams, key: &KeyPair) -> Result<Credentials, PkiError> {
        let certificate = params.signed_by(key, &self.issuer)?.pem();
        Ok(Credentials {
            certificate,
            key: key.serialize_pem(),
        })
    }
}

impl Certificate {
    fn parse(path: PathBuf, pem: String) -> Result<Self, PkiError> {
        match CertificateDer::from_pem_slice(pem.as_bytes()) {
            Ok(der) => Ok(Self { path, der, pem }),
            Err(error) => Err(PkiError::Content {
                path,
                reason: error.to_string(),
            }),
        }
    }

    fn read(&self) -> Result<X509Certificate<'_>, PkiError> {
        match X509Certificate::from_der(&self.der) {
            Ok((_, certificate)) => Ok(certificate),
            Err(error) => Err(PkiError::Content {
                path: self.path.clone(),
                reason: error.to_string(),
            }),
        }
    }
}

fn parse_key(dir: &Path, name: &str, pem: &str) -> Result<KeyPair, PkiError> {
    let failed = |error: rcgen::Error| PkiError::Content {
        path: dir.join(format!("{name}.key")),
        reason: error.to_string(),
    };
    KeyPair::from_pem(pem).map_err(failed)
}

fn new_authority() -> Result<Credentials, PkiError> {
    let key = KeyPair::generate()?;
    let mut params = params("waggle-ca", CA_LIFE);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    Ok(Credentials {
        certificate: params.self_signed(&key)?.pem(),
        key: key.serialize_pem(),
    })
}

fn server_params(names: &BTreeSet<SubjectName>) -> Result<CertificateParams, PkiError> {
    let mut params = params("kube-apiserver", LIFE);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let name = |name: &SubjectName| match name {
        SubjectName::Ip(address) => Ok(SanType::IpAddress(*address)),
        SubjectName::Dns(name) => Ok(SanType::DnsName(name.as_str().try_into()?)),
    };
    params.subject_alt_names = names.iter().map(name).collect::<Result<_, rcgen::Error>>()?;
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// Kubernetes reads the common name as the user and each organization as a group; rcgen writes one organization.
fn client_params(user: &str, group: Option<&str>) -> CertificateParams {
    let mut params = params(user, LIFE);
    if let Some(group) = group {
        params.distinguished_name.push(DnType::OrganizationName, group);
    }
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    params
}

fn params(common_name: &str, life: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let epoch = date_time_ymd(1970, 1, 1);
    (params.not_before, params.not_after) = (epoch + now.saturating_sub(SKEW), epoch + (now + life));
    params
}

/// How long the certificate is good for; none when it has ended.
fn remaining(certificate: &X509Certificate<'_>) -> Option<Duration> {
    let end = Duration::from_secs(u64::try_from(certificate.validity().not_after.timestamp()).ok()?);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok()?;
    end.checked_sub(now)
}

fn subject_names(certificate: &X509Certificate<'_>) -> BTreeSet<SubjectName> {
    let Ok(Some(names)) = certificate.subject_alternative_name() else {
        return BTreeSet::new();
    };
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some(SubjectName::Dns((*name).to_owned())),
        GeneralName::IPAddress(bytes) => {
            let v4 = <[u8; 4]>::try_from(*bytes).map(Into::into);
            v4.or_else(|_| <[u8; 16]>::try_from(*bytes).map(Into::into))
                .ok()
                .map(SubjectName::Ip)
        }
        _ => None,
    };
    names.value.general_names.iter().filter_map(name).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn names(names: &[&str]) -> BTreeSet<SubjectName> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    fn serve(dir: &Path, names: &BTreeSet<SubjectName>) -> String {
        Pki::open_or_create(dir).unwrap().server_config(names).unwrap();
        std::fs::read_to_string(dir.join("pki/server.crt")).unwrap()
    }

    #[test]
    fn certificates_are_kept_until_a_name_is_missing() {
        let dir = tempfile::TempDir::new().unwrap();
        let first = serve(dir.path(), &names(&["localhost", "10.96.0.1", "fd00::1"]));
        assert_eq!(first, serve(dir.path(), &names(&["localhost", "10.96.0.1", "fd00::1"])));
        assert_eq!(
            first,
            serve(dir.path(), &names(&["fd00::1"])),
            "it is good for more than is asked"
        );
        assert_ne!(first, serve(dir.path(), &names(&["other.example"])));
    }

    #[test]
    fn a_certificate_near_its_end_is_issued_anew_with_its_key() {
        let dir = tempfile::TempDir::new().unwrap();
        let pki = Pki::open_or_create(dir.path()).unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = client_params("kubernetes-admin", Some("system:masters"));
        params.not_after = params.not_before + RENEW;
        let ending = pki.issue(params, &key).unwrap();
        files::write_pair(&pki.dir, "admin", &ending).unwrap();
        let renewed = pki.admin().unwrap();
        assert_ne!(renewed.certificate, ending.certificate);
        assert_eq!(renewed.key, ending.key);
        assert_eq!(pki.admin().unwrap().certificate, renewed.certificate, "and then kept");
    }

    #[test]
    fn a_certificate_of_another_authority_is_issued_anew() {
        let (dir, other) = (tempfile::TempDir::new().unwrap(), tempfile::TempDir::new().unwrap());
        let first = serve(dir.path(), &names(&["localhost"]));
        Pki::open_or_create(other.path()).unwrap();
        for file in ["ca.crt", "ca.key"] {
            std::fs::copy(other.path().join("pki").join(file), dir.path().join("pki").join(file)).unwrap();
        }
        assert_ne!(first, serve(dir.path(), &names(&["localhost"])));
    }

    #[test]
    fn a_client_certificate_names_user_and_group() {
        let dir = tempfile::TempDir::new().unwrap();
        let pki = Pki::open_or_create(dir.path()).unwrap();
        let client = pki
            .client("system:node-proxier:a", Some("system:node-proxier"))
            .unwrap();
        let certificate = Certificate::parse("client".into(), client.certificate).unwrap();
        let subject = certificate.read().unwrap().subject().to_string();
        assert_eq!(subject, "CN=system:node-proxier:a, O=system:node-proxier");
    }

    #[test]
    fn files_are_private_and_a_lost_half_is_an_error() {
        let dir = tempfile::TempDir::new().unwrap();
        serve(dir.path(), &names(&["localhost"]));
        for file in ["ca.crt", "ca.key", "server.crt", "server.key"] {
            let mode = std::fs::metadata(dir.path().join("pki").join(file))
                .unwrap()
                .permissions()
                .mode();
            assert_eq!(mode & 0o777, 0o600, "{file}");
        }
        std::fs::remove_file(dir.path().join("pki/ca.key")).unwrap();
        assert!(matches!(
            Pki::open_or_create(dir.path()).err(),
            Some(PkiError::Half { .. })
        ));
        assert!(matches!(
            Pki::open(&dir.path().join("none")).err(),
            Some(PkiError::NoAuthority(_))
        ));
    }

    #[test]
    fn a_kubeconfig_holds_everything_a_client_needs() {
        let dir = tempfile::TempDir::new().unwrap();
        let pki = Pki::open_or_create(dir.path()).unwrap();
        let text = pki
            .kubeconfig("https://10.0.0.1:6443", "kubernetes-admin", &pki.admin().unwrap())
            .unwrap();
        let config: serde_json::Value = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(config["clusters"][0]["cluster"]["server"], "https://10.0.0.1:6443");
        assert_eq!(config["current-context"], config["contexts"][0]["name"]);
        assert_eq!(config["contexts"][0]["context"]["user"], config["users"][0]["name"]);
        assert!(
            config["users"][0]["user"]["client-key-data"]
                .as_str()
                .is_some_and(|data| data.len() > 100)
        );
    }
}
