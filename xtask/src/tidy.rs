//! The project's own checks, those no general tool knows: a part of `cargo xtask check`.
//!
//! [`check`] walks the tree once; each rule is a function from text to findings (`rules`, `links`, `layout`), with bad
//! samples as tests. What is code and what is comment is told apart by `source`.

mod layout;
mod links;
mod rules;
mod source;

use anyhow::{Context, Result, bail};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use crate::project::Project;

/// Directories that hold no sources.
const SKIPPED: &[&str] = &["target", ".git"];
/// Files read as text, by extension; those without one too.
const TEXT: &[&str] = &[
    "rs",
    "md",
    "toml",
    "yaml",
    "yml",
    "sh",
    "py",
    "json",
    "lock",
    "snap",
    "txt",
    "Dockerfile",
    "",
];

/// One thing to mend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    /// Relative to the workspace.
    pub(crate) path: String,
    /// Counted from 1; 0 speaks of the whole file.
    pub(crate) line: usize,
    /// What is wrong and what to do.
    pub(crate) message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(out, "{}: {}", self.path, self.message),
            line => write!(out, "{}:{line}: {}", self.path, self.message),
        }
    }
}

/// Checks the whole tree and prints what it finds.
///
/// # Errors
/// At least one finding.
pub(crate) fn check(project: &Project) -> Result<()> {
    let mut paths = Vec::new();
    collect(&project.root, &project.root, &mut paths)?;
    paths.sort();
    let mut findings = layout::top_level(&entries(&project.root)?);
    findings.extend(layout::names(&paths));
    for path in paths.iter().filter(|path| is_text(path)) {
        let full = project.root.join(path);
        let text = fs::read_to_string(&full).with_context(|| format!("cannot read {path} as text"))?;
        findings.extend(check_text(path, &text));
        if path.ends_with(".md") {
            findings.extend(links::check(&project.root, path, &text));
        }
        if let Some(notice) = rules::long(path, &text) {
            println!("tidy: {notice}");
        }
    }
    for finding in &findings {
        println!("tidy: {finding}");
    }
    match findings.len() {
        0 => Ok(()),
        count => bail!("tidy has {count} finding(s)"),
    }
}

fn check_text(path: &str, text: &str) -> Vec<Finding> {
    let mut findings = rules::machine_paths(path, text);
    match Path::new(path).extension().and_then(|extension| extension.to_str()) {
        Some("rs") => findings.extend(rules::rust(path, text)),
        Some("lock" | "snap" | "json") => {}
        _ => findings.extend(rules::marks(path, text)),
    }
    if path.ends_with("Cargo.toml") {
        findings.extend(rules::dependencies(path, text));
    }
    findings
}

fn is_text(path: &str) -> bool {
    let extension = Path::new(path)
        .extension()
        .map_or("", |extension| extension.to_str().unwrap_or("?"));
    TEXT.contains(&extension)
}

fn entries(directory: &Path) -> Result<Vec<String>> {
    let listing = fs::read_dir(directory)?.collect::<Result<Vec<_>, _>>()?;
    Ok(listing
        .iter()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect())
}

/// All files below `directory` as paths relative to `root`.
fn collect(root: &Path, directory: &Path, into: &mut Vec<String>) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let path: PathBuf = entry.path();
        let kind = entry.file_type()?;
        if kind.is_dir() {
            // Cargo marks its build directories, wherever they are, as caches.
            let skipped = SKIPPED.iter().any(|name| entry.file_name() == *name) || path.join("CACHEDIR.TAG").exists();
            if !skipped {
                collect(root, &path, into)?;
            }
        } else if kind.is_file() {
            into.push(path.strip_prefix(root)?.to_string_lossy().into_owned());
        }
    }
    Ok(())
}
