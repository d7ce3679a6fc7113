//! What a consumer that is not ours (kcat) has read from Kafka, against the journal.

use std::{collections::HashMap, process::Stdio};

use anyhow::{Context as _, Result, ensure};
use prost::Message as _;
use proto::transfer::v1::{EntryMade, TransferEvent, TransferKind, transfer_event::Event};
use tests::TestWorld;
use tokio::process::Command;
use uuid::Uuid;

use super::books::Row;

/// One event for each side of each row, in the order of each account. How many there were, and how many more than once.
pub async fn check(world: &TestWorld, journal: &[Row]) -> Result<(usize, usize)> {
    let output = Command::new("kcat")
        .args([
            "-C",
            "-q",
            "-e",
            "-u",
            "-o",
            "beginning",
            "-b",
            world.local().kafka_brokers(),
            "-t",
        ])
        .arg(world.local().topic("transfer.events"))
        // the payload is binary: its length says where it ends
        .args(["-f", "%k %S\\n%s"])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .context("kcat does not run")?;
    ensure!(
        output.status.success(),
        "kcat: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let events = parse(&output.stdout)?;
    let expected = expected(journal);
    let mut last: HashMap<i64, i64> = HashMap::new();
    let mut repeated = 0;
    for event in &events {
        let place = (event.account_id, event.position);
        let wanted = expected.get(&place);
        ensure!(
            wanted == Some(event),
            "an event that the journal has as {wanted:?}: {event:?}"
        );
        let last = last.entry(event.account_id).or_default();
        if event.position <= *last {
            repeated += 1;
        } else {
            ensure!(event.position == *last + 1, "behind {last} came {event:?}");
            *last = event.position;
        }
    }
    let different: i64 = last.values().sum();
    ensure!(
        different == i64::try_from(expected.len())?,
        "{different} different events for {} entries",
        expected.len()
    );
    Ok((events.len(), repeated))
}

fn parse(mut bytes: &[u8]) -> Result<Vec<EntryMade>> {
    let mut events = Vec::new();
    while !bytes.is_empty() {
        let end = bytes
            .iter()
            .position(|byte| *byte == b'\n')
            .context("no end of a line")?;
        let line = std::str::from_utf8(&bytes[..end])?;
        let (key, length) = line.split_once(' ').context("no length")?;
        let rest = &bytes[end + 1..];
        let (payload, behind) = rest.split_at_checked(length.parse()?).context("cut short")?;
        bytes = behind;
        let Some(Event::EntryMade(entry)) = TransferEvent::decode(payload)?.event else {
            anyhow::bail!("an event of another kind: {payload:?}");
        };
        ensure!(key == entry.account_id.to_string(), "the key {key} of {entry:?}");
        events.push(entry);
    }
    Ok(events)
}

/// The events that the journal should have become, by account and position.
fn expected(journal: &[Row]) -> HashMap<(i64, i64), EntryMade> {
    let mut expected = HashMap::with_capacity(2 * journal.len());
    for row in journal {
        let debit = EntryMade {
            account_id: row.debit,
            position: row.debit_position,
            transfer_id: row.id.to_string(),
            leg: i32::from(row.leg),
            kind: kind(&row.kind).into(),
            amount: -row.moved,
            held: row.held,
            currency: row.currency.clone(),
            posted_after: row.debit_posted,
            held_after: row.debit_held,
            counterparty_account_id: row.credit,
            created_at: Some(super::order::moment(row.at).into()),
            original_id: row.original_id.as_ref().map(Uuid::to_string).unwrap_or_default(),
            reference: row.reference.clone().unwrap_or_default(),
            lane: row.lane,
            sequence: row.sequence,
        };
        let credit = EntryMade {
            account_id: row.credit,
            position: row.credit_position,
            amount: row.moved,
            held: 0,
            posted_after: row.credit_posted,
            held_after: row.credit_held,
            counterparty_account_id: row.debit,
            ..debit.clone()
        };
        for entry in [debit, credit] {
            expected.insert((entry.account_id, entry.position), entry);
        }
    }
    expected
}

fn kind(name: &str) -> TransferKind {
    match name {
        "transfer" => TransferKind::Transfer,
        "pending" => TransferKind::Pending,
        "post" => TransferKind::Post,
        "void" => TransferKind::Void,
        "expire" => TransferKind::Expire,
        "reversal" => TransferKind::Reversal,
        _ => TransferKind::Unspecified,
    }
}
