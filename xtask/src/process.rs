//! Running other programs: every command goes through here, so that failures always name what was run.

use anyhow::{Context, Result, bail};
use std::env;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

/// The cargo that runs us, so that a rustup override or a cargo outside `PATH` is respected.
pub(crate) fn cargo() -> Command {
    Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// The compiler that belongs to [`cargo`]: `RUSTC` if set, the one beside cargo, or the one on `PATH`.
pub(crate) fn rustc() -> PathBuf {
    if let Some(rustc) = env::var_os("RUSTC") {
        return rustc.into();
    }
    let beside = env::var_os("CARGO").map(|cargo| Path::new(&cargo).with_file_name("rustc"));
    beside.filter(|path| path.is_file()).unwrap_or_else(|| "rustc".into())
}

/// The first file called `name` in the directories of `PATH`, then in the `sbin` ones that a user's `PATH` may lack.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|directory| directory.join(name))
        .find(|candidate| candidate.is_file())
}

/// Runs to the end with our output and error streams; a failure names the command.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("cannot run {}", describe(command)))?;
    if !status.success() {
        bail!("{} failed ({status})", describe(command));
    }
    Ok(())
}

/// Runs silently to the end; a failure names the command and shows the end of what it printed.
pub(crate) fn run_quietly(command: &mut Command) -> Result<()> {
    let output = output(command)?;
    if !output.status.success() {
        bail!(
            "{} failed ({}):\n{}",
            describe(command),
            output.status,
            last_lines(&output, 25)
        );
    }
    Ok(())
}

/// The standard output of a command that must succeed, without surrounding white space.
pub(crate) fn capture(command: &mut Command) -> Result<String> {
    let output = output(command)?;
    if !output.status.success() {
        bail!(
            "{} failed ({}):\n{}",
            describe(command),
            output.status,
            last_lines(&output, 25)
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Runs with its standard output handed over line by line (errors go to our own stream), for at most `limit`.
///
/// Gives the exit status, or none if the time was up and the child was killed. Bytes that are not text are replaced.
pub(crate) fn stream(command: &mut Command, limit: Duration, mut each: impl FnMut(&str)) -> Result<Option<ExitStatus>> {
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command
        .spawn()
        .with_context(|| format!("cannot run {}", describe(command)))?;
    let output = child.stdout.take().context("a child has no output")?;
    let deadline = Instant::now() + limit;
    let (sender, lines) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                break;
            }
        }
    });
    loop {
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => each(line.trim_end_matches('\r')),
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                child.kill()?;
                child.wait()?;
                // The reader ends by itself: a grandchild may hold the pipe open for longer.
                return Ok(None);
            }
        }
    }
    reader.join().expect("the reader does not panic");
    Ok(Some(child.wait()?))
}

/// Like [`run_quietly`], but for at most `limit`.
pub(crate) fn run_quietly_within(command: &mut Command, limit: Duration) -> Result<()> {
    match stream(command.stderr(Stdio::null()), limit, |_| {})? {
        Some(status) if status.success() => Ok(()),
        Some(status) => bail!("{} failed ({status})", describe(command)),
        None => bail!("{} took longer than {} s", describe(command), limit.as_secs()),
    }
}

/// Adds `directory` in front of the child's `PATH`.
pub(crate) fn prepend_path(command: &mut Command, directory: &Path) -> Result<()> {
    let path = env::var_os("PATH").unwrap_or_default();
    let all = std::iter::once(directory.to_path_buf()).chain(env::split_paths(&path));
    command.env("PATH", env::join_paths(all)?);
    Ok(())
}

/// The command as one would type it, for messages.
pub(crate) fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let text: Vec<_> = words.map(OsStr::to_string_lossy).collect();
    format!("`{}`", text.join(" "))
}

fn output(command: &mut Command) -> Result<Output> {
    command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {}", describe(command)))
}

fn last_lines(output: &Output, count: usize) -> String {
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    let lines: Vec<_> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn output_is_handed_over_line_by_line_with_the_exit_status() {
        let mut lines = Vec::new();
        let status = stream(
            &mut shell("printf 'a\\r\\nb\\377\\nc'; exit 3"),
            Duration::from_secs(20),
            |line| {
                lines.push(line.to_owned());
            },
        );
        assert_eq!(status.expect("sh runs").and_then(|status| status.code()), Some(3));
        assert_eq!(lines, ["a", "b\u{fffd}", "c"]);
    }

    #[test]
    fn a_child_that_takes_too_long_is_killed() {
        let start = Instant::now();
        let status = stream(&mut shell("echo a; exec sleep 30"), Duration::from_millis(300), |_| {}).expect("sh runs");
        assert_eq!(status, None);
        assert!(start.elapsed() < Duration::from_secs(20));
    }

    #[test]
    fn failures_name_the_command_and_show_its_last_words() {
        let error = run_quietly(&mut shell("echo no such thing >&2; false")).expect_err("it fails");
        let text = error.to_string();
        assert!(text.contains("`sh -c ") && text.ends_with("no such thing"), "{text}");
        let error = run(&mut Command::new("no-such-program-anywhere")).expect_err("it is absent");
        assert!(format!("{error:#}").contains("no-such-program-anywhere"));
    }
}
