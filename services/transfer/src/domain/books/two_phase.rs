//! What is done to earlier transfers: post, void, expire, reverse.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{
    super::{
        command::{Authority, Note, Refusal},
        journal::{Kind, Row},
        money::Amount,
    },
    Books, Done, Entry, Undo, check_credit, check_debit,
    known::{Known, same_action},
    usable,
};

/// What a user is to a transfer.
struct Part {
    payer: bool,
    payee: bool,
    /// Nobody else is paid.
    only_payee: bool,
}

impl Books {
    pub(super) fn post(
        &mut self,
        id: Uuid,
        by: Authority,
        pending: Uuid,
        amount: Option<Amount>,
        at: DateTime<Utc>,
    ) -> Result<Done, Refusal> {
        let known = self.pending(pending, by, |part| part.payer || part.payee)?;
        if let Some(again) = self.known.get(&id) {
            return same_action(
                self.legs_of(again),
                Kind::Post,
                pending,
                "pending_id",
                amount,
                None,
            );
        }
        self.still_pending(&known, at)?;
        let rows = self.legs_of(&known).to_vec();
        let total: i64 = rows.iter().map(|row| row.held).sum();
        let part = amount.map_or(total, Amount::minor);
        if part > total {
            return Err(Refusal::ExceedsPending);
        }
        if part < total && rows.len() > 1 {
            return Err(Refusal::PartOfSplit);
        }
        for row in &rows {
            usable(self.find(row.debit)?)?;
            usable(self.find(row.credit)?)?;
        }
        let moved = |row: &Row| if rows.len() > 1 { row.held } else { part };
        for row in &rows {
            self.end_leg(id, Kind::Post, row, moved(row), at)?;
        }
        Ok(self.learn_end(id, pending, rows.len(), at))
    }

    pub(super) fn void(
        &mut self,
        id: Uuid,
        by: Authority,
        pending: Uuid,
        at: DateTime<Utc>,
    ) -> Result<Done, Refusal> {
        let known = self.pending(pending, by, |part| part.only_payee)?;
        if let Some(again) = self.known.get(&id) {
            return same_action(self.legs_of(again), Kind::Void, pending, "pending_id", None, None);
        }
        self.still_pending(&known, at)?;
        self.give_back(id, Kind::Void, pending, &known, at)
    }

    pub(super) fn expire(&mut self, id: Uuid, pending: Uuid, at: DateTime<Utc>) -> Result<Done, Refusal> {
        let known = self.pending(pending, Authority::Bank, |_| true)?;
        if let Some(again) = self.known.get(&id) {
            return same_action(
                self.legs_of(again),
                Kind::Expire,
                pending,
                "pending_id",
                None,
                None,
            );
        }
        match self.still_pending(&known, at) {
            Ok(()) => Err(Refusal::NotExpired),
            Err(Refusal::PendingExpired) if known.end.is_none() => {
                self.give_back(id, Kind::Expire, pending, &known, at)
            }
            Err(refusal) => Err(refusal),
        }
    }

    pub(super) fn reverse(
        &mut self,
        id: Uuid,
        by: Authority,
        original: Uuid,
        note: Option<&Arc<Note>>,
        at: DateTime<Utc>,
    ) -> Result<Done, Refusal> {
        let (known, part) = self.concerning(by, original)?;
        if !part.only_payee {
            return Err(Refusal::NotYourAccount);
        }
        if let Some(again) = self.known.get(&id) {
            return same_action(
                self.legs_of(again),
                Kind::Reversal,
                original,
                "original_id",
                None,
                note,
            );
        }
        let first = self.legs_of(&known).first().ok_or(Refusal::TransferNotFound)?;
        let moved = match (first.kind, &known.end) {
            (Kind::Transfer, _) => known.rows.clone(),
            (Kind::Pending, Some(end)) => end.clone(),
            (Kind::Pending, None) => return Err(Refusal::NotPosted),
            (Kind::Post | Kind::Void | Kind::Expire | Kind::Reversal, _) => {
                return Err(Refusal::NotReversible);
            }
        };
        let rows = self.rows.get(moved).unwrap_or_default().to_vec();
        if rows.iter().any(|row| row.moved == 0) {
            return Err(Refusal::NotPosted);
        }
        if known.reversed {
            return Err(Refusal::AlreadyReversed);
        }
        for row in &rows {
            let (debit, credit) = (self.find(row.credit)?, self.find(row.debit)?);
            check_debit(debit, row.moved)?;
            check_credit(credit, debit, row.moved)?;
            self.enter(Entry {
                id,
                kind: Kind::Reversal,
                debit: row.credit,
                credit: row.debit,
                moved: row.moved,
                held: 0,
                at,
                original: Some(original),
                expires_at: None,
                note,
            })?;
        }
        self.change_known(original, |known| known.reversed = true);
        Ok(self.learn(id, rows.len(), at))
    }

    /// The pending transfer of an id, on which somebody may act who has such a part in it.
    fn pending(&self, id: Uuid, by: Authority, may: fn(&Part) -> bool) -> Result<Known, Refusal> {
        let (known, part) = self.concerning(by, id)?;
        match self.legs_of(&known).first() {
            Some(row) if row.kind == Kind::Pending => {}
            Some(_) => return Err(Refusal::NotPending),
            None => return Err(Refusal::TransferNotFound),
        }
        if may(&part) {
            Ok(known)
        } else {
            Err(Refusal::NotYourAccount)
        }
    }

    /// Whether a pending transfer can still be posted or voided.
    fn still_pending(&self, known: &Known, at: DateTime<Utc>) -> Result<(), Refusal> {
        let ended = known.end.as_ref().and_then(|end| self.rows.get(end.start));
        match ended.map(|row| row.kind) {
            Some(Kind::Post) => Err(Refusal::AlreadyPosted),
            Some(Kind::Void) => Err(Refusal::AlreadyVoided),
            Some(_) => Err(Refusal::PendingExpired),
            None => {
                let over = self
                    .legs_of(known)
                    .iter()
                    .any(|row| row.expires_at.is_some_and(|end| end <= at));
                if over {
                    Err(Refusal::PendingExpired)
                } else {
                    Ok(())
                }
            }
        }
    }

    /// What is known of a transfer, and the caller's part in it. A user who has none does not learn that there is one.
    fn concerning(&self, by: Authority, id: Uuid) -> Result<(Known, Part), Refusal> {
        let known = self.known.get(&id).ok_or(Refusal::TransferNotFound)?;
        let Authority::User(user) = by else {
            let bank = Part {
                payer: true,
                payee: true,
                only_payee: true,
            };
            return Ok((known.clone(), bank));
        };
        let rows = self.legs_of(known);
        let owns = |account: i64| {
            self.accounts
                .get(&account)
                .is_some_and(|account| account.owner == Some(user))
        };
        let paid = rows.iter().filter(|row| owns(row.credit)).count();
        let part = Part {
            // the reversal of a split has several payers
            payer: rows.iter().any(|row| owns(row.debit)),
            payee: paid > 0,
            only_payee: paid > 0 && paid == rows.len(),
        };
        if part.payer || part.payee {
            Ok((known.clone(), part))
        } else {
            Err(Refusal::TransferNotFound)
        }
    }

    fn give_back(
        &mut self,
        id: Uuid,
        kind: Kind,
        pending: Uuid,
        known: &Known,
        at: DateTime<Utc>,
    ) -> Result<Done, Refusal> {
        let rows = self.legs_of(known).to_vec();
        for row in &rows {
            self.end_leg(id, kind, row, 0, at)?;
        }
        Ok(self.learn_end(id, pending, rows.len(), at))
    }

    fn end_leg(
        &mut self,
        id: Uuid,
        kind: Kind,
        pending: &Row,
        moved: i64,
        at: DateTime<Utc>,
    ) -> Result<(), Refusal> {
        self.enter(Entry {
            id,
            kind,
            debit: pending.debit,
            credit: pending.credit,
            moved,
            held: -pending.held,
            at,
            original: Some(pending.id),
            expires_at: None,
            note: None,
        })
    }

    fn learn_end(&mut self, id: Uuid, pending: Uuid, legs: usize, at: DateTime<Utc>) -> Done {
        let end = self.rows.len();
        self.change_known(pending, |known| known.end = Some(end - legs..end));
        self.learn(id, legs, at)
    }

    fn change_known(&mut self, id: Uuid, change: impl FnOnce(&mut Known)) {
        if let Some(known) = self.known.get_mut(&id) {
            self.undo.push(Undo::Known(id, Some(known.clone())));
            change(known);
        }
    }
}
