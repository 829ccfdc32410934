//! Query parameters and delete bodies, read and checked as Kubernetes does.
//!
//! Used by [`super::handlers`]; the outcome is the options of [`super::registry`] and [`super::watch`].

use std::time::Duration;

use serde_json::Value;

use super::registry::{DeleteOptions, FieldValidation, ListOptions, Preconditions, ReadAt, WriteOptions};
use super::selector::{FieldSelector, LabelSelector, Selection};
use super::status::Status;
use super::watch::{Start, WatchOptions};
use crate::resources::{FieldError, Resource, object};

/// A watch that does not say how long it lasts ends between this and twice this, so that watches do not all come
/// back at once.
const DEFAULT_WATCH: Duration = Duration::from_secs(1800);

/// Which object comes with each row of a Table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum IncludeObject {
    /// None at all.
    Nothing,
    /// Its metadata.
    #[default]
    Metadata,
    /// All of it.
    Object,
}

/// The decoded parameters of a request.
pub(super) struct Query {
    pairs: Vec<(String, String)>,
}

impl Query {
    pub(super) fn parse(text: Option<&str>) -> Self {
        Self {
            pairs: form_urlencoded::parse(text.unwrap_or_default().as_bytes())
                .into_owned()
                .collect(),
        }
    }

    /// The first value of a parameter; none when it is missing or empty.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.all(name).next().filter(|text| !text.is_empty())
    }

    fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        self.pairs
            .iter()
            .filter(move |(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// As in Kubernetes, a parameter that is there is true, unless it says `false` or `0`.
    pub(super) fn flag(&self, name: &str) -> Option<bool> {
        self.all(name).next().map(|text| !matches!(text, "false" | "0"))
    }

    fn number(&self, name: &str) -> Result<Option<u64>, Status> {
        let number = |text: &str| {
            text.parse().map_err(|_| {
                Status::bad_request(format!("invalid value for parameter {name}: {text:?} is not a number"))
            })
        };
        self.text(name).map(number).transpose()
    }

    /// The resource version of a read; `0` and nothing are different.
    fn resource_version(&self) -> Result<Option<u64>, Status> {
        let number = |text: &str| {
            text.parse()
                .map_err(|_| Status::bad_request(format!("invalid resource version: {text:?} is not a number")))
        };
        self.text("resourceVersion").map(number).transpose()
    }

    pub(super) fn selection(&self, resource: &Resource) -> Result<Selection, Status> {
        let refuse = |error| Status::bad_request(format!("{error}"));
        let labels = LabelSelector::parse(self.text("labelSelector").unwrap_or_default());
        let fields = FieldSelector::parse(self.text("fieldSelector").unwrap_or_default(), resource);
        Ok(Selection {
            labels: labels.map_err(refuse)?,
            fields: fields.map_err(refuse)?,
        })
    }

    /// What a get may show: anything not older than `resourceVersion`.
    pub(super) fn not_older_than(&self) -> Result<u64, Status> {
        Ok(self.resource_version()?.unwrap_or(0))
    }

    pub(super) fn list_options(&self, resource: &Resource) -> Result<ListOptions, Status> {
        let version = self.resource_version()?;
        let limit = self.number("limit")?.filter(|limit| *limit > 0);
        let continue_token = self.text("continue").map(str::to_owned);
        let rule = self.text("resourceVersionMatch");
        self.check_list(version, rule, continue_token.is_some())?;
        let read_at = match (version, rule) {
            (None | Some(0), _) => ReadAt::Newest,
            (Some(version), Some("Exact")) => ReadAt::Exact(version),
            // Without a rule, a paged list is of exactly that revision.
            (Some(version), None) if limit.is_some() => ReadAt::Exact(version),
            (Some(version), _) => ReadAt::NotOlderThan(version),
        };
        let limit = limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX));
        Ok(ListOptions {
            selection: self.selection(resource)?,
            limit,
            continue_token,
            read_at,
        })
    }

    fn check_list(&self, version: Option<u64>, rule: Option<&str>, continued: bool) -> Result<(), Status> {
        if continued && version.is_some_and(|version| version > 0) {
            return Err(Status::bad_request(
                "specifying resource version is not allowed when using continue",
            ));
        }
        let mut errors = Vec::new();
        if self.flag("sendInitialEvents").is_some() {
            errors.push(FieldError::forbidden(
                "sendInitialEvents",
                "sendInitialEvents is forbidden for list",
            ));
        }
        const RULE: &str = "resourceVersionMatch";
        match rule {
            None => {}
            Some(_) if continued => {
                errors.push(FieldError::forbidden(
                    RULE,
                    "resourceVersionMatch is forbidden when continue is provided",
                ));
            }
            Some(_) if version.is_none() => {
                let why = "resourceVersionMatch is forbidden unless resourceVersion is provided";
                errors.push(FieldError::forbidden(RULE, why));
            }
            Some("Exact") if version == Some(0) => {
                let why = "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
                errors.push(FieldError::forbidden(RULE, why));
            }
            Some("Exact" | "NotOlderThan") => {}
            Some(other) => errors.push(FieldError::not_supported(RULE, other, &["Exact", "NotOlderThan", ""])),
        }
        refuse("ListOptions", &errors)
    }

    pub(super) fn watch_options(&self, resource: &Resource) -> Result<WatchOptions, Status> {
        let version = self.resource_version()?;
        let initial = self.flag("sendInitialEvents");
        self.check_watch(initial)?;
        let bookmarks = self.flag("allowWatchBookmarks").unwrap_or(false);
        let start = match (initial, version) {
            (Some(true), version) => Start::MarkedState(version.unwrap_or(0)),
            (Some(false), None | Some(0)) => Start::Now,
            (None, None | Some(0)) => Start::State,
            (_, Some(version)) => Start::After(version),
        };
        let timeout = self.number("timeoutSeconds")?.filter(|seconds| *seconds > 0);
        let timeout = timeout.map_or_else(default_watch, Duration::from_secs);
        Ok(WatchOptions {
            selection: self.selection(resource)?,
            start,
            bookmarks,
            timeout: Some(timeout),
        })
    }

    fn check_watch(&self, initial: Option<bool>) -> Result<(), Status> {
        const RULE: &str = "resourceVersionMatch";
        let rule = self.text(RULE);
        let mut errors = Vec::new();
        match (initial, rule) {
            (None, Some(_)) => {
                let why = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
                errors.push(FieldError::forbidden(RULE, why));
            }
            (Some(_), None) => {
                let why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
                errors.push(FieldError::forbidden(RULE, why));
            }
            (Some(_), Some(other)) if other != "NotOlderThan" => {
                errors.push(FieldError::not_supported(RULE, other, &["NotOlderThan"]));
            }
            _ => {}
        }
        if self.text("continue").is_some() {
            errors.push(FieldError::forbidden("continue", "continue is forbidden for watch"));
        }
        refuse("ListOptions", &errors)
    }

    pub(super) fn write_options(&self) -> Result<WriteOptions, Status> {
        let mut errors = Vec::new();
        let dry_run = dry_run(self.all("dryRun"), &mut errors);
        let field_validation = match self.text("fieldValidation") {
            None | Some("Warn") => FieldValidation::Warn,
            Some("Ignore") => FieldValidation::Ignore,
            Some("Strict") => FieldValidation::Strict,
            Some(other) => {
                let supported = ["", "Ignore", "Strict", "Warn"];
                errors.push(FieldError::not_supported("fieldValidation", other, &supported));
                FieldValidation::Warn
            }
        };
        refuse("CreateOptions", &errors)?;
        Ok(WriteOptions {
            dry_run,
            field_validation,
            ..WriteOptions::default()
        })
    }

    /// Options of a deletion: those of the body count, then those of the query.
    pub(super) fn delete_options(&self, body: Option<&Value>) -> Result<DeleteOptions, Status> {
        let none = Value::Null;
        let body = body.unwrap_or(&none);
        if !body.is_null() && !body.is_object() {
            return Err(Status::bad_request("the body of a deletion must be DeleteOptions"));
        }
        let mut errors = Vec::new();
        let asked = object::strings_at(body, "dryRun");
        let dry_run = dry_run(asked.into_iter().chain(self.all("dryRun")), &mut errors);
        let policy = object::str_at(body, "propagationPolicy");
        let policy = if policy.is_empty() {
            self.text("propagationPolicy").unwrap_or_default()
        } else {
            policy
        };
        if !matches!(policy, "" | "Orphan" | "Background" | "Foreground") {
            let supported = ["Foreground", "Background", "Orphan", "nil"];
            errors.push(FieldError::not_supported("propagationPolicy", policy, &supported));
        }
        refuse("DeleteOptions", &errors)?;
        let text = |path: &str| object::at(body, path).and_then(Value::as_str).map(str::to_owned);
        let preconditions = Preconditions {
            uid: text("preconditions.uid"),
            resource_version: text("preconditions.resourceVersion"),
        };
        Ok(DeleteOptions { dry_run, preconditions })
    }

    pub(super) fn include_object(&self) -> Result<IncludeObject, Status> {
        match self.text("includeObject") {
            None | Some("Metadata") => Ok(IncludeObject::Metadata),
            Some("None") => Ok(IncludeObject::Nothing),
            Some("Object") => Ok(IncludeObject::Object),
            Some(other) => Err(Status::bad_request(format!(
                "unrecognized includeObject value: {other:?}"
            ))),
        }
    }
}

fn dry_run<'a>(values: impl Iterator<Item = &'a str>, errors: &mut Vec<FieldError>) -> bool {
    let mut asked = false;
    for value in values.filter(|value| !value.is_empty()) {
        if value == "All" {
            asked = true;
        } else {
            errors.push(FieldError::not_supported("dryRun", value, &["All"]));
        }
    }
    asked
}

fn refuse(kind: &str, errors: &[FieldError]) -> Result<(), Status> {
    if errors.is_empty() {
        Ok(())
    } else {
        Err(Status::invalid_kind("meta.k8s.io", kind, "", errors))
    }
}

/// Between once and twice [`DEFAULT_WATCH`], by the clock: good enough to spread watches.
fn default_watch() -> Duration {
    let nanos = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |now| now.subsec_nanos());
    DEFAULT_WATCH + DEFAULT_WATCH.mul_f64(f64::from(nanos) / 1e9)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources;

    fn pods() -> &'static Resource {
        resources::find("", "v1", "pods").unwrap()
    }

    fn list(text: &str) -> Result<ListOptions, u16> {
        Query::parse(Some(text))
            .list_options(pods())
            .map_err(|status| status.code)
    }

    fn start(text: &str) -> Result<Start, u16> {
        Query::parse(Some(text))
            .watch_options(pods())
            .map(|options| options.start)
            .map_err(|status| status.code)
    }

    #[test]
    fn resource_versions_of_lists() {
        for (text, at) in [
            ("", ReadAt::Newest),
            ("resourceVersion=0", ReadAt::Newest),
            ("resourceVersion=0&limit=5", ReadAt::Newest),
            ("resourceVersion=7", ReadAt::NotOlderThan(7)),
            ("resourceVersion=7&limit=5", ReadAt::Exact(7)),
            (
                "resourceVersion=7&limit=5&resourceVersionMatch=NotOlderThan",
                ReadAt::NotOlderThan(7),
            ),
            ("resourceVersion=7&resourceVersionMatch=Exact", ReadAt::Exact(7)),
        ] {
            assert_eq!(list(text).map(|options| options.read_at), Ok(at), "{text}");
        }
    }

    #[test]
    fn lists_that_make_no_sense() {
        for (text, code) in [
            ("resourceVersion=x", 400),
            ("limit=x", 400),
            ("labelSelector=a%20b", 400),
            ("fieldSelector=spec.nonsense%3D1", 400),
            ("continue=abc&resourceVersion=7", 400),
            ("resourceVersionMatch=Exact", 422),
            ("resourceVersionMatch=Exact&resourceVersion=0", 422),
            ("resourceVersionMatch=Whatever&resourceVersion=7", 422),
            ("sendInitialEvents=true", 422),
        ] {
            assert_eq!(list(text).err(), Some(code), "{text}");
        }
    }

    #[test]
    fn watches_start_where_they_say() {
        for (text, expected) in [
            ("", Start::State),
            ("resourceVersion=0", Start::State),
            ("resourceVersion=7", Start::After(7)),
            (
                "sendInitialEvents=true&resourceVersionMatch=NotOlderThan",
                Start::MarkedState(0),
            ),
            (
                "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&resourceVersion=7",
                Start::MarkedState(7),
            ),
            ("sendInitialEvents=false&resourceVersionMatch=NotOlderThan", Start::Now),
        ] {
            assert_eq!(start(text), Ok(expected), "{text}");
        }
        assert_eq!(start("sendInitialEvents=true"), Err(422));
        assert_eq!(start("resourceVersionMatch=NotOlderThan"), Err(422));
    }

    #[test]
    fn deletions_take_options_from_body_and_query() {
        let body = serde_json::json!({ "propagationPolicy": "Background", "preconditions": { "uid": "u" }, "dryRun": ["All"] });
        let options = Query::parse(None).delete_options(Some(&body)).unwrap();
        assert_eq!(
            (options.dry_run, options.preconditions.uid.as_deref()),
            (true, Some("u"))
        );
        assert!(Query::parse(Some("dryRun=All")).delete_options(None).unwrap().dry_run);
        assert_eq!(
            Query::parse(Some("dryRun=Some")).delete_options(None).unwrap_err().code,
            422
        );
        assert_eq!(
            Query::parse(Some("propagationPolicy=Melt"))
                .delete_options(None)
                .unwrap_err()
                .code,
            422
        );
    }
}
