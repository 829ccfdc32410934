//! The end of `cargo xtask test`: each suite with its time, what failed, and the closing line.

use std::process::ExitCode;
use std::time::Duration;

use super::libtest::Tally;

/// The suites that ran, in their order.
#[derive(Debug, Default)]
pub(crate) struct Report {
    suites: Vec<(String, Tally, Duration)>,
}

impl Report {
    /// Adds a suite that ended.
    pub(crate) fn add(&mut self, label: &str, tally: Tally, time: Duration) {
        println!(
            "=== {label}: {} passed, {} failed ({:.1} s)",
            tally.passed,
            tally.failed,
            time.as_secs_f32()
        );
        self.suites.push((label.to_owned(), tally, time));
    }

    /// Prints the summary with the closing line last. Success means that something ran and nothing failed.
    pub(crate) fn close(&self, filter: Option<&str>) -> ExitCode {
        println!();
        let width = self.suites.iter().map(|(label, ..)| label.len()).max().unwrap_or(0);
        for (label, tally, time) in self
            .suites
            .iter()
            .filter(|(_, tally, _)| tally.passed + tally.failed > 0)
        {
            let (passed, failed) = (tally.passed, tally.failed);
            println!(
                "{label:width$} {passed:5} passed {failed:3} failed {:7.1} s",
                time.as_secs_f32()
            );
            for name in &tally.failures {
                println!("{:width$}   failed: {name}", "");
            }
        }
        let (passed, failed) = self.sums();
        if passed + failed == 0 {
            println!("no test's name contains {:?}", filter.unwrap_or_default());
        }
        println!("{passed} passed, {failed} failed");
        if passed > 0 && failed == 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }

    fn sums(&self) -> (usize, usize) {
        self.suites.iter().fold((0, 0), |(passed, failed), (_, tally, _)| {
            (passed + tally.passed, failed + tally.failed)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(counts: &[(usize, usize)]) -> Report {
        let mut report = Report::default();
        for &(passed, failed) in counts {
            report.add(
                "a",
                Tally {
                    passed,
                    failed,
                    ..Tally::default()
                },
                Duration::ZERO,
            );
        }
        report
    }

    #[test]
    fn all_suites_count() {
        assert_eq!(report(&[(2, 0), (3, 1)]).sums(), (5, 1));
    }

    #[test]
    fn nothing_run_is_no_success() {
        let code = |counts: &[(usize, usize)]| format!("{:?}", report(counts).close(None));
        let success = format!("{:?}", ExitCode::SUCCESS);
        assert_eq!(code(&[(2, 0)]), success);
        assert_ne!(code(&[(2, 1)]), success);
        assert_ne!(code(&[(0, 0)]), success);
    }
}
