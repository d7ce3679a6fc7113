//! Chat in PostgreSQL.

mod histories;
mod messages;
mod rooms;
mod users;

use ::events::Relay;
use sqlx::PgPool;

use crate::{
    app::{Created, Draft, Message, NewRoom, Retry, Room, Standing, Store, Stored},
    domain::{direct::Pair, user::Status},
};

/// Chat in one database.
#[derive(Clone)]
pub struct Postgres {
    pool: PgPool,
    relay: Relay,
}

impl Postgres {
    /// Chat in the database behind `pool`; `relay` publishes its events.
    pub fn new(pool: PgPool, relay: Relay) -> Self {
        Self { pool, relay }
    }
}

/// What the error means for a caller.
fn failed(error: sqlx::Error) -> Retry {
    if postgres::is_unavailable(&error) {
        Retry::Later(error.into())
    } else {
        Retry::Never(error.into())
    }
}

impl Store for Postgres {
    async fn send(&self, room: i64, draft: &Draft) -> Result<Stored, Retry> {
        let stored = postgres::retry(|| messages::send(&self.pool, room, draft))
            .await
            .map_err(failed)?;
        self.relay.wake();
        Ok(stored)
    }

    async fn send_direct(&self, pair: Pair, draft: &Draft) -> Result<Stored, Retry> {
        let stored = postgres::retry(|| messages::send_direct(&self.pool, pair, draft))
            .await
            .map_err(failed)?;
        self.relay.wake();
        Ok(stored)
    }

    async fn message(&self, id: uuid::Uuid) -> Result<Option<Message>, Retry> {
        postgres::retry(|| messages::find(&self.pool, id))
            .await
            .map_err(failed)
    }

    async fn create_room(&self, room: &NewRoom, limit: i64) -> Result<Created, Retry> {
        let created = postgres::retry(|| rooms::create(&self.pool, room, limit))
            .await
            .map_err(failed)?;
        self.relay.wake();
        Ok(created)
    }

    async fn created_room(&self, room: &NewRoom) -> Result<Option<Created>, Retry> {
        postgres::retry(|| rooms::created(&self.pool, room))
            .await
            .map_err(failed)
    }

    async fn rooms(&self, user: i64, below: Option<i64>, limit: i64) -> Result<Vec<Room>, Retry> {
        postgres::retry(|| rooms::list(&self.pool, user, below, limit))
            .await
            .map_err(failed)
    }

    async fn newest_rooms(&self, user: i64, named: &[i64], limit: i64) -> Result<Vec<i64>, Retry> {
        postgres::retry(|| rooms::newest(&self.pool, user, named, limit))
            .await
            .map_err(failed)
    }

    async fn standings(&self, rooms: &[i64]) -> Result<Vec<Standing>, Retry> {
        postgres::retry(|| rooms::standings(&self.pool, rooms))
            .await
            .map_err(failed)
    }

    async fn direct_room(&self, pair: Pair) -> Result<Option<i64>, Retry> {
        postgres::retry(|| rooms::direct(&self.pool, pair))
            .await
            .map_err(failed)
    }

    async fn is_member(&self, room: i64, user: i64) -> Result<bool, Retry> {
        postgres::retry(|| rooms::is_member(&self.pool, room, user))
            .await
            .map_err(failed)
    }

    async fn messages_before(
        &self,
        room: i64,
        before: Option<i64>,
        limit: i64,
    ) -> Result<Vec<Message>, Retry> {
        postgres::retry(|| histories::before(&self.pool, room, before, limit))
            .await
            .map_err(failed)
    }

    async fn messages_after(&self, room: i64, after: i64, limit: i64) -> Result<Vec<Message>, Retry> {
        postgres::retry(|| histories::after(&self.pool, room, after, limit))
            .await
            .map_err(failed)
    }

    async fn users(&self, ids: &[i64]) -> Result<Vec<(i64, Status)>, Retry> {
        postgres::retry(|| users::statuses(&self.pool, ids))
            .await
            .map_err(failed)
    }

    async fn remember_active(&self, user: i64) -> Result<(), Retry> {
        postgres::retry(|| users::remember_active(&self.pool, user))
            .await
            .map_err(failed)
    }
}

pub use users::{Projection, Unreadable};
