//! What a request is about, read from method, path and query: API group, version, namespace, resource, name,
//! subresource and verb.
//!
//! First step of [`super::handlers`]. The path grammar is that of Kubernetes:
//! `/api/<version>` or `/apis/<group>/<version>`, then `[namespaces/<ns>/]<resource>[/<name>[/<subresource>]]`.

use http::Method;

/// What the client wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Verb {
    /// Read one object.
    Get,
    /// Read many.
    List,
    /// Follow changes.
    Watch,
    /// Make one.
    Create,
    /// Replace one.
    Update,
    /// Change one.
    Patch,
    /// Remove one.
    Delete,
    /// Remove many.
    DeleteCollection,
}

impl Verb {
    /// Whether the verb changes something.
    pub(super) fn is_mutating(self) -> bool {
        !matches!(self, Verb::Get | Verb::List | Verb::Watch)
    }
}

/// A path below `/api` or `/apis` that names a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ResourcePath {
    /// Empty for the core group.
    pub(super) group: String,
    /// Such as `v1`.
    pub(super) version: String,
    /// Where the object lives, if the path says.
    pub(super) namespace: Option<String>,
    /// The plural name.
    pub(super) resource: String,
    /// One object, or all.
    pub(super) name: Option<String>,
    /// Such as `status`.
    pub(super) subresource: Option<String>,
    /// The old `/watch/` form of a watch.
    pub(super) watch_prefix: bool,
}

/// What a path leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// `/api`
    CoreVersions,
    /// `/apis`
    Groups,
    /// `/apis/<group>`
    Group(String),
    /// `/api/<version>` or `/apis/<group>/<version>`
    GroupVersion {
        /// Empty for the core group.
        group: String,
        /// Such as `v1`.
        version: String,
    },
    /// Objects.
    Resource(ResourcePath),
    /// Anything that is not below `/api` or `/apis`.
    Other(String),
}

impl Target {
    /// Reads a path; each segment is percent-decoded. A path below `/api` or `/apis` that is too long to mean
    /// anything is [`Target::Other`].
    pub(super) fn parse(path: &str) -> Target {
        let decoded: Vec<String> = path.split('/').filter(|part| !part.is_empty()).map(decode).collect();
        let parts: Vec<&str> = decoded.iter().map(String::as_str).collect();
        let found = match parts.as_slice() {
            ["api"] => Some(Target::CoreVersions),
            ["apis"] => Some(Target::Groups),
            ["apis", group] => Some(Target::Group((*group).to_owned())),
            ["api", version] => Some(Target::group_version("", version)),
            ["apis", group, version] => Some(Target::group_version(group, version)),
            ["api", version, rest @ ..] => resource_path("", version, rest).map(Target::Resource),
            ["apis", group, version, rest @ ..] => resource_path(group, version, rest).map(Target::Resource),
            _ => None,
        };
        found.unwrap_or_else(|| Target::Other(path.to_owned()))
    }

    fn group_version(group: &str, version: &str) -> Target {
        Target::GroupVersion {
            group: group.to_owned(),
            version: version.to_owned(),
        }
    }
}

fn resource_path(group: &str, version: &str, rest: &[&str]) -> Option<ResourcePath> {
    let (watch_prefix, rest) = match rest {
        ["watch", rest @ ..] if !rest.is_empty() => (true, rest),
        rest => (false, rest),
    };
    // `namespaces/<ns>/<x>` is resource x in ns, except for the subresources of a Namespace itself.
    let (namespace, rest) = match rest {
        ["namespaces", _, "status" | "finalize"] => (None, rest),
        ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (Some((*namespace).to_owned()), rest),
        rest => (None, rest),
    };
    let (resource, name, subresource) = match rest {
        [resource] => (*resource, None, None),
        [resource, name] => (*resource, Some(*name), None),
        [resource, name, subresource] => (*resource, Some(*name), Some(*subresource)),
        _ => return None,
    };
    Some(ResourcePath {
        group: group.to_owned(),
        version: version.to_owned(),
        namespace,
        resource: resource.to_owned(),
        name: name.map(str::to_owned),
        subresource: subresource.map(str::to_owned),
        watch_prefix,
    })
}

impl ResourcePath {
    /// The verb `method` means here; `watch` is the query parameter. None for methods the API does not have.
    pub(super) fn verb(&self, method: &Method, watch: bool) -> Option<Verb> {
        let one = self.name.is_some();
        let reading = *method == Method::GET || *method == Method::HEAD;
        Some(match *method {
            _ if reading && (self.watch_prefix || (watch && !one)) => Verb::Watch,
            _ if reading && one => Verb::Get,
            _ if reading => Verb::List,
            Method::POST if !one || self.subresource.is_some() => Verb::Create,
            Method::PUT if one => Verb::Update,
            Method::PATCH if one => Verb::Patch,
            Method::DELETE if one => Verb::Delete,
            Method::DELETE => Verb::DeleteCollection,
            _ => return None,
        })
    }
}

fn decode(part: &str) -> String {
    percent_encoding::percent_decode_str(part)
        .decode_utf8_lossy()
        .into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(path: &str) -> ResourcePath {
        match Target::parse(path) {
            Target::Resource(found) => found,
            other => panic!("{path}: {other:?}"),
        }
    }

    #[test]
    fn paths_name_their_parts() {
        let slice = resource("/apis/discovery.k8s.io/v1/namespaces/ns/endpointslices/a%2Db/status");
        assert_eq!(
            (slice.group.as_str(), slice.version.as_str()),
            ("discovery.k8s.io", "v1")
        );
        assert_eq!(slice.namespace.as_deref(), Some("ns"));
        assert_eq!(
            (slice.resource.as_str(), slice.name.as_deref()),
            ("endpointslices", Some("a-b"))
        );
        assert_eq!(slice.subresource.as_deref(), Some("status"));
    }

    #[test]
    fn a_namespace_is_an_object_and_a_place() {
        let object = resource("/api/v1/namespaces/ns");
        assert_eq!(
            (object.resource.as_str(), object.name.as_deref(), object.namespace),
            ("namespaces", Some("ns"), None)
        );
        let finalize = resource("/api/v1/namespaces/ns/finalize");
        assert_eq!(
            (finalize.resource.as_str(), finalize.subresource.as_deref()),
            ("namespaces", Some("finalize"))
        );
        let place = resource("/api/v1/namespaces/ns/services");
        assert_eq!(
            (place.resource.as_str(), place.namespace.as_deref(), place.name),
            ("services", Some("ns"), None)
        );
    }

    #[test]
    fn short_and_long_paths() {
        assert_eq!(Target::parse("/api/"), Target::CoreVersions);
        assert_eq!(Target::parse("/apis"), Target::Groups);
        assert_eq!(Target::parse("/apis/apps"), Target::Group("apps".to_owned()));
        assert_eq!(Target::parse("/api/v1"), Target::group_version("", "v1"));
        for path in ["/", "/healthz", "/api/v1/a/b/c/d"] {
            assert_eq!(Target::parse(path), Target::Other(path.to_owned()));
        }
    }

    #[test]
    fn verbs_follow_method_and_shape() {
        let all = resource("/api/v1/services");
        let one = resource("/api/v1/namespaces/n/services/s");
        assert_eq!(all.verb(&Method::GET, false), Some(Verb::List));
        assert_eq!(all.verb(&Method::GET, true), Some(Verb::Watch));
        assert_eq!(all.verb(&Method::DELETE, false), Some(Verb::DeleteCollection));
        assert_eq!(all.verb(&Method::PUT, false), None);
        assert_eq!(one.verb(&Method::GET, false), Some(Verb::Get));
        assert_eq!(one.verb(&Method::POST, false), None);
        assert_eq!(
            resource("/api/v1/watch/services").verb(&Method::GET, false),
            Some(Verb::Watch)
        );
    }
}
