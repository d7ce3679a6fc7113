//! Schedules of an export: read in pages, kept as they were. Claims and pauses are those of replicas, and not exported.

use sqlx::{PgConnection, types::Json};
use uuid::Uuid;

use super::row::{Columns, ScheduleRow};
use crate::{
    app::{
        error::Error,
        parts::{OccurrencePart, SchedulePart},
        schedules::Schedule,
    },
    store::snapshot::bounded,
};

pub(in crate::store) async fn schedules(
    connection: &mut PgConnection,
    behind: i64,
    limit: i64,
) -> Result<Vec<SchedulePart>, Error> {
    let found = sqlx::query_as!(
        ScheduleRow,
        // few: they are sorted
        r#"SELECT id, ordinal, owner_id, by_bank, created_at, from_user, from_account,
                  payee_users AS "payee_users: Vec<Option<i64>>", payee_accounts AS "payee_accounts: Vec<Option<i64>>",
                  payee_amounts, currency, pending, reference, description, metadata AS "metadata: _", first_at, unit,
                  every, occurrences, until_at, state, next_number, tries
             FROM schedules
            WHERE ordinal > $1
            ORDER BY ordinal
            LIMIT $2"#,
        behind,
        limit,
    )
    .fetch_all(connection);
    bounded(found)
        .await?
        .into_iter()
        .map(|row| {
            let tries = row.tries;
            Ok(SchedulePart {
                schedule: Schedule::try_from(row)?,
                tries,
            })
        })
        .collect()
}

pub(in crate::store) async fn occurrences(
    connection: &mut PgConnection,
    schedule: Uuid,
    behind: i64,
    limit: i64,
) -> Result<Vec<OccurrencePart>, Error> {
    let found = sqlx::query_as!(
        OccurrencePart,
        "SELECT schedule_id AS schedule, number, due_at, transfer_id AS transfer, recorded_at, refused, refused_field
           FROM schedule_runs
          WHERE schedule_id = $1
            AND number > $2
          ORDER BY schedule_id, number
          LIMIT $3",
        schedule,
        behind,
        limit,
    )
    .fetch_all(connection);
    bounded(found).await
}

pub(in crate::store) async fn keep_schedules(
    connection: &mut PgConnection,
    parts: &[SchedulePart],
) -> Result<(), sqlx::Error> {
    for SchedulePart { schedule, tries } in parts {
        let plan = &schedule.plan;
        let columns = Columns::of(plan);
        sqlx::query!(
            "INSERT INTO schedules (id, ordinal, owner_id, by_bank, created_at, from_user, from_account, payee_users,
                                    payee_accounts, payee_amounts, currency, pending, reference, description, metadata,
                                    first_at, unit, every, occurrences, until_at, state, next_number, next_at, tries)
             OVERRIDING SYSTEM VALUE
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22,
                     $23, $24)",
            plan.id,
            schedule.ordinal,
            plan.owner,
            columns.by_bank,
            schedule.created_at,
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
            schedule.state.name(),
            schedule.next,
            schedule.next_at(),
            tries,
        )
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

pub(in crate::store) async fn keep_occurrences(
    connection: &mut PgConnection,
    parts: &[OccurrencePart],
) -> Result<(), sqlx::Error> {
    let texts = |of: fn(&OccurrencePart) -> Option<&str>| parts.iter().map(of).collect::<Vec<_>>();
    sqlx::query!(
        "INSERT INTO schedule_runs (schedule_id, number, due_at, transfer_id, recorded_at, refused, refused_field)
         SELECT *
           FROM unnest($1::uuid[], $2::bigint[], $3::timestamptz[], $4::uuid[], $5::timestamptz[], $6::text[], $7::text[])",
        &parts.iter().map(|part| part.schedule).collect::<Vec<_>>(),
        &parts.iter().map(|part| part.number).collect::<Vec<_>>(),
        &parts.iter().map(|part| part.due_at).collect::<Vec<_>>(),
        &parts.iter().map(|part| part.transfer).collect::<Vec<_>>(),
        &parts.iter().map(|part| part.recorded_at).collect::<Vec<_>>(),
        &texts(|part| part.refused.as_deref()) as &[Option<&str>],
        &texts(|part| part.refused_field.as_deref()) as &[Option<&str>],
    )
    .execute(connection)
    .await
    .map(|_| ())
}
