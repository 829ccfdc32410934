//! The rules about what stands in a file. Each takes a path (relative to the workspace) and a text.

use super::Finding;
use super::source::Source;

/// A file says what it does before anything else.
const HEAD: usize = 12;
/// From here on a file is named in the output, and from [`TOO_LONG`] on refused.
const LONG: usize = 600;
const TOO_LONG: usize = 800;
/// Files that may be longer, with the reason.
const MAY_BE_LONG: &[(&str, &str)] = &[];
/// Where `unsafe` may stand: prefixes of paths, with the reason.
const UNSAFE: &[(&str, &str)] = &[
    (
        "proxy-ebpf/src/bpf/",
        "the kernel's interface: packet access, maps, helpers",
    ),
    (
        "proxy-ebpf/src/abi/mod.rs",
        "the macro that grants `Pod` after asserting the layout",
    ),
    ("proxy-agent/src/datapath/bpf", "the bpf(2) calls that aya lacks"),
    (
        "tests/suites/socket_path/bench.rs",
        "system calls without a wrapper: iterators, MPTCP sockets, cookies",
    ),
];
/// How many lines above an `unsafe` its argument may begin.
const SAFETY_WINDOW: usize = 8;
const WIRE: &str = "proxy-ebpf/src/wire.rs";
const VERDICT: &str = "proxy-ebpf/src/verdict.rs";
const UNFINISHED: &[&str] = &["todo!", "unimplemented!", "#[ignore", "allow(dead_code)"];
const MARKS: &[&str] = &["FIXME", "XXX", "TODO"];
const BYTE_ORDER: &[&str] = &["to_be", "from_be", "swap_bytes"];
/// In the data path these are conversions too; elsewhere they make addresses from numbers.
const BYTE_ARRAYS: &[&str] = &["to_be_bytes", "from_be_bytes"];

/// All rules for a Rust file.
pub(crate) fn rust(path: &str, text: &str) -> Vec<Finding> {
    let source = Source::split(text);
    let mut findings = Vec::new();
    findings.extend(head(path, text));
    findings.extend(too_long(path, text));
    findings.extend(unfinished(path, &source.code));
    findings.extend(marks(path, &source.comments));
    findings.extend(unsafe_code(path, &source));
    findings.extend(actions(path, &source.code));
    findings.extend(byte_order(path, &source.code));
    findings
}

fn head(path: &str, text: &str) -> Option<Finding> {
    let found = text.lines().take(HEAD).any(|line| line.starts_with("//!"));
    (!found).then(|| {
        finding(
            path,
            1,
            "does not open with `//!`: say what it does, who calls it, what comes next",
        )
    })
}

/// A note about a file that should soon become two.
pub(crate) fn long(path: &str, text: &str) -> Option<String> {
    let lines = text.lines().count();
    let long = path.ends_with(".rs") && (LONG + 1..=TOO_LONG).contains(&lines);
    long.then(|| format!("{path} has {lines} lines: is it two ideas?"))
}

fn too_long(path: &str, text: &str) -> Option<Finding> {
    let lines = text.lines().count();
    let excused = MAY_BE_LONG.iter().any(|(listed, _)| *listed == path);
    (lines > TOO_LONG && !excused).then(|| {
        finding(
            path,
            0,
            &format!("has {lines} lines (limit {TOO_LONG}): split it by idea"),
        )
    })
}

fn unfinished(path: &str, code: &str) -> Vec<Finding> {
    lines_with(code, UNFINISHED)
        .map(|(line, what)| finding(path, line, &format!("`{what}`: finish it, or leave it out")))
        .collect()
}

/// Marks of unfinished work in comments, or anywhere in a file that is not Rust.
pub(crate) fn marks(path: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, line) in text.lines().enumerate() {
        for mark in MARKS.iter().filter(|mark| has_word(line, mark)) {
            findings.push(finding(
                path,
                index + 1,
                &format!("`{mark}`: do it, or say in docs/ why not"),
            ));
        }
    }
    findings
}

fn unsafe_code(path: &str, source: &Source) -> Vec<Finding> {
    let allowed = UNSAFE.iter().any(|(prefix, _)| path.starts_with(prefix));
    let comments: Vec<&str> = source.comments.lines().collect();
    let mut findings = Vec::new();
    for (index, line) in source.code.lines().enumerate() {
        // `#[unsafe(no_mangle)]` is an attribute and `unsafe_code` a lint: neither runs anything.
        if !has_word(&line.replace("#[unsafe(", ""), "unsafe") {
            continue;
        }
        let documented = comments[index.saturating_sub(SAFETY_WINDOW)..=index]
            .iter()
            .any(|comment| comment.contains("SAFETY:") || comment.contains("# Safety"));
        if !allowed {
            findings.push(finding(
                path,
                index + 1,
                "`unsafe` outside the files that may hold it (xtask/src/tidy/rules.rs)",
            ));
        } else if !documented {
            findings.push(finding(
                path,
                index + 1,
                "`unsafe` without a `// SAFETY:` argument above it",
            ));
        }
    }
    findings
}

/// Action numbers are named once; who compares with one takes the name from there.
fn actions(path: &str, code: &str) -> Vec<Finding> {
    let names = ["XDP_ABORTED", "XDP_DROP", "XDP_PASS", "XDP_TX", "XDP_REDIRECT"];
    let is_action = |line: &str| line.contains("TC_ACT_") || names.iter().any(|name| has_word(line, name));
    let defines = |line: &str| line.contains("const ") || line.contains("static ");
    let imported = code.contains("verdict::");
    lines_where(code, |line| {
        path != VERDICT && is_action(line) && (!imported || defines(line))
    })
    .map(|line| {
        finding(
            path,
            line,
            &format!("an action number: {VERDICT} names them, use its names or a Verdict"),
        )
    })
    .collect()
}

fn byte_order(path: &str, code: &str) -> Vec<Finding> {
    let forbidden: Vec<&str> = match path {
        WIRE => Vec::new(),
        _ if path.starts_with("proxy-ebpf/src/") => [BYTE_ORDER, BYTE_ARRAYS].concat(),
        _ if path.starts_with("proxy-agent/src/") => BYTE_ORDER.to_vec(),
        _ => Vec::new(),
    };
    // Tests at the end of a file may write packets as they lie on the wire.
    let code = code.split("#[cfg(test)]").next().unwrap_or(code);
    lines_where(code, |line| forbidden.iter().any(|name| has_word(line, name)))
        .map(|line| {
            finding(
                path,
                line,
                &format!("a conversion of byte order: use the types of {WIRE}"),
            )
        })
        .collect()
}

/// Paths of one machine.
pub(crate) fn machine_paths(path: &str, text: &str) -> Vec<Finding> {
    let places = ["work", "home"].map(|name| format!("/{name}/"));
    let absolute = |line: &str| {
        places.iter().any(|place| {
            line.match_indices(place.as_str())
                .any(|(at, _)| !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '}'))
        })
    };
    lines_where(text, absolute)
        .map(|line| finding(path, line, "an absolute path of one machine"))
        .collect()
}

/// `control` and `proxy-agent` meet at the Kubernetes API only.
pub(crate) fn dependencies(path: &str, text: &str) -> Vec<Finding> {
    let forbidden = match path {
        "control/Cargo.toml" => ["proxy-agent", "proxy_agent"],
        "proxy-agent/Cargo.toml" => ["control", "control"],
        _ => return Vec::new(),
    };
    let names = |line: &str| {
        let key = line.split(['=', '.', ' ']).next().unwrap_or_default().trim_matches('"');
        forbidden.contains(&key) && line.contains('=') && !line.starts_with("name")
    };
    lines_where(text, names)
        .map(|line| {
            finding(
                path,
                line,
                "control and proxy-agent share no code: they meet at the Kubernetes API",
            )
        })
        .collect()
}

fn lines_where(text: &str, wanted: impl Fn(&str) -> bool) -> impl Iterator<Item = usize> {
    text.lines()
        .enumerate()
        .filter(move |(_, line)| wanted(line))
        .map(|(index, _)| index + 1)
}

fn lines_with<'a>(text: &'a str, words: &'a [&'a str]) -> impl Iterator<Item = (usize, &'a str)> {
    let hit = |line: &str| words.iter().copied().find(|word| line.contains(word));
    text.lines()
        .enumerate()
        .filter_map(move |(index, line)| Some((index + 1, hit(line)?)))
}

/// Whether `word` stands in `line` as a word of its own.
fn has_word(line: &str, word: &str) -> bool {
    let is_word = |character: char| character.is_alphanumeric() || character == '_';
    line.match_indices(word)
        .any(|(at, _)| !line[..at].ends_with(is_word) && !line[at + word.len()..].starts_with(is_word))
}

fn finding(path: &str, line: usize, message: &str) -> Finding {
    Finding {
        path: path.to_owned(),
        line,
        message: message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADED: &str = "//! A file.\n";
    const NONE: [usize; 0] = [];

    fn lines(findings: &[Finding]) -> Vec<usize> {
        findings.iter().map(|finding| finding.line).collect()
    }

    fn rust_lines(path: &str, body: &str) -> Vec<usize> {
        lines(&rust(path, &format!("{HEADED}{body}")))
    }

    #[test]
    fn a_good_file_has_no_findings() {
        let body = "// SAFETY: `p` is not null.\nlet a = unsafe { *p };\n";
        assert_eq!(rust_lines("proxy-ebpf/src/bpf/maps.rs", body), NONE);
    }

    #[test]
    fn a_file_without_a_head_is_found() {
        assert_eq!(lines(&rust("control/src/a.rs", "use std::fs;\n")), [1]);
        let late = format!("{}//! Late.\n", "\n".repeat(HEAD));
        assert_eq!(lines(&rust("control/src/a.rs", &late)), [1]);
    }

    #[test]
    fn long_files_are_named_and_longer_ones_refused() {
        let text = |lines: usize| format!("{HEADED}{}", "\n".repeat(lines - 1));
        assert_eq!(long("a.rs", &text(LONG)), None);
        assert!(long("a.rs", &text(LONG + 1)).is_some());
        assert_eq!(lines(&rust("a.rs", &text(TOO_LONG))), NONE);
        assert_eq!(lines(&rust("a.rs", &text(TOO_LONG + 1))), [0]);
    }

    #[test]
    fn unfinished_code_is_found_but_not_in_strings() {
        let body = "fn a() { todo!() }\n#[ignore = \"slow\"]\n#[allow(dead_code)]\nlet s = \"todo!()\";\n";
        assert_eq!(rust_lines("a.rs", body), [2, 3, 4]);
        assert_eq!(rust_lines("a.rs", "// FIXME later\nlet fixme = 1; // fine\n"), [2]);
        assert_eq!(lines(&marks("a.sh", "mktemp -d x.XXXXXX\n# XXX here\n")), [2]);
    }

    #[test]
    fn unsafe_needs_its_place_and_its_argument() {
        assert_eq!(
            rust_lines("control/src/a.rs", "// SAFETY: fine.\nunsafe { f() }\n"),
            [3]
        );
        assert_eq!(rust_lines("proxy-ebpf/src/bpf/a.rs", "unsafe { f() }\n"), [2]);
        assert_eq!(
            rust_lines(
                "proxy-ebpf/src/main.rs",
                "#[unsafe(no_mangle)]\nstatic A: u8 = 0;\n// unsafe\n"
            ),
            NONE
        );
    }

    #[test]
    fn action_numbers_live_in_one_file() {
        let body = "let a = XDP_PASS;\nlet b = TC_ACT_OK;\nlet c = XDP_FLAGS_DRV_MODE;\n";
        assert_eq!(rust_lines("proxy-ebpf/src/main.rs", body), [2, 3]);
        assert_eq!(rust_lines(VERDICT, body), NONE);
        let imported = "use proxy_ebpf::verdict::XDP_PASS;\nlet a = XDP_PASS;\nconst XDP_DROP: u32 = 1;\n";
        assert_eq!(rust_lines("tests/suites/a.rs", imported), [4]);
    }

    #[test]
    fn byte_order_is_converted_in_one_file() {
        let body = "let a = port.to_be();\nlet b = u16::from_be_bytes(c);\n";
        assert_eq!(rust_lines("proxy-ebpf/src/parse.rs", body), [2, 3]);
        assert_eq!(rust_lines(WIRE, body), NONE);
        let tested = format!("#[cfg(test)]\nmod tests {{\n{body}}}\n");
        assert_eq!(rust_lines("proxy-ebpf/src/parse.rs", &tested), NONE);
        assert_eq!(rust_lines("proxy-agent/src/a.rs", body), [2]);
        assert_eq!(rust_lines("control/src/a.rs", body), NONE);
    }

    #[test]
    fn paths_of_one_machine_are_found() {
        let (work, home) = (format!("see /{}/main\n", "work"), format!("\"/{}/me/x\"\n", "home"));
        assert_eq!(
            lines(&machine_paths(
                "a.md",
                &format!("{work}{home}https://x.example/a{}/\n", "/home")
            )),
            [1, 2]
        );
    }

    #[test]
    fn the_two_halves_do_not_depend_on_each_other() {
        assert_eq!(
            lines(&dependencies(
                "control/Cargo.toml",
                "name = \"control\"\nproxy-agent.workspace = true\n"
            )),
            [2]
        );
        assert_eq!(
            lines(&dependencies(
                "proxy-agent/Cargo.toml",
                "[dependencies]\ncontrol = { path = \"../control\" }\n"
            )),
            [2]
        );
        assert_eq!(
            lines(&dependencies("tests/Cargo.toml", "control.workspace = true\n")),
            NONE
        );
    }
}
