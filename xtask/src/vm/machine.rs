//! Runs one machine and listens to its serial line until it is off.

use anyhow::Result;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use super::kernel::{Files, Kernel};
use crate::process;
use crate::test::libtest::Tally;
use crate::test::report::Report;

/// Emulation is slow; a machine that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(420);
const MEMORY: &str = "2G";

/// What the serial line told besides the tests' output.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Course {
    booted: bool,
    exit: Option<String>,
    panic: Option<String>,
}

impl Course {
    fn line(&mut self, line: &str) {
        if let Some(words) = line.strip_prefix("@waggle ") {
            match words.split_once(' ') {
                Some(("booted", _)) => self.booted = true,
                Some(("exit", code)) => self.exit = Some(code.trim().to_owned()),
                _ => {}
            }
        } else if line.contains("Kernel panic") {
            self.panic = Some(line.trim().to_owned());
        }
    }

    /// What went wrong outside of the tests.
    fn trouble(&self) -> Option<String> {
        match (&self.panic, self.booted, &self.exit) {
            (Some(panic), ..) => Some(panic.clone()),
            (None, false, _) => Some("the machine did not boot".to_owned()),
            (None, true, None) => Some("the machine went off before the tests ended".to_owned()),
            (None, true, Some(_)) => None,
        }
    }
}

/// Boots the kernel with the archive, and adds what its tests said to the report.
pub(crate) fn run(kernel: &Kernel, files: &Files, initramfs: &Path, report: &mut Report) -> Result<()> {
    let label = format!("kernel {}", kernel.series);
    println!("\n=== {label} ({})", files.release);
    let start = Instant::now();
    let (mut tally, mut course, mut boot) = (Tally::default(), Course::default(), Duration::ZERO);
    let status = process::stream(&mut emulator(files, initramfs), LIMIT, |line| {
        course.line(line);
        tally.line(line);
        if line.starts_with("@waggle booted") {
            boot = start.elapsed();
        } else if !line.starts_with("@waggle") {
            println!("{line}");
        }
    })?;
    let trouble = course.trouble();
    let success = trouble.is_none() && course.exit.as_deref() == Some("0");
    tally.finish(success, status.is_none().then_some(LIMIT));
    tally.failures.extend(trouble);
    println!(
        "{label}: boot {:.1} s, tests {:.1} s",
        boot.as_secs_f32(),
        (start.elapsed() - boot).as_secs_f32()
    );
    report.add(&label, tally, start.elapsed());
    Ok(())
}

fn emulator(files: &Files, initramfs: &Path) -> Command {
    let mut command = Command::new("qemu-system-x86_64");
    // Emulation even where virtualisation is offered: nested, it often is not what it says, and this is the same everywhere.
    command.args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", MEMORY]);
    command.args([
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-serial",
        "stdio",
        "-no-reboot",
    ]);
    command.arg("-kernel").arg(&files.image).arg("-initrd").arg(initramfs);
    // A panic ends the machine at once; other messages of the kernel would tear the tests' lines apart.
    command.args([
        "-append",
        "console=ttyS0,115200 panic=-1 loglevel=2 random.trust_cpu=on",
    ]);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trouble(lines: &[&str]) -> Option<String> {
        let mut course = Course::default();
        lines.iter().for_each(|line| course.line(line));
        course.trouble()
    }

    #[test]
    fn a_machine_that_ran_its_tests_had_no_trouble() {
        assert_eq!(
            trouble(&["@waggle booted 6.1.0 2.50", "test result: ok.", "@waggle exit 0"]),
            None
        );
    }

    #[test]
    fn panics_and_early_ends_are_told() {
        assert_eq!(trouble(&["Linux version"]).as_deref(), Some("the machine did not boot"));
        assert!(trouble(&["@waggle booted 6.1.0 2.50"]).is_some_and(|text| text.contains("before the tests ended")));
        let panic = "[    2.1] Kernel panic - not syncing: No working init found.";
        assert_eq!(trouble(&[panic]).as_deref(), Some(panic));
    }
}
