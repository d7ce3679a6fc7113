//! The table of the results.

use anyhow::Result;

use super::generator::Measured;
use crate::cli::say;

/// One work and how it went.
pub(super) struct Line {
    pub work: &'static str,
    pub measured: String,
    pub peer: String,
    pub ratio: String,
    pub must: &'static str,
    pub aim: &'static str,
    /// Whether it reached what it must, and its aim; `None` where there is nothing to compare with.
    pub met: Option<(bool, bool)>,
    /// How much of the machine's CPU other work took meanwhile, in percent.
    pub others: u64,
}

/// What a rate must reach, in hundredths of the peer's.
pub(super) struct Target {
    pub must: (u64, &'static str),
    pub aim: (u64, &'static str),
}

/// A rate beside the peer's.
pub(super) fn against(work: &'static str, measured: &Measured, peer: Option<u64>, target: &Target) -> Line {
    let mut line = compare(work, measured.per_second(), peer, target);
    if !measured.refusals().is_empty() {
        line.measured.push_str(&measured.refused());
        line.met = line.met.map(|_| (false, false));
    }
    line.others = measured.usage.others_percent();
    line
}

/// A rate beside the peer's.
pub(super) fn compare(work: &'static str, rate: u64, peer: Option<u64>, target: &Target) -> Line {
    let hundredths = peer.map(|peer| rate * 100 / peer.max(1));
    Line {
        work,
        measured: format!("{rate}/s"),
        peer: peer.map_or_else(|| "–".to_owned(), |peer| format!("{peer}/s")),
        ratio: hundredths.map_or_else(
            || "–".to_owned(),
            |ratio| format!("{}.{:02} ×", ratio / 100, ratio % 100),
        ),
        must: target.must.1,
        aim: target.aim.1,
        met: hundredths.map(|ratio| (ratio >= target.must.0, ratio >= target.aim.0)),
        others: 0,
    }
}

/// Prints all lines as one table.
pub(super) fn print(lines: &[Line]) -> Result<()> {
    say(
        "\n| work | kontor | pgbench | ratio | must reach | aim | | other work |\n|---|---|---|---|---|---|---|---|",
    )?;
    for line in lines {
        let met = match line.met {
            None => "",
            Some((false, _)) => "missed",
            Some((true, false)) => "met",
            Some((true, true)) => "met, aim too",
        };
        let Line {
            work,
            measured,
            peer,
            ratio,
            must,
            aim,
            others,
            ..
        } = line;
        say(&format!(
            "| {work} | {measured} | {peer} | {ratio} | {must} | {aim} | {met} | {others} % |"
        ))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_judged_by_its_ratio() {
        let target = Target {
            must: (400, "≥ 4 ×"),
            aim: (600, "6 ×"),
        };
        let line = compare("work", 459, Some(100), &target);
        assert_eq!((line.ratio.as_str(), line.met), ("4.59 ×", Some((true, false))));
        assert_eq!(compare("work", 399, Some(100), &target).met, Some((false, false)));
        assert_eq!(compare("work", 600, None, &target).met, None);
    }
}
