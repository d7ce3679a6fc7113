//! Users with money, and with sessions.

use anyhow::{Result, ensure};
use local::{Service, World};
use rpc::caller::Key;
use sqlx::{Connection, PgConnection};
use std::time::Duration;

use super::{
    generator::{Http1, Http2, Link, Plan, Source, run},
    requests::{Deposits, JsonTransfers, Openings, USERS},
    usage::Meter,
};

/// Opens an account for each user and pays money in, by the service itself.
pub(super) async fn open_accounts(world: &World, key: &Key, meter: &Meter) -> Result<()> {
    let address = world.address(Service::Transfer, 0)?;
    let plan = Plan::closed(address, 64, Duration::from_mins(1));
    every::<Http2>(plan, Openings::new(key)?, meter).await?;
    every::<Http2>(plan, Deposits::new(key)?, meter).await
}

/// Has the gateway see each session once: it comes from auth then, and is known from there on.
pub(super) async fn present_sessions(world: &World, seed: u64, meter: &Meter) -> Result<()> {
    let address = world.address(Service::Gateway, 0)?;
    let plan = Plan::closed(address, 64, Duration::from_mins(1)).one_on_each();
    every::<Http1>(plan, JsonTransfers::one_of_each(seed), meter).await
}

async fn every<L: Link + 'static>(plan: Plan, source: impl Source, meter: &Meter) -> Result<()> {
    let plan = Plan {
        warm_up: Duration::ZERO,
        ..plan
    };
    let path = source.path();
    let measured = run::<L, _>(plan, source, meter.clone()).await?;
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
