//! Rooms and their members.

use sqlx::{PgConnection, PgExecutor, PgPool};

use crate::{
    app::{Created, NewRoom, Room, Standing},
    domain::direct::Pair,
    events,
};

/// The advisory locks of those who create rooms.
const CREATORS: i32 = 1;

/// The room of two, if they ever wrote.
pub(super) async fn direct(executor: impl PgExecutor<'_>, pair: Pair) -> Result<Option<i64>, sqlx::Error> {
    sqlx::query_scalar!(
        "SELECT id
           FROM rooms
          WHERE low_user = $1
            AND high_user = $2",
        pair.low(),
        pair.high()
    )
    .fetch_optional(executor)
    .await
}

/// The room of two, opened when there is none, with its event.
pub(super) async fn open_direct(transaction: &mut PgConnection, pair: Pair) -> Result<i64, sqlx::Error> {
    if let Some(room) = direct(&mut *transaction, pair).await? {
        return Ok(room);
    }
    // waits for another transaction that opens the same room
    let opened = sqlx::query_scalar!(
        "INSERT INTO rooms (low_user, high_user)
         VALUES ($1, $2)
         ON CONFLICT ON CONSTRAINT rooms_direct_unique DO NOTHING
         RETURNING id",
        pair.low(),
        pair.high()
    )
    .fetch_optional(&mut *transaction)
    .await?;
    match opened {
        Some(room) => {
            join(transaction, room, &[pair.low(), pair.high()]).await?;
            Ok(room)
        }
        // the other one has committed, and rooms are never removed
        None => direct(transaction, pair).await?.ok_or(sqlx::Error::RowNotFound),
    }
}

/// Creates a room and its event; or finds what the same request has created, and whether it asked for the same.
pub(super) async fn create(pool: &PgPool, room: &NewRoom, limit: i64) -> Result<Created, sqlx::Error> {
    let mut transaction = postgres::begin(pool).await?;
    // one creation at a time for each creator, so that none slips past the count below
    sqlx::query!(
        "SELECT pg_advisory_xact_lock($1, hashint8($2))",
        CREATORS,
        room.creator
    )
    .execute(&mut *transaction)
    .await?;
    // waits for another transaction of the same request
    let created = sqlx::query_scalar!(
        "INSERT INTO rooms (name, creator_id, request_id)
         VALUES ($1, $2, $3)
         ON CONFLICT ON CONSTRAINT rooms_request_unique DO NOTHING
         RETURNING id",
        room.name,
        room.creator,
        room.request
    )
    .fetch_optional(&mut *transaction)
    .await?;
    let Some(id) = created else {
        transaction.rollback().await?;
        // rooms are never removed
        return self::created(pool, room).await?.ok_or(sqlx::Error::RowNotFound);
    };
    // rooms_request_unique; the new one counts
    let count = sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!"
             FROM rooms
            WHERE creator_id = $1"#,
        room.creator
    )
    .fetch_one(&mut *transaction)
    .await?;
    if count > limit {
        transaction.rollback().await?;
        return Ok(Created::Full);
    }
    join(&mut transaction, id, &room.members).await?;
    transaction.commit().await?;
    Ok(Created::Room(id))
}

/// What the request has created before.
pub(super) async fn created(pool: &PgPool, room: &NewRoom) -> Result<Option<Created>, sqlx::Error> {
    let row = sqlx::query!(
        r#"SELECT id, name,
                  (SELECT array_agg(user_id ORDER BY user_id) FROM members WHERE room_id = rooms.id) AS members
             FROM rooms
            WHERE creator_id = $1
              AND request_id = $2"#,
        room.creator,
        room.request
    )
    .fetch_optional(pool)
    .await?;
    Ok(row.map(|row| {
        let same = row.name.as_ref() == Some(&room.name) && row.members.as_ref() == Some(&room.members);
        if same {
            Created::Room(row.id)
        } else {
            Created::Other
        }
    }))
}

/// Rooms of a user, newest first.
pub(super) async fn list(
    pool: &PgPool,
    user: i64,
    below: Option<i64>,
    limit: i64,
) -> Result<Vec<Room>, sqlx::Error> {
    let rows = sqlx::query!(
        "SELECT r.id, r.name, r.low_user, r.high_user, r.last_seq
           FROM members m
           JOIN rooms r ON r.id = m.room_id
          WHERE m.user_id = $1
            AND m.room_id < $2
          ORDER BY m.room_id DESC -- members_pkey, backwards
          LIMIT $3",
        user,
        below.unwrap_or(i64::MAX),
        limit
    )
    .fetch_all(pool)
    .await?;
    let room = rows.into_iter().map(|row| Room {
        id: row.id,
        name: row.name,
        pair: row
            .low_user
            .zip(row.high_user)
            .and_then(|(low, high)| Pair::new(low, high)),
        last_seq: row.last_seq,
    });
    Ok(room.collect())
}

/// The newest rooms of a user, and the named ones that are the user's.
pub(super) async fn newest(
    pool: &PgPool,
    user: i64,
    named: &[i64],
    limit: i64,
) -> Result<Vec<i64>, sqlx::Error> {
    sqlx::query_scalar!(
        r#"SELECT room_id AS "room_id!"
             FROM members
            WHERE user_id = $1
              AND room_id = ANY($2)
            UNION
          (SELECT room_id
             FROM members
            WHERE user_id = $1
            ORDER BY room_id DESC -- members_pkey, backwards
            LIMIT $3)"#,
        user,
        named,
        limit
    )
    .fetch_all(pool)
    .await
}

/// Where rooms stand.
pub(super) async fn standings(pool: &PgPool, rooms: &[i64]) -> Result<Vec<Standing>, sqlx::Error> {
    sqlx::query_as!(
        Standing,
        "SELECT id AS room, last_seq
           FROM rooms
          WHERE id = ANY($1)",
        rooms
    )
    .fetch_all(pool)
    .await
}

/// Whether the user is a member of the room.
pub(super) async fn is_member(pool: &PgPool, room: i64, user: i64) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT
                            FROM members
                           WHERE user_id = $1
                             AND room_id = $2) AS "is_member!""#,
        user,
        room
    )
    .fetch_one(pool)
    .await
}

/// Makes users members of a room that this transaction has made, and tells of it.
async fn join(transaction: &mut PgConnection, room: i64, members: &[i64]) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO members (user_id, room_id)
         SELECT user_id, $2
           FROM unnest($1::bigint[]) AS user_id",
        members,
        room
    )
    .execute(&mut *transaction)
    .await?;
    events::outgoing::room_opened(transaction, room, members).await
}
