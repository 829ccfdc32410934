//! Validation of addresses and address ranges in fields.
//!
//! Called by the kinds that hold addresses: Service, EndpointSlice, Endpoints, Node.

use std::net::IpAddr;

use super::field_error::FieldError;

/// Checks that `text` is an address of any family.
#[must_use]
pub fn validate_ip(text: &str, field: &str) -> Option<FieldError> {
    let detail = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
    text.parse::<IpAddr>()
        .is_err()
        .then(|| FieldError::invalid(field, text, detail))
}

/// Checks that an address is one that traffic may be sent to: not unspecified, loopback or link-local.
#[must_use]
pub fn validate_non_special_ip(text: &str, field: &str) -> Vec<FieldError> {
    let Ok(address) = text.parse::<IpAddr>() else {
        return vec![FieldError::invalid(field, text, "must be a valid IP address")];
    };
    let (link_local, link_local_multicast) = match address {
        IpAddr::V4(v4) => (v4.is_link_local(), v4.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(v6) => (v6.is_unicast_link_local(), v6.segments()[0] & 0xff0f == 0xff02),
    };
    [
        (address.is_unspecified(), format!("may not be unspecified ({address})")),
        (
            address.is_loopback(),
            "may not be in the loopback range (127.0.0.0/8, ::1/128)".to_owned(),
        ),
        (
            link_local,
            "may not be in the link-local range (169.254.0.0/16, fe80::/10)".to_owned(),
        ),
        (
            link_local_multicast,
            "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)".to_owned(),
        ),
    ]
    .into_iter()
    .filter(|(bad, _)| *bad)
    .map(|(_, detail)| FieldError::invalid(field, text, detail))
    .collect()
}

/// Checks that `text` is an address, a slash and a prefix length. Host bits may be set.
#[must_use]
pub fn validate_cidr(text: &str, field: &str) -> Option<FieldError> {
    let good = text.split_once('/').is_some_and(|(address, prefix)| {
        let bits = address
            .parse::<IpAddr>()
            .map(|address| if address.is_ipv6() { 128 } else { 32 });
        bits.is_ok_and(|bits| prefix.parse::<u8>().is_ok_and(|prefix| prefix <= bits))
    });
    let detail = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
    (!good).then(|| FieldError::invalid(field, text, detail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_addresses_are_refused_by_their_range() {
        let of = |text| {
            validate_non_special_ip(text, "f")
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
        };
        assert!(of("10.1.2.3").is_empty() && of("fd00::1").is_empty());
        assert_eq!(
            of("0.0.0.0"),
            ["f: Invalid value: \"0.0.0.0\": may not be unspecified (0.0.0.0)"]
        );
        assert_eq!(
            of("::1"),
            ["f: Invalid value: \"::1\": may not be in the loopback range (127.0.0.0/8, ::1/128)"]
        );
        assert_eq!(of("fe80::1").len(), 1);
        assert_eq!(of("224.0.0.5").len(), 1);
    }

    #[test]
    fn ranges_need_a_prefix_that_fits() {
        assert_eq!(validate_cidr("10.0.0.0/24", "f"), None);
        assert_eq!(validate_cidr("fd00::/64", "f"), None);
        assert!(validate_cidr("10.0.0.0", "f").is_some() && validate_cidr("10.0.0.0/33", "f").is_some());
    }
}
