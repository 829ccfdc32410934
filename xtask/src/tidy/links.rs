//! Relative links in Markdown must lead somewhere.

use std::path::Path;

use super::Finding;

/// Checks the links of the file at `path` (relative to `root`).
pub(crate) fn check(root: &Path, path: &str, text: &str) -> Vec<Finding> {
    let directory = root.join(path).parent().map(Path::to_path_buf).unwrap_or_default();
    let mut findings = Vec::new();
    for (line, target) in relative(text) {
        if !directory.join(&target).exists() {
            findings.push(Finding {
                path: path.to_owned(),
                line,
                message: format!("the link to {target} leads nowhere"),
            });
        }
    }
    findings
}

/// The targets of relative links with their lines, without anchors; links in code blocks do not count.
fn relative(text: &str) -> Vec<(usize, String)> {
    let mut fenced = false;
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            found.extend(targets(line).into_iter().map(|target| (index + 1, target)));
        }
    }
    found
}

fn targets(line: &str) -> Vec<String> {
    let outside_code: String = line.split('`').step_by(2).collect::<Vec<_>>().join("``");
    let mut found = Vec::new();
    for part in outside_code.split("](").skip(1) {
        let target = part.split([')', ' ']).next().unwrap_or_default();
        let file = target.split('#').next().unwrap_or_default();
        if !file.is_empty() && !file.contains("://") && !file.starts_with("mailto:") {
            found.push(file.to_owned());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_relative_links_outside_code_are_followed() {
        let text = "[a](docs/a.md#part) [b](https://x.example/y) [c](#here)\n`[d](no)`\n```\n[e](no)\n```\n[f](../f)\n";
        assert_eq!(relative(text), [(1, "docs/a.md".to_owned()), (6, "../f".to_owned())]);
    }

    #[test]
    fn a_link_to_nothing_is_named_with_its_line() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let findings = check(root, "README.md", "fine: [x](Cargo.toml)\nbad: [y](src/absent.rs)\n");
        assert_eq!(findings.len(), 1);
        assert_eq!(
            findings[0].to_string(),
            "README.md:2: the link to src/absent.rs leads nowhere"
        );
    }
}
