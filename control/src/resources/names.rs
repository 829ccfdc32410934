//! The forms of names, label keys and label values.
//!
//! Called by the metadata and field validation. Each function answers with what is wrong, in the words of
//! `k8s.io/apimachinery/pkg/util/validation`; nothing wrong is an empty answer.

const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const QUALIFIED: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const QUALIFIED_SLASHES: &str = "a qualified name must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const CONFIG_KEY: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";
const ENV_NAME: &str =
    "a valid environment variable name must consist only of printable ASCII characters other than '='";

/// RFC 1123 label: namespaces, container names, port names of a Service.
#[must_use]
pub fn dns_label(name: &str, is_prefix: bool) -> Vec<String> {
    let mut errors = too_long(name, 63);
    if !is_label(masked(name, is_prefix)) {
        errors.push(LABEL.to_owned());
    }
    errors
}

/// RFC 1123 subdomain: the names of most kinds.
#[must_use]
pub fn dns_subdomain(name: &str, is_prefix: bool) -> Vec<String> {
    let mut errors = too_long(name, 253);
    if !masked(name, is_prefix).split('.').all(is_label) {
        errors.push(SUBDOMAIN.to_owned());
    }
    errors
}

/// RFC 1035 label: the names of Services.
#[must_use]
pub fn dns_1035_label(name: &str, is_prefix: bool) -> Vec<String> {
    let mut errors = too_long(name, 63);
    let name = masked(name, is_prefix);
    if !is_label(name) || !name.starts_with(|first: char| first.is_ascii_lowercase()) {
        errors.push(LABEL_1035.to_owned());
    }
    errors
}

/// A key of a label or an annotation: an optional subdomain and `/`, then a name of up to 63 characters.
#[must_use]
pub fn qualified_name(name: &str) -> Vec<String> {
    let mut errors = Vec::new();
    let parts: Vec<&str> = name.split('/').collect();
    let name = match parts.as_slice() {
        [name] => *name,
        [prefix, name] => {
            if prefix.is_empty() {
                errors.push("prefix part must be non-empty".to_owned());
            } else {
                errors.extend(
                    dns_subdomain(prefix, false)
                        .into_iter()
                        .map(|error| format!("prefix part {error}")),
                );
            }
            *name
        }
        _ => return vec![QUALIFIED_SLASHES.to_owned()],
    };
    if name.is_empty() {
        errors.push("name part must be non-empty".to_owned());
    } else {
        errors.extend(too_long(name, 63).into_iter().map(|error| format!("name part {error}")));
    }
    if !is_qualified(name) {
        errors.push(QUALIFIED.to_owned());
    }
    errors
}

/// The value of a label.
#[must_use]
pub fn label_value(value: &str) -> Vec<String> {
    let mut errors = too_long(value, 63);
    if !value.is_empty() && !is_qualified(value) {
        errors.push(LABEL_VALUE.to_owned());
    }
    errors
}

/// A key of a ConfigMap's or Secret's data.
#[must_use]
pub fn config_key(key: &str) -> Vec<String> {
    let mut errors = too_long(key, 253);
    if key.is_empty() || !key.bytes().all(is_name_byte) {
        errors.push(CONFIG_KEY.to_owned());
    }
    match key {
        "." => errors.push("must not be '.'".to_owned()),
        ".." => errors.push("must not be '..'".to_owned()),
        _ if key.starts_with("..") => errors.push("must not start with '..'".to_owned()),
        _ => {}
    }
    errors
}

/// The name of a container's port (RFC 6335): up to 15 characters, at least one of them a letter.
#[must_use]
pub fn port_name(name: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if name.len() > 15 {
        errors.push("must be no more than 15 characters".to_owned());
    }
    if !name
        .bytes()
        .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
    {
        errors.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned());
    }
    if !name.bytes().any(|byte| byte.is_ascii_lowercase()) {
        errors.push("must contain at least one letter (a-z)".to_owned());
    }
    if name.contains("--") {
        errors.push("must not contain consecutive hyphens".to_owned());
    }
    if name.starts_with('-') || name.ends_with('-') {
        errors.push("must not begin or end with a hyphen".to_owned());
    }
    errors
}

/// The name of an environment variable.
#[must_use]
pub fn env_name(name: &str) -> Vec<String> {
    if !name.is_empty() && name.bytes().all(|byte| (b' '..=b'~').contains(&byte) && byte != b'=') {
        Vec::new()
    } else {
        vec![ENV_NAME.to_owned()]
    }
}

/// A port number.
#[must_use]
pub fn port_number(port: i64) -> Vec<String> {
    in_range(port, 1, 65535)
}

/// An integer within bounds, both included.
#[must_use]
pub fn in_range(value: i64, min: i64, max: i64) -> Vec<String> {
    if (min..=max).contains(&value) {
        Vec::new()
    } else {
        vec![format!("must be between {min} and {max}, inclusive")]
    }
}

/// A `generateName` prefix may end in a dash: the suffix makes it whole.
fn masked(name: &str, is_prefix: bool) -> &str {
    match name.strip_suffix('-') {
        Some(stem) if is_prefix && !stem.is_empty() => stem.trim_end_matches('-'),
        _ => name,
    }
}

fn too_long(text: &str, max: usize) -> Vec<String> {
    if text.len() > max {
        vec![format!("must be no more than {max} bytes")]
    } else {
        Vec::new()
    }
}

fn is_label(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    name.bytes().all(|byte| inner(byte) || byte == b'-')
        && name.bytes().next().is_some_and(inner)
        && name.bytes().last().is_some_and(inner)
}

fn is_qualified(name: &str) -> bool {
    name.bytes().all(is_name_byte)
        && name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric())
        && name.bytes().last().is_some_and(|byte| byte.is_ascii_alphanumeric())
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_subdomains_differ_in_dots_and_length() {
        assert!(dns_label("web-1", false).is_empty());
        assert_eq!(dns_label("web.1", false), [LABEL]);
        assert!(dns_subdomain("web.example-1.com", false).is_empty());
        assert_eq!(dns_subdomain("web..com", false), [SUBDOMAIN]);
        assert_eq!(dns_label(&"a".repeat(64), false), ["must be no more than 63 bytes"]);
    }

    #[test]
    fn service_names_begin_with_a_letter() {
        assert!(dns_1035_label("web", false).is_empty());
        assert_eq!(dns_1035_label("1web", false), [LABEL_1035]);
    }

    #[test]
    fn a_prefix_may_end_in_a_dash_and_a_name_may_not() {
        assert!(dns_label("web-", true).is_empty());
        assert_eq!(dns_label("web-", false), [LABEL]);
        assert_eq!(dns_label("-", true), [LABEL]);
    }

    #[test]
    fn qualified_names_have_one_optional_prefix() {
        assert!(qualified_name("kubernetes.io/metadata.name").is_empty());
        assert_eq!(qualified_name("a/b/c"), [QUALIFIED_SLASHES]);
        assert_eq!(qualified_name(""), ["name part must be non-empty", QUALIFIED]);
        assert_eq!(qualified_name("/b"), ["prefix part must be non-empty"]);
        assert_eq!(label_value("no spaces"), [LABEL_VALUE]);
    }

    #[test]
    fn config_keys_are_file_names_that_stay_in_their_directory() {
        assert!(config_key("ca.crt").is_empty());
        assert_eq!(config_key(".."), ["must not be '..'"]);
        assert_eq!(config_key("a/b"), [CONFIG_KEY]);
    }

    #[test]
    fn port_names_are_short_and_have_a_letter() {
        assert!(port_name("http-2").is_empty());
        assert_eq!(port_name("8080"), ["must contain at least one letter (a-z)"]);
        assert_eq!(port_name("a-name-of-16-chr"), ["must be no more than 15 characters"]);
    }
}
