//! Stock clients against the API server: kubectl, the `kube` crate, and Python's `kubernetes`.
//!
//! Each test starts the `control` binary of its own on a loopback port with a directory of its own, talks to it as a
//! user would, and stops it. No privileges needed.

mod kube_rs;
mod kubectl;
mod python;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use lab::process::eventually;
use lab::programs;
use tempfile::TempDir;

/// A running `control serve`. Dropping it kills it and removes its files.
struct Server {
    dir: TempDir,
    process: Child,
}

impl Server {
    /// Starts one with both address families and waits until it answers.
    fn start() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("waggle-clients-").tempdir()?;
        let process = spawn(dir.path(), "127.0.0.1:0")?;
        let mut server = Self { dir, process };
        server.wait_ready()?;
        Ok(server)
    }

    /// Kills it without warning and starts it again over the same files and on the same port.
    fn crash_and_restart(&mut self) -> Result<()> {
        let address = self.url()?.trim_start_matches("https://").to_owned();
        self.process.kill()?;
        self.process.wait()?;
        fs::remove_file(self.kubeconfig())?;
        self.process = spawn(self.dir.path(), &address)?;
        self.wait_ready()
    }

    /// The administrator's kubeconfig.
    fn kubeconfig(&self) -> PathBuf {
        self.dir.path().join("kubeconfig")
    }

    /// Where the server listens, such as `https://127.0.0.1:40000`.
    fn url(&self) -> Result<String> {
        let text = fs::read_to_string(self.kubeconfig())?;
        let line = text
            .lines()
            .find_map(|line| line.trim().strip_prefix("server: "))
            .context("no server in the kubeconfig")?;
        Ok(line.trim_matches('"').to_owned())
    }

    /// kubectl with these arguments, to its end.
    fn kubectl(&self, arguments: &[&str]) -> Result<Answer> {
        self.kubectl_with(arguments, "")
    }

    /// kubectl with these arguments and this text on its standard input, to its end.
    fn kubectl_with(&self, arguments: &[&str], input: &str) -> Result<Answer> {
        let mut command = self.kubectl_command()?;
        let mut child = command
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        child
            .stdin
            .take()
            .context("no standard input")?
            .write_all(input.as_bytes())?;
        let output = child.wait_with_output()?;
        Ok(Answer {
            success: output.status.success(),
            out: String::from_utf8(output.stdout)?,
            err: String::from_utf8(output.stderr)?,
        })
    }

    /// Applies a manifest and expects it to work.
    fn apply(&self, manifest: &str) -> Result<String> {
        self.kubectl_with(&["apply", "-f", "-"], manifest)?.ok()
    }

    /// The objects that `kubectl get ... -o json` prints.
    fn json(&self, arguments: &[&str]) -> Result<serde_json::Value> {
        let mut all = vec!["get", "-o", "json"];
        all.extend(arguments);
        Ok(serde_json::from_str(&self.kubectl(&all)?.ok()?)?)
    }

    /// The cells `kubectl get` prints, line by line, header included. Cells are separated by two blanks or more.
    fn table(&self, arguments: &[&str]) -> Result<Vec<Vec<String>>> {
        let mut all = vec!["get"];
        all.extend(arguments);
        let text = self.kubectl(&all)?.ok()?;
        let cells = |line: &str| {
            line.split("  ")
                .map(str::trim)
                .filter(|cell| !cell.is_empty())
                .map(ToOwned::to_owned)
                .collect()
        };
        Ok(text.lines().map(cells).collect())
    }

    /// kubectl in the background, its output line by line.
    fn kubectl_lines(&self, arguments: &[&str]) -> Result<Lines> {
        let mut command = self.kubectl_command()?;
        let mut child = command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let out = child.stdout.take().context("no standard output")?;
        Ok(Lines {
            child,
            lines: read_lines(out),
        })
    }

    fn kubectl_command(&self) -> Result<Command> {
        let found = std::env::var_os("PATH")
            .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join("kubectl").is_file()));
        ensure!(
            found,
            "no kubectl on the PATH: install kubectl 1.32 or newer (https://kubernetes.io/docs/tasks/tools/)"
        );
        let mut command = Command::new("kubectl");
        command
            .arg("--kubeconfig")
            .arg(self.kubeconfig())
            .arg("--cache-dir")
            .arg(self.dir.path().join("cache"));
        Ok(command)
    }

    fn wait_ready(&mut self) -> Result<()> {
        let kubeconfig = self.kubeconfig();
        let log = self.dir.path().join("log");
        let process = &mut self.process;
        eventually(Duration::from_secs(30), || {
            if let Some(status) = process.try_wait()? {
                bail!("control ended with {status}: {}", fs::read_to_string(&log)?);
            }
            ensure!(kubeconfig.exists(), "no kubeconfig yet");
            ensure!(
                fs::read_to_string(&log)?.contains("ready"),
                "not ready yet: {}",
                fs::read_to_string(&log)?
            );
            Ok(())
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; there is nothing else to clean up then.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn spawn(dir: &Path, bind: &str) -> Result<Child> {
    let log = File::create(dir.join("log"))?;
    let mut command = Command::new(programs::control()?);
    command
        .args([
            "serve",
            "--bind",
            bind,
            "--service-cidr",
            "10.96.0.0/16,fd00:10:96::/112",
            "--data-dir",
        ])
        .arg(dir.join("data"))
        .arg("--kubeconfig-out")
        .arg(dir.join("kubeconfig"));
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .context("can't start control")
}

/// What a client said.
#[derive(Debug)]
struct Answer {
    success: bool,
    out: String,
    err: String,
}

impl Answer {
    /// The output of a success.
    fn ok(self) -> Result<String> {
        ensure!(self.success, "kubectl failed: {}{}", self.out, self.err);
        Ok(self.out)
    }

    /// The error of a failure, without the line's end.
    fn error(self) -> Result<String> {
        ensure!(!self.success, "kubectl should have failed but printed {}", self.out);
        Ok(self.err.trim_end().to_owned())
    }
}

/// A client in the background. Dropping it kills it.
struct Lines {
    child: Child,
    lines: Receiver<String>,
}

impl Lines {
    /// The next line that `wanted` accepts, or an error that lists what came instead.
    fn wait_for(&self, what: &str, wanted: impl Fn(&str) -> bool) -> Result<String> {
        let deadline = Instant::now() + Duration::from_secs(20);
        let mut seen = Vec::new();
        while let Some(left) = deadline.checked_duration_since(Instant::now()) {
            match self.lines.recv_timeout(left) {
                Ok(line) if wanted(&line) => return Ok(line),
                Ok(line) => seen.push(line),
                Err(_) => break,
            }
        }
        bail!("no line with {what}; instead: {seen:#?}")
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read_lines(mut out: ChildStdout) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let (mut buffer, mut pending) = ([0; 4096], String::new());
        while let Ok(length @ 1..) = out.read(&mut buffer) {
            pending.push_str(&String::from_utf8_lossy(&buffer[..length]));
            while let Some((line, rest)) = pending.split_once('\n') {
                let (line, rest) = (line.to_owned(), rest.to_owned());
                pending = rest;
                if sender.send(line).is_err() {
                    return;
                }
            }
        }
    });
    receiver
}
