//! The subject of a client certificate: common name is the user, organisations are the groups.
//!
//! The certificate itself has been verified by TLS before.

use x509_parser::x509::AttributeTypeAndValue;

use super::Identity;

/// The identity in a certificate (DER). None without a common name, or when it is no certificate.
pub(in crate::api) fn identity_of(certificate: &[u8]) -> Option<Identity> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let text = |attribute: &AttributeTypeAndValue<'_>| attribute.as_str().ok().map(str::to_owned);
    let subject = certificate.subject();
    let user = subject
        .iter_common_name()
        .next()
        .and_then(text)
        .filter(|user| !user.is_empty())?;
    Some(Identity::new(
        user,
        subject.iter_organization().filter_map(text).collect(),
    ))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};

    use super::*;

    fn certificate(entries: &[(DnType, &str)]) -> Vec<u8> {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = DistinguishedName::new();
        for (kind, value) in entries {
            params.distinguished_name.push(kind.clone(), *value);
        }
        params
            .self_signed(&KeyPair::generate().unwrap())
            .unwrap()
            .der()
            .to_vec()
    }

    #[test]
    fn common_name_and_organisation_are_user_and_group() {
        let der = certificate(&[
            (DnType::OrganizationName, "system:masters"),
            (DnType::CommonName, "admin ü"),
        ]);
        let identity = identity_of(&der).unwrap();
        assert_eq!(identity.user, "admin ü");
        assert_eq!(identity.groups, ["system:masters", "system:authenticated"]);
    }

    #[test]
    fn no_name_is_nobody() {
        assert_eq!(identity_of(&certificate(&[(DnType::OrganizationName, "x")])), None);
    }

    #[test]
    fn cut_off_certificates_are_nobody_and_do_not_panic() {
        let der = certificate(&[(DnType::CommonName, "a")]);
        for end in 0..der.len() / 2 {
            assert_eq!(identity_of(&der[..end]), None);
        }
    }
}
