//! Users with money, and with sessions.

use anyhow::{Result, ensure};
use local::{Service, World};
use rpc::caller::Key;
use sqlx::{Connection, PgConnection};
use std::time::Duration;

use super::{
    generator::{Http2, Plan, Source, run},
    requests::{Deposits, Openings, USERS},
    usage::Meter,
};

/// Opens an account for each user and pays money in, by the service itself.
pub(super) async fn open_accounts(world: &World, key: &Key, meter: &Meter) -> Result<()> {
    every(world, Openings::new(key)?, meter).await?;
    every(world, Deposits::new(key)?, meter).await
}

async fn every(world: &World, source: impl Source, meter: &Meter) -> Result<()> {
    let address = world.address(Service::Transfer, 0)?;
    let plan = Plan {
        warm_up: Duration::ZERO,
        ..Plan::closed(address, 64, Duration::from_mins(1))
    };
    let path = source.path();
    let measured = run::<Http2, _>(plan, source, meter.clone()).await?;
    ensure!(
        measured.accepted == USERS.cast_unsigned(),
        "{path}: only {} of {USERS} were accepted; refused: {}",
        measured.accepted,
        measured.refusals()
    );
    Ok(())
}

/// Signs each user in, in auth's database: a password hash takes too long to do it 10,000 times.
pub(super) async fn sign_in(world: &World) -> Result<()> {
    let mut auth = PgConnection::connect(&world.database_url(Service::Auth)).await?;
    sqlx::query(
        "INSERT INTO credentials (user_id, login_key)
         SELECT id, sha256(id::text::bytea) FROM generate_series(1, $1) AS id",
    )
    .bind(USERS)
    .execute(&mut auth)
    .await?;
    sqlx::query(
        "INSERT INTO sessions (token_digest, user_id, role, created_at, expires_at)
         SELECT sha256(lpad(id::text, 43, '0')::bytea), id, 'user', now(), now() + interval '1 day'
         FROM generate_series(1, $1) AS id",
    )
    .bind(USERS)
    .execute(&mut auth)
    .await?;
    auth.close().await?;
    Ok(())
}
