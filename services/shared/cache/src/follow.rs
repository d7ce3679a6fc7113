//! Hears of changed keys: the broadcasting mode of Redis' client-side caching
//! (<https://redis.io/docs/latest/develop/reference/client-side-caching/>).

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use redis::{
    AsyncConnectionConfig, Client, ProtocolVersion, PushInfo, PushKind, Value, aio::MultiplexedConnection,
};
use tokio::time::{sleep, timeout};

use crate::{Cache, DEADLINE, Error};

/// How often the server is asked whether everything was heard.
const BEAT: Duration = Duration::from_millis(100);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Is told of changes.
pub trait Follower: Send + Sync + 'static {
    /// From `at` on it is told of every change.
    fn begins(&self, at: Instant);
    /// It has been told of every change that was acknowledged before `moment`.
    fn up_to(&self, moment: Instant);
    /// A key has another value now, or none any more.
    fn changed(&self, key: &str);
    /// Any key may have.
    fn all_changed(&self);
}

impl Cache {
    /// Tells `follower` of changes of the keys that begin with `prefix`, until the connection ends or its server does not answer
    /// in time. Why it ended.
    ///
    /// The server sends over one connection, and tells of a change when it acknowledges it, or before. So an answer says that every
    /// change has been told that was acknowledged before its question.
    pub async fn follow<F: Follower>(&self, prefix: &str, follower: Arc<F>) -> Error {
        let Err(error) = self.follow_on(prefix, follower).await;
        error
    }

    async fn follow_on<F: Follower>(
        &self,
        prefix: &str,
        follower: Arc<F>,
    ) -> Result<std::convert::Infallible, Error> {
        let mut connection = self.connect_to_follow(Arc::clone(&follower)).await?;
        let mut track = redis::cmd("CLIENT");
        track
            .arg("TRACKING")
            .arg("ON")
            .arg("BCAST")
            .arg("PREFIX")
            .arg(self.key(prefix));
        answer(&track, &mut connection).await?;
        follower.begins(Instant::now());
        let ping = redis::cmd("PING");
        loop {
            let asked = Instant::now();
            answer(&ping, &mut connection).await?;
            follower.up_to(asked);
            sleep(BEAT).await;
        }
    }

    async fn connect_to_follow<F: Follower>(&self, follower: Arc<F>) -> Result<MultiplexedConnection, Error> {
        let info = self.0.client.get_connection_info().clone();
        // the older protocol has no word for what nobody has asked
        let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        let prefix = self.0.prefix.clone();
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(DEADLINE))
            .set_push_sender(move |push: PushInfo| {
                tell(&*follower, &prefix, push);
                Ok::<_, redis::aio::SendError>(())
            });
        let client = Client::open(info.set_redis_settings(settings))?;
        Ok(client
            .get_multiplexed_async_connection_with_config(&config)
            .await?)
    }
}

async fn answer(command: &redis::Cmd, connection: &mut MultiplexedConnection) -> Result<(), Error> {
    let answered = timeout(DEADLINE, command.query_async::<Value>(connection)).await;
    answered
        .map_err(|_| Error::Timeout)?
        .map(drop)
        .map_err(Error::from)
}

fn tell(follower: &impl Follower, prefix: &str, push: PushInfo) {
    if push.kind != PushKind::Invalidate {
        return;
    }
    for value in push.data {
        let Value::Array(keys) = value else {
            // a null: the database was emptied
            follower.all_changed();
            continue;
        };
        for key in keys {
            let name: Option<String> = redis::from_redis_value(key).ok();
            match name.as_deref().and_then(|name| name.strip_prefix(prefix)) {
                Some(key) => follower.changed(key),
                None => follower.all_changed(),
            }
        }
    }
}
