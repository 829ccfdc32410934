//! Strategic merge patch: what `kubectl apply`, `edit`, `label` and `set` send for built-in kinds.
//!
//! A merge patch, except that lists whose items have an identity are merged item by item. Which lists, and by which
//! key, [`crate::resources`] knows per kind. On top of that a patch may hold directives:
//!
//! | directive | where | meaning |
//! | --- | --- | --- |
//! | `$patch: replace` | map, or an item of a list | the map, or the whole list, becomes what the patch says |
//! | `$patch: delete` | map, or an item of a list | the map is emptied, or the item with that key goes |
//! | `$patch: merge` | map | what happens anyway |
//! | `$retainKeys: [a, b]` | map | keys of the object that are not listed go first |
//! | `$deleteFromPrimitiveList/f: [x]` | beside list `f` | these values go from `f` |
//! | `$setElementOrder/f: [..]` | beside list `f` | the order of the items of `f` afterwards |
//!
//! Example, for a list keyed by `port`: on `[{port: 80, name: a}, {port: 81, name: b}]` the patch
//! `{"$setElementOrder/ports": [{"port": 82}, {"port": 80}], "ports": [{"port": 82}, {"$patch": "delete", "port": 81}]}`
//! gives `[{port: 82}, {port: 80, name: a}]`.

use serde_json::{Map, Value};

use crate::resources::{self, Merge, Resource};

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";
const ORDER: &str = "$setElementOrder/";

/// Why a strategic merge patch cannot be applied.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum StrategicError {
    /// A directive with a value it cannot have.
    #[error("invalid directive {directive} at {path}: {value}")]
    Directive {
        directive: String,
        path: String,
        value: String,
    },
    /// An item of a keyed list does not say which one it is.
    #[error("an item of {path} does not contain declared merge key {key}")]
    NoKey { path: String, key: String },
}

type Result<T> = std::result::Result<T, StrategicError>;

/// `current` with `patch` applied, by the list keys of `resource`.
pub(super) fn merge(resource: &Resource, current: &Value, patch: &Value) -> Result<Value> {
    let merger = Merger {
        kind_of: &|path| resources::merge_strategy(resource, path),
    };
    merger.value(&mut Vec::new(), Some(current), patch)
}

struct Merger<'a> {
    kind_of: &'a dyn Fn(&[&str]) -> Merge,
}

impl Merger<'_> {
    fn value<'p>(&self, path: &mut Vec<&'p str>, current: Option<&Value>, patch: &'p Value) -> Result<Value> {
        match patch {
            Value::Object(patch) => self
                .map(path, current.and_then(Value::as_object), patch)
                .map(Value::Object),
            Value::Array(patch) => {
                let current = current.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
                self.list(path, current, patch).map(Value::Array)
            }
            scalar => Ok(scalar.clone()),
        }
    }

    fn map<'p>(
        &self,
        path: &mut Vec<&'p str>,
        current: Option<&Map<String, Value>>,
        patch: &'p Map<String, Value>,
    ) -> Result<Map<String, Value>> {
        let mut result = match patch.get(PATCH).map(Value::as_str) {
            None | Some(Some("merge")) => current.cloned().unwrap_or_default(),
            Some(Some("replace")) => Map::new(),
            Some(Some("delete")) => return Ok(Map::new()),
            Some(_) => return Err(bad_directive(PATCH, path, &patch[PATCH])),
        };
        if let Some(keep) = patch.get(RETAIN_KEYS) {
            let keep = keep.as_array().ok_or_else(|| bad_directive(RETAIN_KEYS, path, keep))?;
            result.retain(|key, _| keep.iter().any(|kept| kept == key));
        }
        for (key, value) in patch.iter().filter(|(key, _)| !key.starts_with('$')) {
            if value.is_null() {
                result.remove(key);
                continue;
            }
            path.push(key);
            let merged = self.value(path, result.get(key), value)?;
            path.pop();
            if value.get(PATCH).is_some_and(|directive| directive == "delete") {
                result.remove(key);
            } else {
                result.insert(key.clone(), merged);
            }
        }
        self.list_directives(path, &mut result, patch)?;
        Ok(result)
    }

    /// `$deleteFromPrimitiveList/x` and `$setElementOrder/x` stand beside `x`.
    fn list_directives<'p>(
        &self,
        path: &mut Vec<&'p str>,
        result: &mut Map<String, Value>,
        patch: &'p Map<String, Value>,
    ) -> Result<()> {
        for (directive, values) in patch.iter().filter(|(key, _)| key.starts_with('$')) {
            let field = directive
                .strip_prefix(DELETE_FROM)
                .or_else(|| directive.strip_prefix(ORDER));
            let Some(field) = field else { continue };
            let values = values
                .as_array()
                .ok_or_else(|| bad_directive(directive, path, values))?;
            let Some(list) = result.get_mut(field).and_then(Value::as_array_mut) else {
                continue;
            };
            if directive.starts_with(DELETE_FROM) {
                list.retain(|item| !values.contains(item));
                continue;
            }
            path.push(field);
            let kind = (self.kind_of)(path);
            let key = if let Merge::ByKey(key) = kind { Some(key) } else { None };
            path.pop();
            *list = in_order(std::mem::take(list), values, key);
        }
        Ok(())
    }

    fn list<'p>(&self, path: &mut Vec<&'p str>, current: &[Value], patch: &'p [Value]) -> Result<Vec<Value>> {
        match (self.kind_of)(path) {
            Merge::ByKey(key) => self.keyed(path, key, current, patch),
            Merge::Set => {
                let mut result = current.to_vec();
                for item in patch {
                    if !result.contains(item) {
                        result.push(item.clone());
                    }
                }
                Ok(result)
            }
            Merge::Replace => Ok(patch.iter().map(without_directives).collect()),
        }
    }

    fn keyed<'p>(
        &self,
        path: &mut Vec<&'p str>,
        key: &str,
        current: &[Value],
        patch: &'p [Value],
    ) -> Result<Vec<Value>> {
        let directive = |item: &Value| item.get(PATCH).and_then(Value::as_str).map(str::to_owned);
        let replace = patch.iter().any(|item| directive(item).as_deref() == Some("replace"));
        let mut result = if replace { Vec::new() } else { current.to_vec() };
        for item in patch {
            if directive(item).as_deref() == Some("replace") && item.get(key).is_none() {
                continue;
            }
            let id = item.get(key).ok_or_else(|| StrategicError::NoKey {
                path: path.join("."),
                key: key.to_owned(),
            })?;
            let at = result.iter().position(|candidate| candidate.get(key) == Some(id));
            if directive(item).as_deref() == Some("delete") {
                result.retain(|candidate| candidate.get(key) != Some(id));
                continue;
            }
            let merged = self.value(path, at.map(|at| &result[at]), item)?;
            match at {
                Some(at) => result[at] = merged,
                None => result.push(merged),
            }
        }
        Ok(in_order(result, patch, Some(key)))
    }
}

/// `items` with those that `order` names in its order, and the others where they stood relative to them.
fn in_order(items: Vec<Value>, order: &[Value], key: Option<&str>) -> Vec<Value> {
    let same = |a: &Value, b: &Value| match key {
        Some(key) => a.get(key).is_some() && a.get(key) == b.get(key),
        None => a == b,
    };
    let rank = |item: &Value| order.iter().position(|wanted| same(item, wanted));
    let (mut named, mut others): (Vec<_>, Vec<_>) = items
        .into_iter()
        .enumerate()
        .map(|(at, item)| (at, rank(&item), item))
        .partition(|(_, rank, _)| rank.is_some());
    named.sort_by_key(|(_, rank, _)| *rank);
    let mut result = Vec::with_capacity(named.len() + others.len());
    let (mut named, mut others) = (named.drain(..).peekable(), others.drain(..).peekable());
    // Items the order does not mention stay before a named item that stood behind them.
    while let (Some((named_at, ..)), Some((other_at, ..))) = (named.peek(), others.peek()) {
        let next = if other_at < named_at {
            others.next()
        } else {
            named.next()
        };
        result.extend(next.map(|(_, _, item)| item));
    }
    result.extend(named.chain(others).map(|(_, _, item)| item));
    result
}

/// An item of an atomic list as it is stored: its directives mean nothing here and must not be kept.
fn without_directives(item: &Value) -> Value {
    match item {
        Value::Object(map) => {
            let kept = map
                .iter()
                .filter(|(key, value)| !key.starts_with('$') && !value.is_null());
            Value::Object(
                kept.map(|(key, value)| (key.clone(), without_directives(value)))
                    .collect(),
            )
        }
        Value::Array(items) => items.iter().map(without_directives).collect(),
        scalar => scalar.clone(),
    }
}

fn bad_directive(directive: &str, path: &[&str], value: &Value) -> StrategicError {
    StrategicError::Directive {
        directive: directive.to_owned(),
        path: path.join("."),
        value: value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn merged(current: Value, patch: Value) -> Result<Value> {
        let kind_of = |path: &[&str]| match path {
            ["ports"] | ["spec", "ports"] => Merge::ByKey("port"),
            ["spec", "ports", "sub"] => Merge::ByKey("name"),
            ["finalizers"] => Merge::Set,
            _ => Merge::Replace,
        };
        Merger { kind_of: &kind_of }.value(&mut Vec::new(), Some(&current), &patch)
    }

    fn gives(current: Value, patch: Value, expected: Value) {
        assert_eq!(
            merged(current.clone(), patch.clone()),
            Ok(expected),
            "{patch} on {current}"
        );
    }

    #[test]
    fn maps_merge_and_null_removes() {
        gives(
            json!({"a": {"b": 1, "c": 2}}),
            json!({"a": {"b": null, "d": {"e": null, "f": 1}}}),
            json!({"a": {"c": 2, "d": {"f": 1}}}),
        );
    }

    #[test]
    fn keyed_lists_merge_by_key_and_new_items_come_last() {
        let current = json!({"ports": [{"port": 80, "name": "a"}, {"port": 81, "name": "b"}]});
        gives(
            current,
            json!({"ports": [{"port": 81, "name": "c"}, {"port": 82}]}),
            json!({"ports": [{"port": 80, "name": "a"}, {"port": 81, "name": "c"}, {"port": 82}]}),
        );
    }

    #[test]
    fn atomic_lists_are_replaced() {
        gives(
            json!({"list": [1, 2]}),
            json!({"list": [3, {"a": null, "$patch": "x"}]}),
            json!({"list": [3, {}]}),
        );
    }

    #[test]
    fn items_are_deleted_by_key() {
        gives(
            json!({"ports": [{"port": 80}, {"port": 81}]}),
            json!({"ports": [{"$patch": "delete", "port": 80}]}),
            json!({"ports": [{"port": 81}]}),
        );
    }

    #[test]
    fn a_list_or_a_map_can_be_replaced() {
        gives(
            json!({"ports": [{"port": 80}, {"port": 81}]}),
            json!({"ports": [{"port": 90}, {"$patch": "replace"}]}),
            json!({"ports": [{"port": 90}]}),
        );
        gives(
            json!({"a": {"b": 1}}),
            json!({"a": {"$patch": "replace", "c": 2}}),
            json!({"a": {"c": 2}}),
        );
        gives(
            json!({"a": {"b": 1}, "x": 1}),
            json!({"a": {"$patch": "delete"}}),
            json!({"x": 1}),
        );
    }

    #[test]
    fn sets_unite_and_lose_what_is_named() {
        gives(
            json!({"finalizers": ["a", "b"]}),
            json!({"$deleteFromPrimitiveList/finalizers": ["a"], "finalizers": ["c", "b"]}),
            json!({"finalizers": ["b", "c"]}),
        );
    }

    #[test]
    fn element_order_is_obeyed() {
        gives(
            json!({"ports": [{"port": 80, "name": "a"}, {"port": 81, "name": "b"}]}),
            json!({
                "$setElementOrder/ports": [{"port": 82}, {"port": 80}],
                "ports": [{"port": 82}, {"$patch": "delete", "port": 81}],
            }),
            json!({"ports": [{"port": 82}, {"port": 80, "name": "a"}]}),
        );
        gives(
            json!({"finalizers": ["a", "b", "c"]}),
            json!({"$setElementOrder/finalizers": ["c", "a"]}),
            json!({"finalizers": ["b", "c", "a"]}),
        );
    }

    #[test]
    fn items_nobody_mentions_keep_their_place() {
        gives(
            json!({"ports": [{"port": 1}, {"port": 2}, {"port": 3}]}),
            json!({"$setElementOrder/ports": [{"port": 2}, {"port": 3}, {"port": 4}], "ports": [{"port": 4}]}),
            json!({"ports": [{"port": 1}, {"port": 2}, {"port": 3}, {"port": 4}]}),
        );
    }

    #[test]
    fn retained_keys_survive_alone() {
        gives(
            json!({"strategy": {"rollingUpdate": {"x": 1}, "type": "Rolling"}}),
            json!({"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}),
            json!({"strategy": {"type": "Recreate"}}),
        );
    }

    #[test]
    fn nested_keyed_lists_find_their_way() {
        gives(
            json!({"spec": {"ports": [{"port": 1, "sub": [{"name": "a", "x": 1}]}]}}),
            json!({"spec": {"ports": [{"port": 1, "sub": [{"name": "b"}]}]}}),
            json!({"spec": {"ports": [{"port": 1, "sub": [{"name": "a", "x": 1}, {"name": "b"}]}]}}),
        );
    }

    /// Maps of maps, with a null here and there.
    fn tree() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            "[a-c]{0,2}".prop_map(Value::from)
        ];
        leaf.prop_recursive(3, 20, 4, |inner| {
            prop::collection::btree_map("[a-d]", inner, 0..4).prop_map(|map| Value::Object(map.into_iter().collect()))
        })
    }

    proptest! {
        #[test]
        fn without_lists_it_is_a_merge_patch(current in tree(), patch in tree()) {
            prop_assume!(current.is_object() && patch.is_object());
            let mut expected = current.clone();
            json_patch::merge(&mut expected, &patch);
            prop_assert_eq!(merged(current, patch), Ok(expected));
        }
    }

    #[test]
    fn mistakes_are_named() {
        let no_key = merged(json!({}), json!({"ports": [{"name": "a"}]})).unwrap_err();
        assert_eq!(
            no_key.to_string(),
            "an item of ports does not contain declared merge key port"
        );
        assert!(merged(json!({}), json!({"a": {"$patch": "melt"}})).is_err());
        assert!(merged(json!({}), json!({"a": {"$retainKeys": "x"}})).is_err());
    }
}
