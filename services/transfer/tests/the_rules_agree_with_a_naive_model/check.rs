//! Tells a history to the rules and to the model, and compares all that can be compared.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use chrono::{DateTime, Utc};
use transfer::domain::{
    account::{Account, Status},
    books::{Books, Done},
    command::{Command, Note, Refusal},
    journal::{Kind, Row},
    money::MAX_MINOR,
};
use uuid::Uuid;

use super::{
    history::{self, Batch},
    model::{Model, Move},
};

/// How often each outcome occurred.
pub type Outcomes = BTreeMap<String, u64>;
type Outcome = Result<Done, Refusal>;

/// The database as the store keeps it.
#[derive(Clone, Debug, PartialEq)]
struct Kept {
    accounts: BTreeMap<i64, Account>,
    journal: Vec<Row>,
}

/// Runs the history of some bytes.
///
/// # Panics
/// The rules and the model disagree, or a promise is broken.
pub fn run(bytes: &[u8], outcomes: &mut Outcomes) {
    let history = history::read(bytes);
    let mut model = Model::new(&history.accounts);
    let accounts = history.accounts.into_iter().map(|account| (account.id, account));
    let mut kept = Kept {
        accounts: accounts.collect(),
        journal: Vec::new(),
    };
    for batch in &history.batches {
        for (account, change) in &batch.changes {
            let changed = kept.accounts.get_mut(account).unwrap().change(*change);
            assert_eq!(
                changed,
                model.change(*account, *change),
                "{change:?} of account {account}"
            );
        }
        let mut books = kept.books(&batch.chains);
        let apart = chain_by_chain(&kept, batch);
        for (chain, apart) in batch.chains.iter().zip(apart.0) {
            let got = compare_chain(&mut books, &mut model, chain, batch.at, outcomes);
            assert_eq!(got, apart, "in the batch, then by itself: {chain:#?}");
        }
        limits_are_kept(&kept, &books);
        kept.commit(&books, batch.at);
        assert_eq!(kept, apart.1, "the batch, then its chains by themselves");
        everything_adds_up(&kept, &model);
    }
}

/// The same commands always have the same outcomes, with whomever they share a commit.
fn chain_by_chain(kept: &Kept, batch: &Batch) -> (Vec<Vec<Outcome>>, Kept) {
    let mut kept = kept.clone();
    let outcomes = batch.chains.iter().map(|chain| {
        let mut books = kept.books(std::slice::from_ref(chain));
        let outcomes = apply(&mut books, chain, batch.at);
        kept.commit(&books, batch.at);
        outcomes
    });
    (outcomes.collect(), kept)
}

fn apply(books: &mut Books, chain: &[Command], at: DateTime<Utc>) -> Vec<Outcome> {
    match chain {
        [command] => vec![books.apply(command, at)],
        chain => books.apply_chain(chain, at),
    }
}

fn compare_chain(
    books: &mut Books,
    model: &mut Model,
    chain: &[Command],
    at: DateTime<Utc>,
    outcomes: &mut Outcomes,
) -> Vec<Outcome> {
    let before = (books.made().to_vec(), accounts_of(books));
    let got = apply(books, chain, at);
    let expected = match chain {
        [command] => vec![model.apply(command, at)],
        chain => model.apply_chain(chain, at),
    };
    assert_eq!(got, expected, "the rules, then the model, of {chain:#?} at {at}");
    for (command, outcome) in chain.iter().zip(&got) {
        *outcomes.entry(name(command, *outcome)).or_default() += 1;
    }
    let nothing_new = got
        .iter()
        .all(|outcome| !matches!(outcome, Ok(done) if !done.replayed));
    if nothing_new {
        let after = (books.made().to_vec(), accounts_of(books));
        assert_eq!(before, after, "changed by what was not done: {chain:#?}");
    }
    let all_or_nothing = got.iter().all(Result::is_ok) || nothing_new;
    assert!(all_or_nothing, "half of a chain was done: {chain:#?} {got:?}");
    for row in &books.made()[before.0.len()..] {
        let payer = books.account(row.debit).unwrap();
        assert!(
            row.kind.ends_pending() || payer.available() >= 0,
            "overspent: {payer:?} by {chain:#?}"
        );
    }
    got
}

fn name(command: &Command, outcome: Outcome) -> String {
    let what = match command {
        Command::Transfer(order) if order.hold.is_some() => "pending",
        Command::Transfer(_) => "transfer",
        Command::Post { .. } => "post",
        Command::Void { .. } => "void",
        Command::Expire { .. } => "expire",
        Command::Reverse { .. } => "reverse",
    };
    match outcome {
        Ok(done) if done.replayed => format!("{what} Replayed"),
        Ok(_) => format!("{what} Done"),
        Err(refusal) => format!("{what} {refusal:?}"),
    }
}

fn accounts_of(books: &Books) -> BTreeMap<i64, Account> {
    books
        .accounts()
        .map(|account| (account.id, account.clone()))
        .collect()
}

impl Kept {
    /// What the store reads for a batch, no more: see `store/lane.rs`.
    fn books(&self, chains: &[Vec<Command>]) -> Books {
        let commands = || chains.iter().flatten();
        let originals: BTreeSet<Uuid> = commands().filter_map(Command::original).collect();
        let ids: BTreeSet<Uuid> = commands()
            .map(Command::id)
            .chain(originals.iter().copied())
            .collect();
        let mut accounts = BTreeSet::new();
        for command in commands() {
            if let Command::Transfer(order) = command {
                accounts.insert(order.debit);
                accounts.extend(order.credits.iter().map(|credit| credit.account));
            }
        }
        for row in self.journal.iter().filter(|row| originals.contains(&row.id)) {
            accounts.extend([row.debit, row.credit]);
        }
        let concerns = |row: &&Row| {
            ids.contains(&row.id) || row.original.is_some_and(|original| originals.contains(&original))
        };
        let mut earlier: Vec<Row> = self.journal.iter().filter(concerns).cloned().collect();
        earlier.sort_by_key(|row| (row.id, row.leg));
        let accounts = accounts.iter().filter_map(|id| self.accounts.get(id)).cloned();
        Books::new(accounts.collect::<Vec<_>>(), earlier)
    }

    /// What the store writes: see `store/write.rs`.
    fn commit(&mut self, books: &Books, at: DateTime<Utc>) {
        for row in books.made() {
            assert_eq!(row.at, at);
            let mut row = row.clone();
            // empty columns are read back as nothing
            row.note = row.note.filter(|note| **note != Note::default());
            self.journal.push(row);
        }
        for account in books.accounts() {
            if account.last_at == at {
                self.accounts.insert(account.id, account.clone());
            } else {
                assert_eq!(
                    Some(account),
                    self.accounts.get(&account.id),
                    "changed without a new time"
                );
            }
        }
    }
}

/// No account pays what it may not, nor has more than it may, at any row.
fn limits_are_kept(kept: &Kept, books: &Books) {
    let mut incoming: BTreeMap<i64, i64> = kept.accounts.values().map(|a| (a.id, a.incoming)).collect();
    for row in books.made() {
        let (debit, credit) = (&kept.accounts[&row.debit], &kept.accounts[&row.credit]);
        let coming = incoming.get_mut(&row.credit).unwrap();
        *coming += row.held;
        assert_eq!((debit.currency, credit.currency), (row.currency, row.currency));
        if row.kind.ends_pending() {
            assert!(row.kind != Kind::Post || (debit.status, credit.status) == (Status::Open, Status::Open));
            continue;
        }
        assert_eq!((debit.status, credit.status), (Status::Open, Status::Open));
        assert!(
            row.debit_posted - row.debit_held >= debit.floor.max(-MAX_MINOR),
            "overspent by {row:?}"
        );
        assert!(
            row.credit_posted + *coming <= credit.ceiling.min(MAX_MINOR),
            "too much by {row:?}"
        );
    }
}

/// What is kept is what the model counts, and what the rows tell.
fn everything_adds_up(kept: &Kept, model: &Model) {
    rows_replay(kept);
    rows_are_the_deeds(kept, model);
    let mut sums: BTreeMap<&str, i64> = BTreeMap::new();
    for account in kept.accounts.values() {
        *sums.entry(account.currency.code()).or_default() += account.posted;
        let id = account.id;
        assert_eq!(
            (account.posted, account.held, account.incoming, account.position),
            (
                model.posted(id),
                model.held(id),
                model.incoming(id),
                model.entries(id)
            ),
            "account {id}",
        );
    }
    assert!(
        sums.values().all(|sum| *sum == 0),
        "money was made or lost: {sums:?}"
    );
}

/// The journal alone tells every balance; and it keeps the constraints of its table.
fn rows_replay(kept: &Kept) {
    #[derive(Clone, Copy, Default, PartialEq, Debug)]
    struct Figures {
        posted: i64,
        held: i64,
        incoming: i64,
        position: i64,
    }
    let mut figures: BTreeMap<i64, Figures> = BTreeMap::new();
    let (mut keys, mut ended, mut reversed) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    let mut last = DateTime::UNIX_EPOCH;
    for row in &kept.journal {
        let debit = figures.entry(row.debit).or_default();
        debit.posted -= row.moved;
        debit.held += row.held;
        debit.position += 1;
        assert_eq!(
            (row.debit_posted, row.debit_held),
            (debit.posted, debit.held),
            "{row:?}"
        );
        assert_eq!(row.debit_position, debit.position, "{row:?}");
        let credit = figures.entry(row.credit).or_default();
        credit.posted += row.moved;
        credit.incoming += row.held;
        credit.position += 1;
        assert_eq!(
            (row.credit_posted, row.credit_held),
            (credit.posted, credit.held),
            "{row:?}"
        );
        assert_eq!(row.credit_position, credit.position, "{row:?}");
        assert!(fits_kind(row), "{row:?}");
        assert!(row.debit != row.credit && row.at >= last, "{row:?}");
        last = row.at;
        assert!(keys.insert((row.id, row.leg)), "the id occurs twice: {row:?}");
        assert!(
            row.leg == 0 || keys.contains(&(row.id, row.leg - 1)),
            "a leg is missing: {row:?}"
        );
        let once = if row.kind.ends_pending() {
            &mut ended
        } else {
            &mut reversed
        };
        assert!(
            row.original
                .is_none_or(|original| once.insert((original, row.leg))),
            "{row:?}"
        );
    }
    for (id, account) in &kept.accounts {
        let Figures {
            posted,
            held,
            incoming,
            position,
        } = figures.get(id).copied().unwrap_or_default();
        let expected = (account.posted, account.held, account.incoming, account.position);
        assert_eq!((posted, held, incoming, position), expected, "account {id}");
        assert!(held >= 0 && incoming >= 0 && posted.abs() <= MAX_MINOR);
    }
}

/// The constraint `journal_amounts_fit_kind`.
fn fits_kind(row: &Row) -> bool {
    let (moved, held, original) = (row.moved, row.held, row.original.is_some());
    match row.kind {
        Kind::Transfer => moved > 0 && held == 0 && !original,
        Kind::Pending => moved == 0 && held > 0 && !original && row.expires_at.is_some(),
        Kind::Post => moved > 0 && held < 0 && moved <= -held && original,
        Kind::Void | Kind::Expire => moved == 0 && held < 0 && original,
        Kind::Reversal => moved > 0 && held == 0 && original,
    }
}

fn rows_are_the_deeds(kept: &Kept, model: &Model) {
    let mut rows = kept.journal.iter();
    for deed in &model.deeds {
        for (leg, expected) in deed.moves.iter().enumerate() {
            let row = rows.next().expect("a row for each leg");
            let Row {
                debit: from,
                credit: to,
                moved,
                held,
                ..
            } = *row;
            assert_eq!(
                Move {
                    from,
                    to,
                    moved,
                    held
                },
                *expected
            );
            assert_eq!((row.id, usize::try_from(row.leg)), (deed.id, Ok(leg)));
            assert_eq!(
                (row.kind, row.at, row.currency),
                (deed.kind, deed.at, deed.currency)
            );
            assert_eq!((row.original, row.expires_at), (deed.original, deed.until));
            assert_eq!(row.note.as_deref().unwrap_or(&Note::default()), &deed.note);
            assert!(
                row.note
                    .as_ref()
                    .is_none_or(|note: &Arc<Note>| **note != Note::default())
            );
        }
    }
    assert!(rows.next().is_none(), "a row that nobody asked for");
}
