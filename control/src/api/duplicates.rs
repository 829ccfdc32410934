//! JSON with an eye on members that occur twice in one object.
//!
//! JSON leaves open what they mean; here the last one counts, as in Kubernetes, and [`super::handlers`] passes the
//! paths on, so that strict field validation can refuse them and the default can warn.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// The value in `bytes`, and the paths of members that occur more than once, such as `spec.ports[0].name`.
pub(super) fn parse(bytes: &[u8]) -> Result<(Value, Vec<String>), serde_json::Error> {
    let mut found = Vec::new();
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = Node {
        path: String::new(),
        found: &mut found,
    }
    .deserialize(&mut reader)?;
    reader.end()?;
    Ok((value, found))
}

/// A value that is being read at `path`.
struct Node<'a> {
    path: String,
    found: &'a mut Vec<String>,
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        loop {
            let path = format!("{}[{}]", self.path, list.len());
            match items.next_element_seed(Node {
                path,
                found: self.found,
            })? {
                Some(item) => list.push(item),
                None => return Ok(Value::Array(list)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = members.next_key::<String>()? {
            let path = if self.path.is_empty() {
                key.clone()
            } else {
                format!("{}.{key}", self.path)
            };
            let value = members.next_value_seed(Node {
                path: path.clone(),
                found: self.found,
            })?;
            if map.insert(key, value).is_some() {
                self.found.push(path);
            }
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_members_are_found_and_the_last_counts() {
        let text = br#"{"a": 1, "list": [{"b": "x", "b": "y"}], "a": {"c": null, "d": [-1, 1.5, true]}}"#;
        let (value, found) = parse(text).unwrap();
        assert_eq!(value, serde_json::from_slice::<Value>(text).unwrap());
        assert_eq!(found, ["list[0].b", "a"]);
    }

    #[test]
    fn plain_documents_read_the_same() {
        for text in [
            "null",
            "[]",
            "{}",
            "18446744073709551615",
            "\"\\u00fc\"",
            "{\"a\":{\"a\":[{\"a\":0}]}}",
        ] {
            let (value, found) = parse(text.as_bytes()).unwrap();
            assert_eq!((value, found.len()), (serde_json::from_str(text).unwrap(), 0), "{text}");
        }
        for text in ["", "{", "{} {}", "nul", "[1,]"] {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
    }
}
