//! The use cases on a real PostgreSQL and a real Redis (`KONTOR_TEST_POSTGRES_URL`, `KONTOR_TEST_REDIS_URL`).
#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use auth::{
    MIGRATOR,
    app::{Auth, Clock, Error, Store as _},
    domain::{Role, email::LoginKey, password::Password, session::TokenDigest},
    passwords::Argon2id,
    session_cache::Redis,
    store::Postgres,
};
use cache::Cache;
use chrono::{DateTime, TimeDelta, Utc};
use postgres::testing::Database;
use settings::Reader;
use tokio::sync::mpsc;

#[derive(Clone)]
struct SetClock(Arc<Mutex<DateTime<Utc>>>);

impl Clock for SetClock {
    fn now(&self) -> DateTime<Utc> {
        *self.0.lock().unwrap()
    }
}

impl SetClock {
    fn advance(&self, by: TimeDelta) {
        *self.0.lock().unwrap() += by;
    }
}

struct World {
    auth: Auth<Postgres, Redis, Argon2id, SetClock>,
    cache: Cache,
    clock: SetClock,
    revocations: mpsc::Receiver<TokenDigest>,
    database: Database,
}

fn cache(url: &str) -> Cache {
    let mut random = [0; 8];
    getrandom::fill(&mut random).unwrap();
    let prefix = format!("test-{:x}:", u64::from_ne_bytes(random));
    let variables = [("KONTOR_REDIS_URL", url), ("KONTOR_REDIS_PREFIX", &prefix)];
    let variables: BTreeMap<_, _> = variables
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
    Cache::connect(&cache::Config::read(&mut Reader::from_map(variables)).unwrap())
}

async fn world_with(redis: &str) -> World {
    let database = Database::create(&MIGRATOR).await;
    let cache = cache(redis);
    let clock = SetClock(Arc::new(Mutex::new(
        DateTime::from_timestamp(1_800_000_000, 0).unwrap(),
    )));
    let (sender, revocations) = mpsc::channel(8);
    let auth = Auth {
        store: Postgres::new(database.pool.clone()),
        cache: Redis::new(cache.clone()),
        passwords: Argon2id::new(),
        clock: clock.clone(),
        session_lifetime: Duration::from_hours(24),
        revocations: sender,
    };
    World {
        auth,
        cache,
        clock,
        revocations,
        database,
    }
}

async fn world() -> World {
    let default = "redis://127.0.0.1:56379".to_owned();
    world_with(
        &Reader::from_env()
            .or("KONTOR_TEST_REDIS_URL", "server for tests", default)
            .unwrap(),
    )
    .await
}

fn email(text: &str) -> LoginKey {
    LoginKey::of(text).unwrap()
}

fn password(text: &str) -> Password {
    Password::presented(text.to_owned()).unwrap()
}

#[tokio::test]
async fn a_session_begins_is_found_and_ends() {
    let world = world().await;
    let auth = &world.auth;
    auth.create_credential(7, email("Alice@example.com"), Some(password("password123")))
        .await
        .unwrap();
    let started = auth
        .login(email("alice@EXAMPLE.com"), password("password123"))
        .await
        .unwrap();
    let digest = started.token.digest();
    assert_eq!(auth.resolve(digest).await.unwrap(), started.session);
    assert_eq!((started.session.user_id, started.session.role), (7, Role::User));
    let key = format!("session:{digest}");
    let copy: serde_json::Value = world.cache.get(&key).await.unwrap().unwrap();
    assert_eq!(
        copy,
        serde_json::json!({"user_id": 7, "role": "user", "expires_at": 1_800_086_400})
    );

    auth.logout(digest).await.unwrap();
    auth.logout(digest)
        .await
        .expect("ending an ended session succeeds");
    assert!(matches!(auth.resolve(digest).await, Err(Error::SessionInvalid)));
    assert_eq!(
        world.cache.get::<String>(&key).await.unwrap().as_deref(),
        Some("revoked")
    );
}

#[tokio::test]
async fn a_copy_that_comes_late_does_not_undo_the_end_of_a_session() {
    let world = world().await;
    let auth = &world.auth;
    auth.create_credential(7, email("a@b.c"), Some(password("password123")))
        .await
        .unwrap();
    let started = auth.login(email("a@b.c"), password("password123")).await.unwrap();
    auth.logout(started.token.digest()).await.unwrap();
    // a reader that saw the row before it was deleted writes its copy only now
    let late = Redis::new(world.cache.clone());
    auth::app::SessionCache::fill(
        &late,
        started.token.digest(),
        &started.session,
        Duration::from_mins(1),
    )
    .await
    .unwrap();
    let key = format!("session:{}", started.token.digest());
    assert_eq!(
        world.cache.get::<String>(&key).await.unwrap().as_deref(),
        Some("revoked")
    );
}

#[tokio::test]
async fn only_the_right_password_signs_in() {
    let world = world().await;
    let auth = &world.auth;
    auth.create_credential(1, email("a@b.c"), Some(password("password123")))
        .await
        .unwrap();
    auth.create_credential(2, email("nobody@b.c"), None)
        .await
        .unwrap();
    for (who, what) in [
        ("a@b.c", "password124"),
        ("x@b.c", "password123"),
        ("nobody@b.c", "password123"),
    ] {
        let result = auth.login(email(who), password(what)).await;
        assert!(matches!(result, Err(Error::InvalidCredentials)), "{who}");
    }
}

#[tokio::test]
async fn creating_a_credential_again_changes_nothing() {
    let world = world().await;
    let auth = &world.auth;
    assert!(!auth.has_credential(1).await.unwrap());
    auth.create_credential(1, email("a@b.c"), Some(password("password123")))
        .await
        .unwrap();
    auth.create_credential(1, email("A@b.c"), Some(password("another password")))
        .await
        .unwrap();
    assert!(auth.has_credential(1).await.unwrap());
    auth.login(email("a@b.c"), password("password123"))
        .await
        .expect("the first password stays");
    let taken = auth.create_credential(2, email("a@b.c"), None).await;
    assert!(matches!(taken, Err(Error::EmailTaken)));
    let other = auth.create_credential(1, email("b@b.c"), None).await;
    assert!(matches!(other, Err(Error::CredentialExists)));
}

#[tokio::test]
async fn simultaneous_creations_make_one_credential() {
    let world = world().await;
    let auth = &world.auth;
    let create = || auth.create_credential(1, email("a@b.c"), Some(password("password123")));
    let (one, two, three) = tokio::join!(create(), create(), create());
    one.and(two).and(three).unwrap();
    let other = || auth.create_credential(2, email("b@b.c"), Some(password("password123")));
    let taken = || auth.create_credential(3, email("b@b.c"), Some(password("password123")));
    let (one, two) = tokio::join!(other(), taken());
    assert!(
        one.is_ok() != two.is_ok(),
        "an email has one user: {one:?} {two:?}"
    );
}

#[tokio::test]
async fn an_old_hash_is_renewed_at_sign_in() {
    let world = world().await;
    let old = Argon2id::with(argon2::Params::new(64, 1, 1, None).unwrap(), 1, 1);
    let hash = auth::app::Passwords::hash(&old, password("password123"))
        .await
        .unwrap();
    world
        .auth
        .store
        .create_credential(1, email("a@b.c"), Some(&hash))
        .await
        .unwrap();
    world
        .auth
        .login(email("a@b.c"), password("password123"))
        .await
        .unwrap();
    let renewed = world
        .auth
        .store
        .credential(email("a@b.c"))
        .await
        .unwrap()
        .unwrap()
        .password_hash
        .unwrap();
    assert!(
        renewed.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"),
        "{renewed}"
    );
    world
        .auth
        .login(email("a@b.c"), password("password123"))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_role_counts_from_the_next_sign_in() {
    let world = world().await;
    let auth = &world.auth;
    assert!(matches!(
        auth.grant_role(1, Role::Operator).await,
        Err(Error::CredentialNotFound)
    ));
    auth.create_credential(1, email("a@b.c"), Some(password("password123")))
        .await
        .unwrap();
    let before = auth.login(email("a@b.c"), password("password123")).await.unwrap();
    auth.grant_role(1, Role::Operator).await.unwrap();
    assert_eq!(
        auth.resolve(before.token.digest()).await.unwrap().role,
        Role::User
    );
    let after = auth.login(email("a@b.c"), password("password123")).await.unwrap();
    assert_eq!(after.session.role, Role::Operator);
}

#[tokio::test]
async fn sessions_expire_and_are_swept_in_batches() {
    let world = world().await;
    let auth = &world.auth;
    auth.create_credential(1, email("a@b.c"), Some(password("password123")))
        .await
        .unwrap();
    let old = auth.login(email("a@b.c"), password("password123")).await.unwrap();
    sqlx::query(
        "INSERT INTO sessions (token_digest, user_id, role, created_at, expires_at)
         SELECT sha256(n::text::bytea), 1, 'user', to_timestamp(0), to_timestamp(1 + n)
           FROM generate_series(1, 2500) AS n",
    )
    .execute(&world.database.pool)
    .await
    .unwrap();
    world.clock.advance(TimeDelta::hours(23));
    let young = auth.login(email("a@b.c"), password("password123")).await.unwrap();
    world.clock.advance(TimeDelta::hours(1));
    assert!(
        matches!(auth.resolve(old.token.digest()).await, Err(Error::SessionInvalid)),
        "it ends to the second"
    );
    assert_eq!(auth.sweep().await.unwrap(), 2501);
    assert_eq!(auth.sweep().await.unwrap(), 0);
    auth.resolve(young.token.digest()).await.unwrap();
}

#[tokio::test]
async fn without_redis_sessions_go_on_and_ends_are_told_later() {
    let mut world = world_with("redis://127.0.0.1:1").await;
    let auth = &world.auth;
    auth.create_credential(1, email("a@b.c"), Some(password("password123")))
        .await
        .unwrap();
    let started = auth.login(email("a@b.c"), password("password123")).await.unwrap();
    let digest = started.token.digest();
    auth.resolve(digest).await.unwrap();
    auth.logout(digest).await.unwrap();
    assert!(matches!(auth.resolve(digest).await, Err(Error::SessionInvalid)));
    assert_eq!(world.revocations.recv().await, Some(digest));
}
