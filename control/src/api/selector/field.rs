//! Field selectors: `status.phase=Running,spec.nodeName!=node-a`.
//!
//! Each resource names the fields it can be selected by; `metadata.name` and `metadata.namespace` always are. A path
//! that is missing in an object has the empty value, as in Kubernetes.

use serde_json::Value;

use super::SelectorError;
use crate::resources::Resource;

const NAME: &str = "metadata.name";
const NAMESPACE: &str = "metadata.namespace";

/// A list of comparisons that must all hold; none means everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {
    terms: Vec<Term>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Term {
    field: String,
    value: String,
    equal: bool,
}

impl FieldSelector {
    /// Reads the text of a `fieldSelector` parameter for `resource`.
    pub fn parse(text: &str, resource: &Resource) -> Result<Self, SelectorError> {
        Self::parse_with(text, |field| resource.is_selectable(field))
    }

    fn parse_with(text: &str, known: impl Fn(&str) -> bool) -> Result<Self, SelectorError> {
        let mut terms = Vec::new();
        for part in split(text)? {
            if part.is_empty() {
                continue;
            }
            let (field, value, equal) = comparison(&part)?;
            if !known(&field) {
                return Err(SelectorError::Field(field));
            }
            terms.push(Term { field, value, equal });
        }
        Ok(Self { terms })
    }

    /// Whether everything is selected.
    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// Whether a field beyond `metadata.name` and `metadata.namespace` is looked at.
    pub fn needs_object(&self) -> bool {
        self.terms
            .iter()
            .any(|term| term.field != NAME && term.field != NAMESPACE)
    }

    /// Selects only objects of this name, beyond what is asked already.
    pub fn pin_name(&mut self, name: &str) {
        self.terms.push(Term {
            field: NAME.to_owned(),
            value: name.to_owned(),
            equal: true,
        });
    }

    /// Whether an object of this name and namespace can be selected at all, looking at nothing else.
    pub fn may_match(&self, namespace: &str, name: &str) -> bool {
        self.terms.iter().all(|term| {
            let actual = if term.field == NAME {
                name
            } else if term.field == NAMESPACE {
                namespace
            } else {
                return true;
            };
            (actual == term.value) == term.equal
        })
    }

    /// Whether the fields of `object` fit.
    pub fn matches(&self, resource: &Resource, object: &Value) -> bool {
        self.matches_with(|field| resource.selectable_value(object, field))
    }

    fn matches_with(&self, value: impl Fn(&str) -> String) -> bool {
        self.terms
            .iter()
            .all(|term| (value(&term.field) == term.value) == term.equal)
    }
}

/// Splits at commas; `\` keeps the next character as it is.
fn split(text: &str) -> Result<Vec<String>, SelectorError> {
    let mut parts = vec![String::new()];
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            ',' => parts.push(String::new()),
            '\\' => {
                let part = parts.last_mut().expect("there is always a part");
                part.push('\\');
                let next = chars.next();
                part.push(next.ok_or_else(|| SelectorError::Syntax(format!("{text:?} ends in a backslash")))?);
            }
            c => parts.last_mut().expect("there is always a part").push(c),
        }
    }
    Ok(parts)
}

fn comparison(part: &str) -> Result<(String, String, bool), SelectorError> {
    for (operator, equal) in [("!=", false), ("==", true), ("=", true)] {
        if let Some((path, value)) = part.split_once(operator) {
            return Ok((path.trim().to_owned(), unescape(value)?, equal));
        }
    }
    Err(SelectorError::Syntax(format!(
        "invalid selector: '{part}'; can't understand '{part}'"
    )))
}

fn unescape(text: &str) -> Result<String, SelectorError> {
    let mut plain = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(c) if "\\,=".contains(c) => plain.push(c),
                _ => return Err(SelectorError::Syntax(format!("invalid escape in {text:?}"))),
            },
            '=' => return Err(SelectorError::Syntax(format!("unescaped '=' in {text:?}"))),
            c => plain.push(c),
        }
    }
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::resources::object;

    fn parse(text: &str) -> Result<FieldSelector, SelectorError> {
        FieldSelector::parse_with(text, |field| field.starts_with("metadata.") || field == "status.phase")
    }

    fn selects(text: &str, object: &Value) -> bool {
        parse(text)
            .unwrap()
            .matches_with(|field| object::text_at(object, field))
    }

    #[test]
    fn comparisons_hold_for_all_terms() {
        let pod = json!({ "metadata": { "name": "a", "namespace": "n" }, "status": { "phase": "Running" } });
        for (text, fits) in [
            ("", true),
            ("metadata.name=a", true),
            ("metadata.name==a", true),
            ("metadata.name=b", false),
            ("metadata.name!=b,status.phase=Running", true),
            ("status.phase!=Running", false),
            ("metadata.namespace=n,metadata.name=a", true),
        ] {
            assert_eq!(selects(text, &pod), fits, "{text}");
        }
    }

    #[test]
    fn a_missing_field_is_the_empty_string() {
        let pod = json!({ "metadata": { "name": "a" } });
        assert!(selects("status.phase=", &pod));
        assert!(selects("status.phase!=Running", &pod));
    }

    #[test]
    fn unknown_fields_and_bad_syntax_are_refused() {
        assert_eq!(parse("spec.foo=1"), Err(SelectorError::Field("spec.foo".to_owned())));
        for text in [
            "metadata.name",
            "metadata.name=a=b",
            "metadata.name=a\\",
            "metadata.name=a\\b",
        ] {
            assert!(matches!(parse(text), Err(SelectorError::Syntax(_))), "{text}");
        }
    }

    #[test]
    fn escapes_keep_commas_in_values() {
        assert!(selects(
            "metadata.name=a\\,b\\=c",
            &json!({ "metadata": { "name": "a,b=c" } })
        ));
    }

    #[test]
    fn the_name_alone_decides_without_the_object() {
        let selector = parse("metadata.name=a,status.phase=Running").unwrap();
        assert!(selector.needs_object() && selector.may_match("n", "a") && !selector.may_match("n", "b"));
        assert!(!parse("metadata.name=a").unwrap().needs_object());
    }
}
