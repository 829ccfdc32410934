//! Tells code, comments and literals of a Rust file apart, line by line, for the rules of `tidy`.
//!
//! Not a parser: a small lexer that knows line and (nested) block comments, strings, raw strings, byte strings,
//! characters and lifetimes. Literals are blanked in both views.

/// A file twice, with the same lines: only its code, and only its comments; everything else is blank.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Source {
    pub(crate) code: String,
    pub(crate) comments: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Code,
    Comment,
    Literal,
}

impl Source {
    /// Splits a file.
    pub(crate) fn split(text: &str) -> Self {
        let characters: Vec<char> = text.chars().collect();
        let mut source = Self {
            code: String::new(),
            comments: String::new(),
        };
        let mut at = 0;
        while at < characters.len() {
            let (kind, length) = token(&characters, at);
            for &character in &characters[at..at + length] {
                source.push(character, kind);
            }
            at += length;
        }
        source
    }

    fn push(&mut self, character: char, kind: Kind) {
        let blank = |wanted| {
            if kind == wanted || character == '\n' {
                character
            } else {
                ' '
            }
        };
        self.code.push(blank(Kind::Code));
        self.comments.push(blank(Kind::Comment));
    }
}

/// The kind and the length of what starts at `at`.
fn token(text: &[char], at: usize) -> (Kind, usize) {
    let rest = &text[at..];
    let starts = |word: &str| {
        word.chars()
            .enumerate()
            .all(|(i, character)| rest.get(i) == Some(&character))
    };
    let in_word = at > 0 && is_word(text[at - 1]);
    if starts("//") {
        return (
            Kind::Comment,
            rest.iter().position(|&c| c == '\n').unwrap_or(rest.len()),
        );
    }
    if starts("/*") {
        return (Kind::Comment, block_comment(rest));
    }
    if rest[0] == '"' {
        return (Kind::Literal, quoted(rest, '"'));
    }
    if !in_word && let Some(length) = raw_string(rest) {
        return (Kind::Literal, length);
    }
    if rest[0] == '\'' {
        return character_or_lifetime(rest);
    }
    (Kind::Code, 1)
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

fn block_comment(rest: &[char]) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < rest.len() {
        match (rest[at], rest.get(at + 1)) {
            ('/', Some('*')) => {
                depth += 1;
                at += 2;
            }
            ('*', Some('/')) => {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    return at;
                }
            }
            _ => at += 1,
        }
    }
    rest.len()
}

/// The length of a literal that starts and ends with `quote`, both included.
fn quoted(rest: &[char], quote: char) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            '\\' => at += 2,
            found if found == quote => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// `r"..."`, `r#"..."#`, `br"..."`, `cr"..."`; the plain `b"..."` is handled as a word and a string.
fn raw_string(rest: &[char]) -> Option<usize> {
    let prefix = match (rest[0], rest.get(1)) {
        ('r', _) => 1,
        ('b' | 'c', Some('r')) => 2,
        _ => return None,
    };
    let hashes = rest[prefix..].iter().take_while(|&&c| c == '#').count();
    let open = prefix + hashes;
    if rest.get(open) != Some(&'"') {
        return None;
    }
    let close: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
    let body = &rest[open + 1..];
    let end = body
        .windows(close.len())
        .position(|window| window == close)
        .unwrap_or(body.len());
    Some((open + 1 + end + close.len()).min(rest.len()))
}

fn character_or_lifetime(rest: &[char]) -> (Kind, usize) {
    match (rest.get(1), rest.get(2)) {
        (Some('\\'), _) => (Kind::Literal, quoted(rest, '\'')),
        (Some(_), Some('\'')) => (Kind::Literal, 3),
        _ => (Kind::Code, 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_leave_the_code_view() {
        let source = Source::split("let a = \"unsafe // no\"; // unsafe here\n/* b /* c */ unsafe */ fn f() {}\n");
        assert!(!source.code.contains("unsafe"));
        assert!(source.code.contains("let a =") && source.code.contains("fn f() {}"));
        assert_eq!(source.comments.matches("unsafe").count(), 2);
        assert!(!source.comments.contains("no"));
    }

    #[test]
    fn raw_strings_characters_and_lifetimes_do_not_confuse_it() {
        let text = "fn f<'a>(x: &'a str) -> char { let _ = r#\"a \" // \"#; let _ = '\"'; let _ = '\\''; 'z' } // end";
        let source = Source::split(text);
        assert!(source.code.contains("fn f<'a>(x: &'a str)"));
        assert_eq!(source.comments.trim(), "// end");
        assert_eq!(source.code.len(), text.len());
    }

    #[test]
    fn lines_stay_where_they_were() {
        let source = Source::split("a\n\"x\ny\"\nb // c\n");
        assert_eq!(source.code.lines().nth(3), Some("b     "));
        assert_eq!(source.comments.lines().count(), 4);
    }
}
