//! ServiceAccount: a name that Pods run under.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::strategy::Strategy;
use super::table::{AGE, NAME, text};
use super::{Column, duration, object};

/// What `kubectl get serviceaccounts` shows.
pub(super) const COLUMNS: &[Column] = &[NAME, text("Secrets", "How many Secrets the account may use."), AGE];

/// Printing of ServiceAccounts.
pub(super) struct ServiceAccountStrategy;

impl Strategy for ServiceAccountStrategy {
    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let name = object::str_at(object, "metadata.name");
        let secrets = object::array_at(object, "secrets").len();
        vec![json!(name), json!(secrets), json!(duration::age(object, now))]
    }
}
