//! Label selectors, both forms: `a=b,c!=d` and `env in (x,y),!old,tier`.
//!
//! `gt`/`lt` (`a>5`) exist in the grammar of Kubernetes too and are understood.

use serde_json::Value;

use super::SelectorError;

/// A list of requirements that must all hold; none means everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    key: String,
    test: Test,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Test {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    Missing,
    Above(i64),
    Below(i64),
}

impl LabelSelector {
    /// Reads the text of a `labelSelector` parameter.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut parser = Parser {
            tokens: tokens(text),
            at: 0,
        };
        let mut requirements = Vec::new();
        while parser.peek().is_some() {
            requirements.push(parser.requirement()?);
            match parser.next() {
                None => break,
                Some(Token::Comma) if parser.peek().is_some() => {}
                Some(other) => return Err(unexpected(Some(&other), "',' and another requirement, or the end")),
            }
        }
        Ok(Self { requirements })
    }

    /// Whether everything is selected.
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Whether the labels of `object` fit.
    pub fn matches(&self, object: &Value) -> bool {
        let labels = &object["metadata"]["labels"];
        self.requirements
            .iter()
            .all(|requirement| requirement.holds(labels[&requirement.key].as_str()))
    }
}

impl Requirement {
    fn holds(&self, label: Option<&str>) -> bool {
        let number = || label.and_then(|text| text.parse::<i64>().ok());
        match &self.test {
            Test::In(values) => label.is_some_and(|label| values.iter().any(|value| value == label)),
            // As in Kubernetes, an object without the label passes `!=` and `notin`.
            Test::NotIn(values) => label.is_none_or(|label| values.iter().all(|value| value != label)),
            Test::Exists => label.is_some(),
            Test::Missing => label.is_none(),
            Test::Above(bound) => number().is_some_and(|number| number > *bound),
            Test::Below(bound) => number().is_some_and(|number| number < *bound),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Comma,
    Open,
    Close,
    Not,
    Equal,
    NotEqual,
    Above,
    Below,
}

fn tokens(text: &str) -> Vec<Token> {
    let mut found = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let (token, length) = match first {
            ',' => (Token::Comma, 1),
            '(' => (Token::Open, 1),
            ')' => (Token::Close, 1),
            '>' => (Token::Above, 1),
            '<' => (Token::Below, 1),
            '!' if rest.starts_with("!=") => (Token::NotEqual, 2),
            '!' => (Token::Not, 1),
            '=' if rest.starts_with("==") => (Token::Equal, 2),
            '=' => (Token::Equal, 1),
            _ => {
                let end = rest
                    .find(|c: char| c.is_whitespace() || ",()=!<>".contains(c))
                    .unwrap_or(rest.len());
                (Token::Word(rest[..end].to_owned()), end)
            }
        };
        found.push(token);
        rest = rest[length..].trim_start();
    }
    found
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
}

impl Parser {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    fn next(&mut self) -> Option<Token> {
        let token = self.tokens.get(self.at).cloned();
        self.at += 1;
        token
    }

    fn requirement(&mut self) -> Result<Requirement, SelectorError> {
        let negated = self.peek() == Some(&Token::Not);
        if negated {
            self.at += 1;
        }
        let key = self.key()?;
        if negated {
            return Ok(Requirement {
                key,
                test: Test::Missing,
            });
        }
        if matches!(self.peek(), None | Some(Token::Comma)) {
            return Ok(Requirement {
                key,
                test: Test::Exists,
            });
        }
        let test = match self.next() {
            Some(Token::Equal) => Test::In(vec![self.value()?]),
            Some(Token::NotEqual) => Test::NotIn(vec![self.value()?]),
            Some(Token::Above) => Test::Above(self.number()?),
            Some(Token::Below) => Test::Below(self.number()?),
            Some(Token::Word(word)) if word == "in" => Test::In(self.values()?),
            Some(Token::Word(word)) if word == "notin" => Test::NotIn(self.values()?),
            other => return Err(unexpected(other.as_ref(), "'=', '!=', '==', 'in', 'notin', '>' or '<'")),
        };
        Ok(Requirement { key, test })
    }

    fn key(&mut self) -> Result<String, SelectorError> {
        match self.next() {
            Some(Token::Word(word)) if is_label_key(&word) => Ok(word),
            Some(Token::Word(word)) => Err(SelectorError::Syntax(format!("{word:?} is not a label key"))),
            other => Err(unexpected(other.as_ref(), "a label key")),
        }
    }

    /// A single value; `a=` selects the empty one.
    fn value(&mut self) -> Result<String, SelectorError> {
        if matches!(self.peek(), None | Some(Token::Comma)) {
            return Ok(String::new());
        }
        match self.next() {
            Some(Token::Word(word)) if is_label_value(&word) => Ok(word),
            Some(Token::Word(word)) => Err(SelectorError::Syntax(format!("{word:?} is not a label value"))),
            other => Err(unexpected(other.as_ref(), "a label value")),
        }
    }

    fn number(&mut self) -> Result<i64, SelectorError> {
        let text = self.value()?;
        text.parse()
            .map_err(|_| SelectorError::Syntax(format!("{text:?} is not a whole number")))
    }

    fn values(&mut self) -> Result<Vec<String>, SelectorError> {
        match self.next() {
            Some(Token::Open) => {}
            other => return Err(unexpected(other.as_ref(), "'('")),
        }
        let mut values = Vec::new();
        loop {
            if matches!(self.peek(), Some(Token::Comma | Token::Close)) {
                values.push(String::new());
            } else {
                values.push(self.value()?);
            }
            match self.next() {
                Some(Token::Comma) => {}
                Some(Token::Close) => return Ok(values),
                other => return Err(unexpected(other.as_ref(), "',' or ')'")),
            }
        }
    }
}

fn unexpected(found: Option<&Token>, wanted: &str) -> SelectorError {
    let found = match found {
        None => "the end".to_owned(),
        Some(Token::Word(word)) => format!("{word:?}"),
        Some(other) => format!("{other:?}"),
    };
    SelectorError::Syntax(format!("found {found}, expected {wanted}"))
}

/// `[prefix/]name`: the prefix a DNS name, the name like a value but not empty.
fn is_label_key(text: &str) -> bool {
    let (prefix, name) = text
        .rsplit_once('/')
        .map_or((None, text), |(prefix, name)| (Some(prefix), name));
    let prefix_fits = prefix.is_none_or(|prefix| {
        !prefix.is_empty()
            && prefix.len() <= 253
            && prefix
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.')
    });
    prefix_fits && !name.is_empty() && is_label_value(name)
}

/// At most 63 letters, digits, `-`, `_` and `.`, with a letter or digit at both ends; or nothing at all.
fn is_label_value(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let edge = |c: Option<char>| c.is_none_or(|c| c.is_ascii_alphanumeric());
    text.len() <= 63 && text.chars().all(inner) && edge(text.chars().next()) && edge(text.chars().next_back())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn selects(selector: &str, labels: Value) -> bool {
        let selector = LabelSelector::parse(selector).unwrap_or_else(|error| panic!("{selector}: {error}"));
        selector.matches(&json!({ "metadata": { "labels": labels } }))
    }

    #[test]
    fn equality_forms() {
        for (selector, fits) in [
            ("", true),
            ("a=b", true),
            ("a==b", true),
            ("a = b", true),
            ("a!=b", false),
            ("a!=c", true),
            ("none!=c", true),
            ("a=b,x=y", true),
            ("a=b,x=z", false),
            ("empty=", true),
            ("a=", false),
            ("example.com/role=web", true),
        ] {
            let labels = json!({ "a": "b", "x": "y", "empty": "", "example.com/role": "web" });
            assert_eq!(selects(selector, labels), fits, "{selector}");
        }
    }

    #[test]
    fn set_forms() {
        for (selector, fits) in [
            ("a in (b,c)", true),
            ("a in (c)", false),
            ("a notin (c,d)", true),
            ("a notin (b)", false),
            ("none notin (b)", true),
            ("none in (b)", false),
            ("a", true),
            ("none", false),
            ("!none", true),
            ("! a", false),
            ("n>5", true),
            ("n>7", false),
            ("n<8", true),
            ("a>1", false),
            ("a in (b),n,!none,x!=q", true),
            ("empty in (,z)", true),
        ] {
            let labels = json!({ "a": "b", "n": "7", "empty": "" });
            assert_eq!(selects(selector, labels), fits, "{selector}");
        }
    }

    #[test]
    fn an_object_without_labels_fits_only_negative_requirements() {
        let bare = json!({ "metadata": { "name": "x" } });
        assert!(LabelSelector::parse("!a,b!=c").unwrap().matches(&bare));
        assert!(!LabelSelector::parse("a").unwrap().matches(&bare));
    }

    proptest! {
        #[test]
        fn any_text_is_a_selector_or_an_error(text in "[a-z0-9!=<>(),. /_-]{0,24}|in|notin|a in \\(.*\\)") {
            if let Ok(selector) = LabelSelector::parse(&text) {
                selector.matches(&json!({ "metadata": { "labels": { "a": "b" } } }));
            }
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "a=b,", ",", "a in b", "a in (b", "=b", "a b", "a=(b)", "a in ()x", "a>b", "-a=b", "a=b_", "A.b/=c", "!",
        ] {
            assert!(LabelSelector::parse(text).is_err(), "{text}");
        }
    }
}
