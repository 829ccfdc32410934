//! Processes of the lab: each in a namespace and a cgroup of the lab, its output in a file of the lab's directory.
//!
//! They start through `lab enter`, which joins both and then becomes the program, so that no code runs between fork and
//! exec. Sockets a process opens belong to its cgroup from the first one on.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::netns::Netns;
use crate::programs;

/// Where a process runs.
#[derive(Clone, Debug)]
pub struct Place {
    /// Its network namespace.
    pub netns: Netns,
    /// Its cgroup, made if absent.
    pub cgroup: PathBuf,
}

impl Place {
    /// A command that will run here.
    ///
    /// # Errors
    /// If the cgroup can't be made or the lab binary is missing.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Result<Command> {
        fs::create_dir_all(&self.cgroup).with_context(|| format!("can't create cgroup {}", self.cgroup.display()))?;
        let mut command = Command::new(programs::lab()?);
        command
            .arg("enter")
            .arg("--netns")
            .arg(self.netns.path())
            .arg("--cgroup")
            .arg(&self.cgroup)
            .arg("--")
            .arg(program);
        command.stdin(Stdio::null());
        Ok(command)
    }

    /// Runs a command here to its end and returns its output.
    ///
    /// # Errors
    /// If it can't be started, or with its error output if it fails.
    pub fn output(&self, program: impl AsRef<OsStr>, arguments: &[&str]) -> Result<Output> {
        let output = self.command(program.as_ref())?.args(arguments).output()?;
        if !output.status.success() {
            bail!(
                "{} {}: {}: {}",
                program.as_ref().display(),
                arguments.join(" "),
                output.status,
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(output)
    }
}

/// Joins a namespace and a cgroup and becomes the program; returns only on failure. The body of `lab enter`.
///
/// # Errors
/// Names the step that failed.
pub fn enter(netns: &Path, cgroup: &Path, program: &[String]) -> Result<()> {
    let procs = cgroup.join("cgroup.procs");
    fs::write(&procs, "0").with_context(|| format!("can't join {}", procs.display()))?;
    let file = File::open(netns).with_context(|| format!("can't open {}", netns.display()))?;
    setns(file, CloneFlags::CLONE_NEWNET).with_context(|| format!("can't enter {}", netns.display()))?;
    let (name, arguments) = program.split_first().context("no program to run")?;
    Err(Command::new(name).args(arguments).exec()).with_context(|| format!("can't run {name}"))
}

/// A running process of the lab. Dropping it kills and reaps it.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a command with its output appended to `log`.
    ///
    /// # Errors
    /// If it can't be started.
    pub fn spawn(name: &str, mut command: Command, log: &Path) -> Result<Self> {
        let file = File::options().create(true).append(true).open(log)?;
        // In a process group of its own: a Ctrl-C is for the lab, which then ends its processes in order.
        command.stdout(file.try_clone()?).stderr(file).process_group(0);
        let child = command.spawn().with_context(|| format!("can't start {name}"))?;
        Ok(Self {
            name: name.to_owned(),
            child,
            log: log.to_owned(),
        })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has printed so far.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The last lines it printed.
    #[must_use]
    pub fn log_tail(&self, lines: usize) -> String {
        let log = self.log();
        let all: Vec<&str> = log.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// If it is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.pid())?);
        kill(pid, signal).with_context(|| format!("can't signal {}", self.name))
    }

    /// `kill -9`, and waits until it is gone.
    ///
    /// # Errors
    /// If it can't be reaped.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Waits for it to end by itself.
    ///
    /// # Errors
    /// If it doesn't within the time.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!(
                    "{} still runs after {limit:?}; its log ends:\n{}",
                    self.name,
                    self.log_tail(20)
                );
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Fails with its log if it has ended.
    ///
    /// # Errors
    /// If it has ended.
    pub fn check_alive(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} ended ({status}); its log ends:\n{}", self.name, self.log_tail(30)),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Repeats a check until it holds.
///
/// # Errors
/// With the last error, if it doesn't within the time.
pub fn eventually<T>(limit: Duration, mut check: impl FnMut() -> Result<T>) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        match check() {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() > deadline => return Err(error.context(format!("not within {limit:?}"))),
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}
