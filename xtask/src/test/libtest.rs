//! Counts what Rust's test harness prints, line by line, while it is being printed.
//!
//! ```text
//! test parse::tests::ipv4 ... ok
//! test result: ok. 22 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.23s
//! ```

use std::time::Duration;

/// What one suite printed so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    /// Names of failed tests, and what went wrong outside of any.
    pub(crate) failures: Vec<String>,
    /// Results seen: one per harness, so several for doc tests.
    pub(crate) results: usize,
    /// Tests that passed and failed since the last result: all that is known of a harness that does not end.
    pub(crate) unsummed: (usize, usize),
}

impl Tally {
    /// A suite that could not run.
    pub(crate) fn broken(reason: String) -> Self {
        Self {
            failed: 1,
            failures: vec![reason],
            ..Self::default()
        }
    }

    /// Takes one line of output.
    pub(crate) fn line(&mut self, line: &str) {
        let Some(rest) = line.trim_end().strip_prefix("test ") else {
            return;
        };
        if let Some(result) = rest.strip_prefix("result: ") {
            self.results += 1;
            self.passed += number_before(result, " passed");
            self.failed += number_before(result, " failed");
            self.unsummed = (0, 0);
        } else if let Some((name, outcome)) = rest.split_once(" ... ") {
            if outcome.ends_with("FAILED") {
                self.failures.push(name.to_owned());
                self.unsummed.1 += 1;
            } else if outcome.ends_with("ok") {
                self.unsummed.0 += 1;
            }
        }
    }

    /// Takes the end: a suite that crashed, hung or said nothing counts as one failure more.
    pub(crate) fn finish(&mut self, success: bool, timed_out: Option<Duration>) {
        let wrong = match timed_out {
            Some(limit) => Some(format!("it did not end within {} s", limit.as_secs())),
            None if self.results == 0 => Some("it ended without a result".to_owned()),
            None if !success && self.failed == 0 => Some("it exited with an error".to_owned()),
            None => None,
        };
        self.passed += self.unsummed.0;
        self.failed += self.unsummed.1 + usize::from(wrong.is_some());
        self.failures.extend(wrong);
    }
}

/// The number in front of `label`: 22 for ` passed` in `ok. 22 passed; 0 failed`.
fn number_before(text: &str, label: &str) -> usize {
    let before = text
        .split(label)
        .next()
        .filter(|before| before.len() < text.len())
        .unwrap_or_default();
    before
        .rsplit(' ')
        .next()
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(text: &str, success: bool) -> Tally {
        let mut tally = Tally::default();
        text.lines().for_each(|line| tally.line(line));
        tally.finish(success, None);
        tally
    }

    const GOOD: &str = "running 2 tests\ntest a::b ... ok\ntest a::c ... ok\n\ntest result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 3 filtered out; finished in 0.23s\n";

    #[test]
    fn results_are_summed_over_harnesses() {
        let sum = tally(&format!("{GOOD}{GOOD}"), true);
        assert_eq!((sum.passed, sum.failed), (4, 0));
        assert_eq!(sum.failures, Vec::<String>::new());
    }

    #[test]
    fn failures_are_counted_and_named() {
        let text = "test a::b ... FAILED\ntest a::c ... ok\ntest result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.00s\n";
        let sum = tally(text, false);
        assert_eq!((sum.passed, sum.failed), (1, 1));
        assert_eq!(sum.failures, ["a::b"]);
    }

    #[test]
    fn a_suite_without_a_result_has_failed() {
        let cut_short = tally("running 3 tests\ntest a::b ... ok\ntest a::c ... FAILED\n", true);
        assert_eq!((cut_short.passed, cut_short.failed), (1, 2));
        assert_eq!(tally("", false).failures, ["it ended without a result"]);
        assert_eq!(tally(GOOD, false).failed, 1);
    }

    #[test]
    fn a_suite_that_hangs_has_failed() {
        let mut tally = Tally::default();
        GOOD.lines().for_each(|line| tally.line(line));
        tally.finish(false, Some(Duration::from_secs(5)));
        assert_eq!(tally.failures, ["it did not end within 5 s"]);
    }
}
