//! Schedules and their occurrences.
//!
//! Claims and pauses are in the database's time, which is the same for all replicas; what is due is in the caller's.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::types::Json;
use uuid::Uuid;

use self::row::{Columns, RunRow, ScheduleRow};
use super::{
    Postgres, classify,
    rows::{self, AccountRow},
};
use crate::{
    app::{
        error::Error,
        order::Party,
        schedules::{Claimed, Plan, Record, Run, Schedule, Store, refusal_name},
    },
    domain::account::Account,
};

pub(super) mod archive;
mod row;

impl Store for Postgres {
    async fn create(&self, plan: &Plan, now: DateTime<Utc>, limit: i64) -> Result<bool, Error> {
        postgres::retry(|| self.try_create(plan, now, limit))
            .await
            .map_err(classify)
    }

    async fn find(&self, id: Uuid) -> Result<Option<Schedule>, Error> {
        postgres::retry(|| {
            sqlx::query_as!(
                ScheduleRow,
                r#"SELECT id, ordinal, owner_id, by_bank, created_at, from_user, from_account,
                          payee_users AS "payee_users: Vec<Option<i64>>", payee_accounts AS "payee_accounts: Vec<Option<i64>>",
                          payee_amounts, currency, pending, reference, description, metadata AS "metadata: _", first_at, unit,
                          every, occurrences, until_at, state, next_number, tries
                     FROM schedules
                    WHERE id = $1"#,
                id,
            )
            .fetch_optional(&self.pool)
        })
        .await
        .map_err(classify)?
        .map(Schedule::try_from)
        .transpose()
    }

    async fn active(&self, owner: i64) -> Result<i64, Error> {
        postgres::retry(|| {
            sqlx::query_scalar!(
                r#"SELECT count(*) AS "count!" FROM schedules WHERE owner_id = $1 AND state = 'active'"#,
                owner
            )
            .fetch_one(&self.pool)
        })
        .await
        .map_err(classify)
    }

    async fn list(&self, owner: i64, below: Option<i64>, limit: i64) -> Result<Vec<Schedule>, Error> {
        postgres::retry(|| {
            sqlx::query_as!(
                ScheduleRow,
                r#"SELECT id, ordinal, owner_id, by_bank, created_at, from_user, from_account,
                          payee_users AS "payee_users: Vec<Option<i64>>", payee_accounts AS "payee_accounts: Vec<Option<i64>>",
                          payee_amounts, currency, pending, reference, description, metadata AS "metadata: _", first_at, unit,
                          every, occurrences, until_at, state, next_number, tries
                     FROM schedules
                    WHERE owner_id = $1
                      AND ordinal < $2
                    ORDER BY ordinal DESC
                    LIMIT $3"#,
                owner,
                below.unwrap_or(i64::MAX),
                limit,
            )
            .fetch_all(&self.pool)
        })
        .await
        .map_err(classify)?
        .into_iter()
        .map(Schedule::try_from)
        .collect()
    }

    async fn latest(&self, id: Uuid, limit: i64) -> Result<Vec<Run>, Error> {
        postgres::retry(|| {
            sqlx::query_as!(
                RunRow,
                "SELECT number, due_at, transfer_id, refused, refused_field
                   FROM schedule_runs
                  WHERE schedule_id = $1
                  ORDER BY number DESC
                  LIMIT $2",
                id,
                limit,
            )
            .fetch_all(&self.pool)
        })
        .await
        .map_err(classify)?
        .into_iter()
        .map(Run::try_from)
        .collect()
    }

    async fn cancel(&self, id: Uuid) -> Result<(), Error> {
        postgres::retry(|| {
            sqlx::query!(
                // what waits in a pause is settled at once; what is under way, when its claim ends
                "UPDATE schedules
                    SET state = 'cancelled', next_at = NULL, free_at = CASE WHEN claim IS NOT NULL THEN free_at END
                  WHERE id = $1
                    AND state = 'active'",
                id,
            )
            .execute(&self.pool)
        })
        .await
        .map_err(classify)
        .map(|_| ())
    }

    async fn accounts(&self, ids: &[i64]) -> Result<Vec<Account>, Error> {
        let found = postgres::retry(|| {
            sqlx::query_as!(
                AccountRow,
                "SELECT id, user_id, role, status, currency, posted, held, incoming, floor, ceiling, revision, position, last_at
                   FROM accounts
                  WHERE id = ANY ($1)",
                ids,
            )
            .fetch_all(&self.pool)
        })
        .await
        .map_err(classify)?;
        rows::accounts(found).map_err(classify)
    }

    async fn claim(
        &self,
        claim: Uuid,
        now: DateTime<Utc>,
        lease: Duration,
        limit: i64,
    ) -> Result<Vec<Claimed>, Error> {
        let mut found = sqlx::query_as!(
            ScheduleRow,
            // SKIP LOCKED: what another replica claims at this moment is its own
            r#"WITH due AS (
                   SELECT id
                     FROM schedules
                    WHERE state = 'active'
                      AND next_at <= $2
                      AND (free_at IS NULL OR free_at <= clock_timestamp())
                    ORDER BY next_at
                    LIMIT $4
                      FOR UPDATE SKIP LOCKED
               ), unsettled AS (
                   SELECT id
                     FROM schedules
                    WHERE state = 'cancelled'
                      AND tries > 0
                      AND (free_at IS NULL OR free_at <= clock_timestamp())
                    LIMIT $4
                      FOR UPDATE SKIP LOCKED
               )
               UPDATE schedules
                  SET claim = $1, free_at = clock_timestamp() + $3::float8 * interval '1 second', tries = tries + 1
                WHERE id IN (SELECT id FROM due UNION ALL SELECT id FROM unsettled)
            RETURNING id, ordinal, owner_id, by_bank, created_at, from_user, from_account,
                      payee_users AS "payee_users: Vec<Option<i64>>", payee_accounts AS "payee_accounts: Vec<Option<i64>>",
                      payee_amounts, currency, pending, reference, description, metadata AS "metadata: _", first_at, unit,
                      every, occurrences, until_at, state, next_number, tries"#,
            claim,
            now,
            lease.as_secs_f64(),
            limit,
        )
        .fetch_all(&self.pool)
        .await
        .map_err(classify)?
        .into_iter()
        .map(|row| {
            let tries = row.tries;
            Ok(Claimed {
                schedule: Schedule::try_from(row)?,
                tries,
            })
        })
        .collect::<Result<Vec<_>, Error>>()?;
        found.sort_by_key(|one| one.schedule.next_at());
        Ok(found)
    }

    async fn record(&self, claim: Uuid, records: &[Record]) -> Result<(), Error> {
        let (refused, fields): (Vec<_>, Vec<_>) = records
            .iter()
            .map(|record| record.run.refused.map(refusal_name))
            .map(|refused| {
                (
                    refused.map(|(name, _)| name),
                    refused.and_then(|(_, field)| field),
                )
            })
            .unzip();
        let runs = || records.iter().map(|record| &record.run);
        sqlx::query!(
            // a schedule whose claim was lost is another replica's to record
            "WITH ended AS (
                 SELECT *
                   FROM unnest($2::uuid[], $3::bigint[], $4::timestamptz[], $5::uuid[], $6::text[], $7::text[],
                               $8::timestamptz[])
                            AS ended (id, number, due_at, transfer_id, refused, refused_field, next_at)
             ), advanced AS (
                 UPDATE schedules
                    SET next_number = next_number + 1,
                        state = CASE WHEN state = 'active' AND ended.next_at IS NULL THEN 'finished' ELSE state END,
                        next_at = CASE WHEN state = 'active' THEN ended.next_at END,
                        claim = NULL, free_at = NULL, tries = 0
                   FROM ended
                  WHERE schedules.id = ended.id
                    AND schedules.claim = $1
                    AND schedules.next_number = ended.number
              RETURNING ended.*
             )
             INSERT INTO schedule_runs (schedule_id, number, due_at, transfer_id, refused, refused_field)
             SELECT id, number, due_at, transfer_id, refused, refused_field
               FROM advanced",
            claim,
            &records.iter().map(|record| record.schedule).collect::<Vec<_>>(),
            &runs().map(|run| run.number).collect::<Vec<_>>(),
            &runs().map(|run| run.due_at).collect::<Vec<_>>(),
            &runs().map(|run| run.transfer_id).collect::<Vec<_>>(),
            &refused as &[Option<&str>],
            &fields as &[Option<&str>],
            &records.iter().map(|record| record.next_at).collect::<Vec<_>>() as &[Option<DateTime<Utc>>],
        )
        .execute(&self.pool)
        .await
        .map_err(classify)
        .map(|_| ())
    }

    async fn pause(&self, claim: Uuid, pauses: &[(Uuid, Duration)]) -> Result<(), Error> {
        let (ids, millis): (Vec<Uuid>, Vec<i64>) = pauses
            .iter()
            .map(|(id, pause)| (*id, i64::try_from(pause.as_millis()).unwrap_or(i64::MAX)))
            .unzip();
        sqlx::query!(
            "UPDATE schedules
                SET claim = NULL,
                    free_at = CASE WHEN state = 'active' THEN clock_timestamp() + paused.millis * interval '1 millisecond' END
               FROM unnest($2::uuid[], $3::bigint[]) AS paused (id, millis)
              WHERE schedules.id = paused.id
                AND schedules.claim = $1",
            claim,
            &ids,
            &millis,
        )
        .execute(&self.pool)
        .await
        .map_err(classify)
        .map(|_| ())
    }

    async fn drop_occurrences(&self, claim: Uuid, ids: &[Uuid]) -> Result<(), Error> {
        sqlx::query!(
            "UPDATE schedules
                SET claim = NULL, free_at = NULL, tries = 0
              WHERE id = ANY ($2)
                AND claim = $1
                AND state = 'cancelled'",
            claim,
            ids,
        )
        .execute(&self.pool)
        .await
        .map_err(classify)
        .map(|_| ())
    }

    async fn made(&self, transfer: Uuid, from: Party) -> Result<bool, Error> {
        let (user, account) = row::party(from);
        let mut transaction = postgres::begin(&self.pool).await.map_err(classify)?;
        // a transaction that makes the transfer holds this lock until its commit: behind it the journal tells
        sqlx::query!(
            "SELECT id
               FROM accounts
              WHERE id = $1 OR (user_id = $2 AND role = 'main')
                FOR NO KEY UPDATE",
            account,
            user,
        )
        .fetch_optional(&mut *transaction)
        .await
        .map_err(classify)?;
        let made = sqlx::query_scalar!(
            r#"SELECT EXISTS (SELECT FROM journal WHERE id = $1) AS "made!""#,
            transfer
        )
        .fetch_one(&mut *transaction)
        .await
        .map_err(classify)?;
        transaction.commit().await.map_err(classify)?;
        Ok(made)
    }

    async fn next_due(&self, after: DateTime<Utc>) -> Result<Option<DateTime<Utc>>, Error> {
        sqlx::query_scalar!(
            "SELECT min(next_at) FROM schedules WHERE state = 'active' AND next_at > $1",
            after
        )
        .fetch_one(&self.pool)
        .await
        .map_err(classify)
    }
}

impl Postgres {
    /// False when there is one with the id, or no room for one more.
    async fn try_create(&self, plan: &Plan, now: DateTime<Utc>, limit: i64) -> Result<bool, sqlx::Error> {
        let mut transaction = postgres::begin(&self.pool).await?;
        // one plan of a user at a time: else two could both see room for one more
        sqlx::query!(
            "SELECT pg_advisory_xact_lock(hashtextextended('schedules', $1))",
            plan.owner
        )
        .execute(&mut *transaction)
        .await?;
        let columns = Columns::of(plan);
        let created = sqlx::query!(
            "INSERT INTO schedules (id, owner_id, by_bank, created_at, from_user, from_account, payee_users, payee_accounts,
                                    payee_amounts, currency, pending, reference, description, metadata, first_at, unit,
                                    every, occurrences, until_at, next_at)
             SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $15
              WHERE (SELECT count(*) FROM schedules WHERE owner_id = $2 AND state = 'active') < $20
                 ON CONFLICT (id) DO NOTHING",
            plan.id,
            plan.owner,
            columns.by_bank,
            now,
            columns.from_user,
            columns.from_account,
            &columns.payee_users as &[Option<i64>],
            &columns.payee_accounts as &[Option<i64>],
            &columns.payee_amounts,
            columns.currency,
            plan.transfer.pending,
            columns.reference,
            columns.description,
            columns.metadata as Option<Json<_>>,
            plan.timing.first,
            columns.unit,
            columns.every,
            columns.count,
            columns.until,
            limit,
        )
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(created.rows_affected() == 1)
    }
}
