//! `proxy-agent check`: what this kernel and this node offer, what will be used, and what would mend what is missing.
//! Called by `main`; [`preflight`] does the looking.

use super::table;
use crate::{
    config::CheckArgs,
    datapath::preflight::{self, Verdict},
};

/// Prints the findings.
///
/// # Errors
/// Something without which the data path won't start is missing: the exit code says so.
pub fn run(args: CheckArgs) -> anyhow::Result<()> {
    let findings = preflight::look(&args.place, &args.devices);
    let word = |verdict| match verdict {
        Verdict::Ok => "ok",
        Verdict::Limited => "limited",
        Verdict::Missing => "MISSING",
    };
    let rows: Vec<_> = findings
        .iter()
        .map(|found| {
            [
                found.item.clone(),
                word(found.verdict).into(),
                found.found.clone(),
                found.remedy.clone(),
            ]
        })
        .collect();
    table::print(args.output, ["ITEM", "STATE", "FOUND", "REMEDY"], &rows, &findings)?;
    let missing = findings
        .iter()
        .filter(|found| found.verdict == Verdict::Missing)
        .count();
    anyhow::ensure!(missing == 0, "{missing} of {} things are missing", findings.len());
    Ok(())
}
