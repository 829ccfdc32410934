//! Which files may exist: the top level, and names that say nothing.

use super::Finding;

/// What the top level holds, exactly.
const REQUIRED: &[&str] = &[
    "Cargo.toml",
    "Cargo.lock",
    "xtask",
    "proxy-ebpf",
    "proxy-agent",
    "control",
    "tests",
    "README.md",
];
/// What it may hold besides, next to licences and dotfiles.
const OPTIONAL: &[&str] = &["CHANGELOG.md", "CONTRIBUTING.md", "docs", "deploy", "target"];
/// Names under which unrelated things gather.
const VAGUE: &[&str] = &["util.rs", "utils.rs", "helper.rs", "helpers.rs", "common.rs", "misc.rs"];
/// The kernel calls what a program may call "helpers": that is what this file holds.
const NOT_VAGUE: &[&str] = &["proxy-ebpf/src/bpf/helpers.rs"];

/// Checks the names at the top level.
pub(crate) fn top_level(names: &[String]) -> Vec<Finding> {
    let missing = REQUIRED
        .iter()
        .filter(|&&required| !names.iter().any(|name| name == required));
    let missing = missing.map(|name| finding(name, "is missing at the top level"));
    let known = |name: &str| {
        REQUIRED.contains(&name)
            || OPTIONAL.contains(&name)
            || name.starts_with('.')
            || name.starts_with("LICENSE")
            || name.starts_with("NOTICE")
    };
    let surplus = names.iter().filter(|name| !known(name));
    let surplus = surplus.map(|name| {
        finding(
            name,
            "does not belong at the top level: put it into a crate, docs/ or deploy/",
        )
    });
    missing.chain(surplus).collect()
}

/// Checks the names of all files.
pub(crate) fn names(paths: &[String]) -> Vec<Finding> {
    let vague = |path: &&String| {
        let name = path.rsplit('/').next().unwrap_or(path);
        VAGUE.contains(&name) && !NOT_VAGUE.contains(&path.as_str())
    };
    paths
        .iter()
        .filter(vague)
        .map(|path| finding(path, "says nothing by its name: name the idea it holds"))
        .collect()
}

fn finding(path: &str, message: &str) -> Finding {
    Finding {
        path: path.to_owned(),
        line: 0,
        message: message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names_of(findings: &[Finding]) -> Vec<&str> {
        findings.iter().map(|finding| finding.path.as_str()).collect()
    }

    #[test]
    fn the_top_level_is_complete_and_holds_nothing_else() {
        let mut present: Vec<String> = REQUIRED.iter().map(ToString::to_string).collect();
        present.extend([".ci", "LICENSE-MIT", "docs", "target"].map(String::from));
        assert_eq!(top_level(&present), []);
        present.retain(|name| name != "README.md");
        present.push("notes.txt".to_owned());
        assert_eq!(names_of(&top_level(&present)), ["README.md", "notes.txt"]);
    }

    #[test]
    fn vague_names_are_found_anywhere() {
        let paths = [
            "control/src/utils.rs",
            "proxy-ebpf/src/bpf/helpers.rs",
            "control/src/api.rs",
        ]
        .map(String::from);
        assert_eq!(names_of(&names(&paths)), ["control/src/utils.rs"]);
    }
}
