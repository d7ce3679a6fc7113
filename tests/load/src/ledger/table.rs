//! The table of the results.

use anyhow::Result;

use super::turns::Turns;
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

/// Rates beside the peer's.
pub(super) fn against(work: &'static str, turns: &Turns, target: &Target) -> Line {
    let (rate, peer) = (turns.per_second(), turns.peer_per_second());
    let hundredths = peer.map(|peer| rate * 100 / peer.max(1));
    let refused = turns.refused();
    Line {
        work,
        measured: match refused {
            0 => format!("{rate}/s"),
            _ => format!("{rate}/s, {refused} not accepted"),
        },
        peer: peer.map_or_else(|| "–".to_owned(), |peer| format!("{peer}/s")),
        ratio: hundredths.map_or_else(|| "–".to_owned(), |ratio| ratio_of(ratio, turns)),
        must: target.must.1,
        aim: target.aim.1,
        met: hundredths.map(|ratio| {
            (
                refused == 0 && ratio >= target.must.0,
                refused == 0 && ratio >= target.aim.0,
            )
        }),
        others: turns.others_percent(),
    }
}

/// `4.59 × (4.21 to 5.02)`: of all turns together, and of the turns.
fn ratio_of(hundredths: u64, turns: &Turns) -> String {
    let show = |hundredths: u64| format!("{}.{:02}", hundredths / 100, hundredths % 100);
    let all = show(hundredths);
    match (turns.ratios().min(), turns.ratios().max()) {
        (Some(least), Some(most)) if least < most => {
            format!("{all} × ({} to {})", show(least), show(most))
        }
        _ => format!("{all} ×"),
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
        let judge = |turns: &Turns| {
            let line = against("work", turns, &target);
            (line.ratio, line.met)
        };
        let turns = Turns::of(&[(500, 0, 100), (418, 0, 100)]);
        assert_eq!(
            judge(&turns),
            ("4.59 × (4.18 to 5.00)".to_owned(), Some((true, false)))
        );
        assert_eq!(judge(&Turns::of(&[(399, 0, 100)])).1, Some((false, false)));
        assert_eq!(judge(&Turns::of(&[(600, 1, 100)])).1, Some((false, false)));
        assert_eq!(judge(&Turns::of(&[])), ("–".to_owned(), None));
    }
}
