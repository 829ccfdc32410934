//! Bearer tokens from a file, in the format of kube-apiserver's `--token-auth-file`.
//!
//! One line per token: `token,user,uid[,"group1,group2"]`. Empty lines and lines that start with `#` mean nothing.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::Identity;

/// Why a token file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// It cannot be read.
    #[error("cannot read the token file {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A line is not of the right form.
    #[error("line {line} of the token file: expected token,user,uid[,\"group1,group2\"]")]
    Line {
        /// Counted from 1.
        line: usize,
    },
}

/// Known tokens and whose they are.
#[derive(Clone, Default)]
pub struct Tokens {
    known: HashMap<String, Identity>,
}

impl Tokens {
    /// Reads a token file.
    pub fn load(path: &Path) -> Result<Self, TokenError> {
        let text = std::fs::read_to_string(path).map_err(|source| TokenError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(&text)
    }

    /// Reads the text of a token file.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let mut known = HashMap::new();
        for (index, line) in text.lines().map(str::trim).enumerate() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (token, identity) = parse_line(line).ok_or(TokenError::Line { line: index + 1 })?;
            known.insert(token, identity);
        }
        Ok(Self { known })
    }

    pub(super) fn find(&self, token: &str) -> Option<&Identity> {
        self.known.get(token)
    }
}

fn parse_line(line: &str) -> Option<(String, Identity)> {
    let mut parts = line.splitn(4, ',').map(str::trim);
    let (token, user, _uid) = (parts.next()?, parts.next()?, parts.next()?);
    if token.is_empty() || user.is_empty() {
        return None;
    }
    let groups = parts.next().unwrap_or_default().trim_matches('"');
    let groups = groups
        .split(',')
        .map(str::trim)
        .filter(|group| !group.is_empty())
        .map(str::to_owned)
        .collect();
    Some((token.to_owned(), Identity::new(user.to_owned(), groups)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_name_token_user_and_groups() {
        let tokens = Tokens::parse("# people\n\nabc,ann,1\ndef,bob,2,\"a,b\"\n").unwrap();
        assert_eq!(tokens.find("abc").map(|ann| ann.user.as_str()), Some("ann"));
        assert_eq!(tokens.find("def").map(|bob| bob.groups.len()), Some(3));
        assert!(tokens.find("").is_none());
    }

    #[test]
    fn a_bad_line_is_named() {
        let error = Tokens::parse("abc,ann,1\nnonsense\n")
            .err()
            .expect("the second line has no user");
        assert!(error.to_string().starts_with("line 2 "), "{error}");
    }
}
