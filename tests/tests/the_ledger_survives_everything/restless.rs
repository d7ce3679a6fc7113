//! An account that is frozen, freed, and limited, again and again, by one operator.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use proto::transfer::v1::{
    AccountStatus, FreezeAccountRequest, GetAccountRequest, SetAccountLimitsRequest, UnfreezeAccountRequest,
    ledger_account_service_client::LedgerAccountServiceClient,
};
use rand::{RngExt as _, rngs::StdRng};
use sqlx::PgPool;
use tests::{eventually, random};

use super::{
    books::Row,
    client::{Answer, Doors},
    order::{By, now},
    parties::Parties,
};

/// The lowest minimum and the highest maximum that the account ever has.
const LOWEST: i64 = -700;
const HIGHEST: i64 = 5_000;

/// What was done to the account.
#[derive(Clone, Copy, Debug)]
enum Change {
    Freeze,
    Unfreeze,
    Limits(i64, i64),
}

/// The operator.
pub struct Restless<'a> {
    doors: Doors<'a>,
    parties: &'a Parties,
    choices: StdRng,
    limits: (i64, i64),
    /// From when to when the account was frozen for sure.
    frozen: Vec<(i64, i64)>,
}

impl<'a> Restless<'a> {
    pub fn new(doors: Doors<'a>, parties: &'a Parties) -> Self {
        Self {
            doors,
            parties,
            choices: random::choices(2_000_002),
            limits: (0, HIGHEST),
            frozen: Vec::new(),
        }
    }

    /// Changes the account until a moment; then it is free.
    pub async fn work(mut self, until: Instant) -> Result<Self> {
        if !self.parties.has_account_service {
            return Ok(self);
        }
        self.change(Change::Limits(0, HIGHEST)).await?;
        while Instant::now() < until {
            if self.choices.random_range(0..2) == 0 {
                self.change(Change::Freeze).await?;
                let since = now();
                self.pass_time().await?;
                self.frozen.push((since, now()));
                self.change(Change::Unfreeze).await?;
            } else {
                let low = self.choices.random_range(LOWEST..500);
                let high = self.choices.random_range(2_000..=HIGHEST);
                self.change(Change::Limits(low, high)).await?;
                self.limits = (low, high);
            }
            self.pass_time().await?;
        }
        Ok(self)
    }

    async fn pass_time(&mut self) -> Result<()> {
        let end = now() + self.choices.random_range(50_000..800_000);
        eventually("some time has passed", Duration::from_secs(5), async || {
            ensure!(now() >= end);
            Ok(())
        })
        .await
    }

    async fn change(&mut self, change: Change) -> Result<()> {
        let (doors, caller, account_id) = (&self.doors, By::Operator.caller(), self.parties.restless.id);
        let answer = doors
            .until_answered("change of an account", &mut self.choices, async |at, patience| {
                let mut service = LedgerAccountServiceClient::new(doors.channel(at));
                match change {
                    Change::Freeze => {
                        let request =
                            doors.request(&caller, FreezeAccountRequest { account_id }, patience)?;
                        service.freeze_account(request).await.map(drop)?;
                    }
                    Change::Unfreeze => {
                        let request =
                            doors.request(&caller, UnfreezeAccountRequest { account_id }, patience)?;
                        service.unfreeze_account(request).await.map(drop)?;
                    }
                    Change::Limits(low, high) => {
                        let message = SetAccountLimitsRequest {
                            account_id,
                            minimum: Some(low),
                            maximum: Some(high),
                        };
                        let request = doors.request(&caller, message, patience)?;
                        service.set_account_limits(request).await.map(drop)?;
                    }
                }
                Ok(Answer::Done {
                    at: 0,
                    replayed: false,
                })
            })
            .await?;
        let kind = match change {
            Change::Freeze => "freeze",
            Change::Unfreeze => "unfreeze",
            Change::Limits(..) => "limits",
        };
        doors.tally.known(kind, &answer);
        ensure!(answer.is_done(), "{change:?} was {answer:?}");
        Ok(())
    }

    /// The account is as it was left, and while it was frozen nothing was done to it but to give back.
    pub async fn check(&self, ledger: &PgPool, journal: &[Row]) -> Result<()> {
        if !self.parties.has_account_service {
            return Ok(());
        }
        let account_id = self.parties.restless.id;
        let request = self.doors.request(
            &By::Operator.caller(),
            GetAccountRequest { account_id },
            Duration::from_secs(5),
        )?;
        let found = LedgerAccountServiceClient::new(self.doors.channel(1))
            .get_account(request)
            .await?;
        let found = found.into_inner().account.unwrap_or_default();
        ensure!(
            found.status() == AccountStatus::Open && (found.minimum, found.maximum) == self.limits,
            "{found:?} should be open with {:?}",
            self.limits
        );
        let rows = journal
            .iter()
            .filter(|row| row.debit == account_id || row.credit == account_id);
        for row in rows {
            let gives_back = matches!(row.kind.as_str(), "void" | "expire");
            let frozen = self
                .frozen
                .iter()
                .any(|(from, to)| (*from..*to).contains(&row.at));
            ensure!(gives_back || !frozen, "the account was frozen: {row:?}");
            let takes = row.debit == account_id && !gives_back && row.kind != "post";
            ensure!(
                !takes || row.debit_posted - row.debit_held >= LOWEST,
                "below every minimum: {row:?}"
            );
            ensure!(
                row.credit != account_id || row.credit_posted <= HIGHEST.max(row.credit_posted - row.moved),
                "above every maximum: {row:?}"
            );
        }
        let changes: i64 = sqlx::query_scalar("SELECT count(*) FROM account_changes WHERE account_id = $1")
            .bind(account_id)
            .fetch_one(ledger)
            .await?;
        ensure!(changes > 0, "no change of the account was recorded");
        Ok(())
    }
}
