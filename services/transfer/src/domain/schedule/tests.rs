use chrono::{Datelike as _, NaiveDate, Timelike as _};
use proptest::prelude::*;

use super::*;

fn time(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

fn timing(first: &str, unit: Unit, every: u32) -> Timing {
    Timing {
        first: time(first),
        recurrence: Some(Recurrence {
            unit,
            every,
            count: None,
            until: None,
        }),
    }
}

#[test]
fn once_is_once() {
    let once = Timing {
        first: time("2026-01-31T12:00:00Z"),
        recurrence: None,
    };
    assert_eq!(once.at(1), Some(once.first));
    assert_eq!((once.at(2), once.at(0), once.at(i64::MIN)), (None, None, None));
}

#[test]
fn a_month_ends_where_it_ends() {
    let monthly = timing("2027-12-31T23:59:59Z", Unit::Month, 1);
    let days: Vec<String> = (1..=5)
        .map(|number| monthly.at(number).unwrap().format("%F").to_string())
        .collect();
    // 2028 is a leap year; after the short month the 31st is back
    assert_eq!(
        days,
        [
            "2027-12-31",
            "2028-01-31",
            "2028-02-29",
            "2028-03-31",
            "2028-04-30"
        ]
    );
    let yearly = timing("2028-02-29T00:00:00Z", Unit::Month, 12);
    assert_eq!(yearly.at(2), Some(time("2029-02-28T00:00:00Z")));
    assert_eq!(yearly.at(5), Some(time("2032-02-29T00:00:00Z")));
}

#[test]
fn the_end_is_a_count_or_a_moment() {
    let mut daily = timing("2026-03-28T10:00:00Z", Unit::Day, 1);
    daily.recurrence.as_mut().unwrap().count = Some(3);
    assert_eq!(daily.at(3), Some(time("2026-03-30T10:00:00Z")));
    assert_eq!(daily.at(4), None);
    let recurrence = daily.recurrence.as_mut().unwrap();
    recurrence.count = None;
    recurrence.until = Some(time("2026-03-29T10:00:00Z"));
    assert!(daily.at(2).is_some(), "at the very moment");
    assert_eq!(daily.at(3), None);
}

#[test]
fn nothing_happens_after_the_year_9999() {
    for unit in Unit::ALL {
        let long = timing("2036-01-01T00:00:00Z", unit, MAX_EVERY);
        assert_eq!(long.at(i64::MAX), None);
        let last = (1..2_000_000)
            .take_while(|number| long.at(*number).is_some())
            .last();
        assert!(
            last.is_some_and(|last| long.at(last).unwrap().year() <= 9_999),
            "{unit:?}"
        );
        if unit != Unit::Second {
            assert!(last < Some(100_000), "{unit:?}");
        }
    }
}

fn units() -> impl Strategy<Value = Unit> {
    prop::sample::select(Unit::ALL.to_vec())
}

proptest! {
    /// The n-th occurrence is what a calendar says: same time of day, the day of the first or the last of its month.
    #[test]
    fn months_agree_with_a_calendar(
        year in 2026..2036, month in 1..=12u32, day in 1..=31u32, second in 0..86_400i64, every in 1..=24u32, number in 1..=200i64
    ) {
        let Some(date) = NaiveDate::from_ymd_opt(year, month, day) else { return Ok(()) };
        let first = date.and_hms_opt(0, 0, 0).unwrap().and_utc() + TimeDelta::seconds(second);
        let monthly = Timing {
            first,
            recurrence: Some(Recurrence { unit: Unit::Month, every, count: None, until: None }),
        };
        let at = monthly.at(number).unwrap();
        let months = i64::from(year) * 12 + i64::from(month) - 1 + (number - 1) * i64::from(every);
        prop_assert_eq!(i64::from(at.year()) * 12 + i64::from(at.month0()), months);
        prop_assert_eq!(at.num_seconds_from_midnight(), first.num_seconds_from_midnight());
        let is_last = (at + TimeDelta::days(1)).day() == 1;
        prop_assert!(at.day() == day || (at.day() < day && is_last));
    }

    /// Occurrences come in order, without a hole, and none after an end.
    #[test]
    fn occurrences_come_in_order(
        unit in units(), every in 60..=MAX_EVERY, first in 0..4_000_000_000i64,
        count in proptest::option::of(1..50u32), days in proptest::option::of(0..100_000i64)
    ) {
        let first = DateTime::from_timestamp(first, 0).unwrap();
        let until = days.map(|days| first + TimeDelta::days(days));
        let timing = Timing { first, recurrence: Some(Recurrence { unit, every, count, until }) };
        let all: Vec<_> = (1..=60).map(|number| timing.at(number)).collect();
        let some = all.iter().take_while(|at| at.is_some()).count();
        prop_assert!(some >= 1 && all.iter().skip(some).all(Option::is_none));
        prop_assert!(all.iter().take(some).is_sorted_by(|one, other| one < other));
        if let Some(count) = count {
            prop_assert!(some <= count as usize);
        }
        if let Some(until) = until {
            prop_assert!(all.iter().flatten().all(|at| *at <= until));
        }
    }
}
