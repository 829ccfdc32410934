//! Label and field selectors: what `-l` and `--field-selector` of a list or a watch mean.
//!
//! Parsed once per request by [`super::query`], then asked for every object by the registry's list and by each watch.

mod field;
mod label;

use serde_json::Value;

pub use field::FieldSelector;
pub use label::LabelSelector;

use crate::resources::Resource;

/// Why a selector could not be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// The text is not a selector.
    #[error("unable to parse requirement: {0}")]
    Syntax(String),
    /// The resource cannot be selected by this field.
    #[error("field label not supported: {0}")]
    Field(String),
}

/// Both selectors of a request; the default selects everything.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// By label.
    pub labels: LabelSelector,
    /// By field.
    pub fields: FieldSelector,
}

impl Selection {
    /// Whether every object is selected, so that none has to be decoded.
    pub fn is_everything(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// Whether the answer depends on the object's name and namespace alone.
    pub fn needs_object(&self) -> bool {
        !self.labels.is_empty() || self.fields.needs_object()
    }

    /// Whether `object` is selected.
    pub fn matches(&self, resource: &Resource, object: &Value) -> bool {
        self.labels.matches(object) && self.fields.matches(resource, object)
    }
}
