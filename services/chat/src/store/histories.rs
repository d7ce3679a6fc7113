//! Pages of messages. A page ends early when its texts are long, so that it fits into one answer.

use chrono::{DateTime, Utc};
use sqlx::PgPool;
use uuid::Uuid;

use super::messages::receiver;
use crate::app::Message;

/// How many bytes of text a page holds; the message that passes the limit is its last one.
const PAGE_BYTES: i64 = 1_048_576;

struct Row {
    id: Uuid,
    room_id: i64,
    seq: i64,
    sender_id: i64,
    content: String,
    created_at: DateTime<Utc>,
    low_user: Option<i64>,
    high_user: Option<i64>,
}

/// The newest messages before a position, oldest first.
pub(super) async fn before(
    pool: &PgPool,
    room: i64,
    before: Option<i64>,
    limit: i64,
) -> Result<Vec<Message>, sqlx::Error> {
    let rows = sqlx::query_as!(
        Row,
        r#"SELECT p.id AS "id!", p.room_id AS "room_id!", p.seq AS "seq!", p.sender_id AS "sender_id!",
                  p.content AS "content!", p.created_at AS "created_at!", r.low_user, r.high_user
             FROM (SELECT m.*, sum(octet_length(m.content)) OVER (ORDER BY m.seq DESC) AS bytes
                     FROM (SELECT *
                             FROM messages
                            WHERE room_id = $1
                              AND seq < $2
                            ORDER BY seq DESC -- messages_room_seq_unique, backwards
                            LIMIT $3) m) p
             JOIN rooms r ON r.id = p.room_id
            WHERE p.bytes - octet_length(p.content) < $4
            ORDER BY p.seq"#,
        room,
        before.unwrap_or(i64::MAX),
        limit,
        PAGE_BYTES
    )
    .fetch_all(pool)
    .await?;
    Ok(rows.into_iter().map(message).collect())
}

/// The messages after a position, oldest first.
pub(super) async fn after(
    pool: &PgPool,
    room: i64,
    after: i64,
    limit: i64,
) -> Result<Vec<Message>, sqlx::Error> {
    let rows = sqlx::query_as!(
        Row,
        r#"SELECT p.id AS "id!", p.room_id AS "room_id!", p.seq AS "seq!", p.sender_id AS "sender_id!",
                  p.content AS "content!", p.created_at AS "created_at!", r.low_user, r.high_user
             FROM (SELECT m.*, sum(octet_length(m.content)) OVER (ORDER BY m.seq) AS bytes
                     FROM (SELECT *
                             FROM messages
                            WHERE room_id = $1
                              AND seq > $2
                            ORDER BY seq -- messages_room_seq_unique
                            LIMIT $3) m) p
             JOIN rooms r ON r.id = p.room_id
            WHERE p.bytes - octet_length(p.content) < $4
            ORDER BY p.seq"#,
        room,
        after,
        limit,
        PAGE_BYTES
    )
    .fetch_all(pool)
    .await?;
    Ok(rows.into_iter().map(message).collect())
}

fn message(row: Row) -> Message {
    Message {
        id: row.id,
        room: row.room_id,
        seq: row.seq,
        sender: row.sender_id,
        receiver: receiver(row.low_user, row.high_user, row.sender_id),
        content: row.content,
        at: row.created_at,
    }
}
