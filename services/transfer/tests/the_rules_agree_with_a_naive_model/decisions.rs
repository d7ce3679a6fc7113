//! What the model decides of each command: nothing here changes anything.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use transfer::domain::{
    account::Status,
    command::{Authority, Command, NewTransfer, Note, Refusal},
    journal::Kind,
    money::{Amount, Currency, MAX_MINOR},
};
use uuid::Uuid;

use super::model::{Deed, Holder, Model, Move};

/// What is to be done for a command that is not refused.
pub enum Decision {
    New(Deed),
    Again(DateTime<Utc>),
}

impl Model {
    pub fn decide(&self, command: &Command, at: DateTime<Utc>) -> Result<Decision, Refusal> {
        match command {
            Command::Transfer(order) => self.transfer(order, at),
            Command::Post {
                id,
                by,
                pending,
                amount,
            } => {
                let part = amount.map(Amount::minor);
                self.post(*id, *by, *pending, part, at)
            }
            Command::Void { id, by, pending } => self.void(*id, *by, *pending, at),
            Command::Expire { id, pending } => self.expire(*id, *pending, at),
            Command::Reverse {
                id,
                by,
                original,
                note,
            } => {
                let note = note.as_deref().cloned().unwrap_or_default();
                self.reverse(*id, *by, *original, note, at)
            }
        }
    }

    fn transfer(&self, order: &NewTransfer, at: DateTime<Utc>) -> Result<Decision, Refusal> {
        let payer = self.holder(order.debit)?;
        if let Authority::User(user) = order.by
            && payer.owner != Some(user)
        {
            // the bank's own accounts do not exist for users
            return Err(if payer.system {
                Refusal::AccountNotFound
            } else {
                Refusal::NotYourAccount
            });
        }
        let wish = wish(order, payer.currency, at);
        if let Some(first) = self.deed(order.id) {
            return same_transfer(first, order, &wish);
        }
        let total: i128 = order
            .credits
            .iter()
            .map(|credit| i128::from(credit.amount.minor()))
            .sum();
        let total = i64::try_from(total)
            .ok()
            .filter(|total| (1..=MAX_MINOR).contains(total));
        let total = total.ok_or(Refusal::Malformed("amount"))?;
        let payees: BTreeSet<i64> = order.credits.iter().map(|credit| credit.account).collect();
        if payees.len() < order.credits.len() {
            return Err(Refusal::Malformed("splits"));
        }
        if order.hold.is_some_and(|hold| hold.named && hold.until <= at) {
            return Err(Refusal::Malformed("expires_at"));
        }
        if order.currency.is_some_and(|named| named != payer.currency) {
            return Err(Refusal::CurrencyMismatch);
        }
        for credit in &order.credits {
            if credit.account == order.debit {
                return Err(Refusal::Malformed("to"));
            }
            if self.holder(credit.account)?.system && order.by != Authority::Bank {
                return Err(Refusal::AccountNotFound);
            }
        }
        self.may_pay(payer, total)?;
        for credit in &order.credits {
            self.may_be_paid(
                self.holder(credit.account)?,
                payer.currency,
                credit.amount.minor(),
            )?;
        }
        Ok(Decision::New(wish))
    }

    fn may_pay(&self, payer: &Holder, amount: i64) -> Result<(), Refusal> {
        in_use(payer)?;
        let unheld = self.posted(payer.id) - self.held(payer.id);
        if unheld - amount < payer.floor {
            return Err(Refusal::InsufficientBalance);
        }
        if unheld - amount < -MAX_MINOR {
            return Err(Refusal::BalanceOverflow);
        }
        Ok(())
    }

    fn may_be_paid(&self, payee: &Holder, currency: Currency, amount: i64) -> Result<(), Refusal> {
        if payee.currency != currency {
            return Err(Refusal::CurrencyMismatch);
        }
        in_use(payee)?;
        let afterwards = self.posted(payee.id) + self.incoming(payee.id) + amount;
        if afterwards > payee.ceiling && payee.ceiling < MAX_MINOR {
            return Err(Refusal::MaximumExceeded);
        }
        if afterwards > MAX_MINOR {
            return Err(Refusal::BalanceOverflow);
        }
        Ok(())
    }

    /// The transfer, as far as the caller may know of it; and whether nobody but the caller is paid.
    fn concerning(&self, by: Authority, id: Uuid) -> Result<(&Deed, bool), Refusal> {
        let deed = self.deed(id).ok_or(Refusal::TransferNotFound)?;
        let Authority::User(user) = by else {
            return Ok((deed, true));
        };
        let pays = deed.moves.iter().any(|m| self.owns(user, m.from));
        let paid = deed.moves.iter().any(|m| self.owns(user, m.to));
        let alone = deed.moves.iter().all(|m| self.owns(user, m.to));
        if pays || paid {
            Ok((deed, alone))
        } else {
            Err(Refusal::TransferNotFound)
        }
    }

    fn can_end(&self, pending: &Deed, at: DateTime<Utc>) -> Result<(), Refusal> {
        match self.end_of(pending.id).map(|end| end.kind) {
            Some(Kind::Post) => Err(Refusal::AlreadyPosted),
            Some(Kind::Void) => Err(Refusal::AlreadyVoided),
            Some(_) => Err(Refusal::PendingExpired),
            None if pending.until.unwrap() <= at => Err(Refusal::PendingExpired),
            None => Ok(()),
        }
    }

    fn post(
        &self,
        id: Uuid,
        by: Authority,
        pending: Uuid,
        part: Option<i64>,
        at: DateTime<Utc>,
    ) -> Result<Decision, Refusal> {
        let (first, _) = self.concerning(by, pending)?;
        if first.kind != Kind::Pending {
            return Err(Refusal::NotPending);
        }
        let total: i64 = first.moves.iter().map(|m| m.held).sum();
        let part = part.unwrap_or(total);
        if let Some(again) = self.deed(id) {
            let posted: i64 = again.moves.iter().map(|m| m.moved).sum();
            return answer(
                again,
                &[
                    ("transfer_id", again.kind == Kind::Post),
                    ("pending_id", again.original == Some(pending)),
                    ("amount", posted == part),
                ],
            );
        }
        self.can_end(first, at)?;
        if part > total {
            return Err(Refusal::ExceedsPending);
        }
        if part < total && first.moves.len() > 1 {
            return Err(Refusal::PartOfSplit);
        }
        for m in &first.moves {
            in_use(self.holder(m.from)?)?;
            in_use(self.holder(m.to)?)?;
        }
        let moved = |m: &Move| if first.moves.len() > 1 { m.held } else { part };
        Ok(Decision::New(end(id, Kind::Post, first, moved, at)))
    }

    fn void(&self, id: Uuid, by: Authority, pending: Uuid, at: DateTime<Utc>) -> Result<Decision, Refusal> {
        let (first, alone) = self.concerning(by, pending)?;
        if first.kind != Kind::Pending {
            return Err(Refusal::NotPending);
        }
        if !alone {
            return Err(Refusal::NotYourAccount);
        }
        if let Some(again) = self.deed(id) {
            return same_end(again, Kind::Void, pending);
        }
        self.can_end(first, at)?;
        Ok(Decision::New(end(id, Kind::Void, first, |_| 0, at)))
    }

    fn expire(&self, id: Uuid, pending: Uuid, at: DateTime<Utc>) -> Result<Decision, Refusal> {
        let (first, _) = self.concerning(Authority::Bank, pending)?;
        if first.kind != Kind::Pending {
            return Err(Refusal::NotPending);
        }
        if let Some(again) = self.deed(id) {
            return same_end(again, Kind::Expire, pending);
        }
        match self.can_end(first, at) {
            Ok(()) => Err(Refusal::NotExpired),
            Err(_) if self.end_of(pending).is_none() => {
                Ok(Decision::New(end(id, Kind::Expire, first, |_| 0, at)))
            }
            Err(refusal) => Err(refusal),
        }
    }

    fn reverse(
        &self,
        id: Uuid,
        by: Authority,
        original: Uuid,
        note: Note,
        at: DateTime<Utc>,
    ) -> Result<Decision, Refusal> {
        let (first, alone) = self.concerning(by, original)?;
        if !alone {
            return Err(Refusal::NotYourAccount);
        }
        if let Some(again) = self.deed(id) {
            return answer(
                again,
                &[
                    ("transfer_id", again.kind == Kind::Reversal),
                    ("original_id", again.original == Some(original)),
                    ("reference", again.note.reference == note.reference),
                    ("description", again.note.description == note.description),
                    ("metadata", again.note.metadata == note.metadata),
                ],
            );
        }
        let went = match first.kind {
            Kind::Transfer => first,
            Kind::Pending => match self.end_of(original) {
                Some(end) if end.kind == Kind::Post => end,
                _ => return Err(Refusal::NotPosted),
            },
            _ => return Err(Refusal::NotReversible),
        };
        if self.reversal_of(original).is_some() {
            return Err(Refusal::AlreadyReversed);
        }
        // leg by leg: the first payer gets all of it back, so that what one leg brings counts for the next
        let mut so_far = self.clone();
        let mut deed = Deed {
            id,
            kind: Kind::Reversal,
            moves: Vec::new(),
            currency: first.currency,
            at,
            original: Some(original),
            until: None,
            note,
        };
        for m in &went.moves {
            let pays = so_far.holder(m.to)?;
            so_far.may_pay(pays, m.moved)?;
            so_far.may_be_paid(so_far.holder(m.from)?, pays.currency, m.moved)?;
            let back = Move {
                from: m.to,
                to: m.from,
                moved: m.moved,
                held: 0,
            };
            deed.moves.push(back);
            so_far.deeds.push(Deed {
                moves: vec![back],
                ..deed.clone()
            });
        }
        Ok(Decision::New(deed))
    }
}

fn in_use(holder: &Holder) -> Result<(), Refusal> {
    match holder.status {
        Status::Open => Ok(()),
        Status::Frozen => Err(Refusal::AccountFrozen),
        Status::Closed => Err(Refusal::AccountClosed),
    }
}

/// What an order would do.
fn wish(order: &NewTransfer, currency: Currency, at: DateTime<Utc>) -> Deed {
    let moves = order.credits.iter().map(|credit| {
        let amount = credit.amount.minor();
        let (moved, held) = if order.hold.is_some() {
            (0, amount)
        } else {
            (amount, 0)
        };
        Move {
            from: order.debit,
            to: credit.account,
            moved,
            held,
        }
    });
    Deed {
        id: order.id,
        kind: if order.hold.is_some() {
            Kind::Pending
        } else {
            Kind::Transfer
        },
        moves: moves.collect(),
        currency,
        at,
        original: None,
        until: order.hold.map(|hold| hold.until),
        note: order.note.as_deref().cloned().unwrap_or_default(),
    }
}

/// The same content, or the first field that differs.
fn same_transfer(first: &Deed, order: &NewTransfer, wish: &Deed) -> Result<Decision, Refusal> {
    let payees = |deed: &Deed| deed.moves.iter().map(|m| m.to).collect::<Vec<_>>();
    let amounts = |deed: &Deed| deed.moves.iter().map(|m| m.moved + m.held).collect::<Vec<_>>();
    let single = first.moves.len() == 1 && wish.moves.len() == 1;
    let same_until = order
        .hold
        .is_none_or(|hold| !hold.named || first.until == Some(hold.until));
    answer(
        first,
        &[
            (
                "transfer_id",
                matches!(first.kind, Kind::Transfer | Kind::Pending),
            ),
            ("pending", first.kind == wish.kind),
            ("from", first.moves[0].from == order.debit),
            (
                "splits",
                single || (payees(first) == payees(wish) && amounts(first) == amounts(wish)),
            ),
            ("to", payees(first) == payees(wish)),
            ("amount", amounts(first) == amounts(wish)),
            (
                "currency",
                order.currency.is_none_or(|named| named == first.currency),
            ),
            ("expires_at", same_until),
            ("reference", first.note.reference == wish.note.reference),
            ("description", first.note.description == wish.note.description),
            ("metadata", first.note.metadata == wish.note.metadata),
        ],
    )
}

fn same_end(again: &Deed, kind: Kind, pending: Uuid) -> Result<Decision, Refusal> {
    answer(
        again,
        &[
            ("transfer_id", again.kind == kind),
            ("pending_id", again.original == Some(pending)),
        ],
    )
}

fn answer(first: &Deed, same: &[(&'static str, bool)]) -> Result<Decision, Refusal> {
    match same.iter().find(|(_, same)| !same) {
        Some((field, _)) => Err(Refusal::IdReused(field)),
        None => Ok(Decision::Again(first.at)),
    }
}

fn end(id: Uuid, kind: Kind, pending: &Deed, moved: impl Fn(&Move) -> i64, at: DateTime<Utc>) -> Deed {
    let ended = |m: &Move| Move {
        moved: moved(m),
        held: -m.held,
        ..*m
    };
    Deed {
        id,
        kind,
        moves: pending.moves.iter().map(ended).collect(),
        currency: pending.currency,
        at,
        original: Some(pending.id),
        until: None,
        note: Note::default(),
    }
}
