//! On a real Redis that speaks TLS and asks for a password, as a managed one does: values come back, and a certificate that is not
//! the authority's, or not the host's, is refused.
#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use cache::{Cache, Config, Error, Follower};
use local::{Guard, Guarded};
use settings::Reader;
use tempfile::TempDir;
use tls::testing::Authority;

const MINUTE: Duration = Duration::from_mins(1);

/// A Redis, the authority of its certificate, and another.
struct World {
    redis: Guarded,
    known: PathBuf,
    unknown: PathBuf,
    _folder: TempDir,
}

impl World {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (authority, stranger) = (Authority::new(), Authority::new());
        let [known, unknown] = ["known.crt", "unknown.crt"].map(|name| folder.path().join(name));
        std::fs::write(&known, &authority.certificate).unwrap();
        std::fs::write(&unknown, &stranger.certificate).unwrap();
        let issued = authority.issue("127.0.0.1");
        let redis = Guarded::redis(Guard {
            certificate: &issued.certificate,
            key: &issued.key,
            user: "default",
            password: "right",
        });
        Self {
            redis: redis.await.unwrap(),
            known,
            unknown,
            _folder: folder,
        }
    }

    /// `scheme://:password@host`, with the port.
    fn connect(&self, server: &str, authority: Option<&Path>) -> Cache {
        let url = format!("{server}:{}", self.redis.port());
        let authority = authority.map_or(String::new(), |path| path.display().to_string());
        let settings = [("KONTOR_REDIS_URL", url), ("KONTOR_REDIS_CA_FILE", authority)];
        let settings: BTreeMap<_, _> = settings.map(|(name, value)| (name.to_owned(), value)).into();
        Cache::connect(&Config::read(&mut Reader::from_map(settings)).unwrap())
    }
}

/// The keys that have changed.
#[derive(Default)]
struct Heard {
    begun: Mutex<bool>,
    keys: Mutex<Vec<String>>,
}

impl Follower for Heard {
    fn begins(&self, _: Instant) {
        *self.begun.lock().unwrap() = true;
    }

    fn up_to(&self, _: Instant) {}

    fn changed(&self, key: &str) {
        self.keys.lock().unwrap().push(key.to_owned());
    }

    fn all_changed(&self) {}
}

/// What the server says: on a busy machine the first connection takes longer than a command may.
async fn answer(cache: &Cache) -> Result<Option<i32>, Error> {
    let begun = Instant::now();
    loop {
        match cache.get("a").await {
            Err(Error::Timeout | Error::Away) if begun.elapsed() < MINUTE => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            answer => return answer,
        }
    }
}

async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn values_and_changes_come_through() {
    let world = World::start().await;
    let cache = world.connect("rediss://:right@127.0.0.1", Some(&world.known));
    let heard = Arc::new(Heard::default());
    let change = async {
        until(|| *heard.begun.lock().unwrap()).await;
        assert_eq!(answer(&cache).await.unwrap(), None);
        cache.put("watched", &7, MINUTE).await.unwrap();
        assert_eq!(cache.get("watched").await.unwrap(), Some(7));
        until(|| !heard.keys.lock().unwrap().is_empty()).await;
    };
    let told = tokio::time::timeout(MINUTE, async {
        tokio::select! {
            error = cache.follow("watched", Arc::clone(&heard)) => assert_eq!(error.to_string(), ""),
            () = change => {}
        }
    });
    told.await.unwrap();
}

#[tokio::test]
async fn who_is_not_trusted_is_refused() {
    let world = World::start().await;
    for (server, authority, problem) in [
        ("rediss://:right@127.0.0.1", Some(&world.unknown), "UnknownIssuer"),
        // the public authorities did not sign it either
        ("rediss://:right@127.0.0.1", None, "UnknownIssuer"),
        // a certificate is for the address that it names
        (
            "rediss://:right@localhost",
            Some(&world.known),
            "not valid for name",
        ),
        (
            "rediss://:wrong@127.0.0.1",
            Some(&world.known),
            "authentication failed",
        ),
        // nothing is said in clear text
        ("redis://:right@127.0.0.1", None, ""),
    ] {
        let cache = world.connect(server, authority.map(PathBuf::as_path));
        let error = answer(&cache).await.unwrap_err();
        let text = format!("{error} {error:?}");
        assert!(
            matches!(error, Error::Redis(_)) && text.contains(problem),
            "{server}: {text}"
        );
        // no command waits for it, as in any outage
        let begun = Instant::now();
        while !matches!(cache.get::<i32>("a").await, Err(Error::Away)) {
            assert!(begun.elapsed() < MINUTE, "{server} is no outage");
        }
    }
    let cache = world.connect("rediss://:right@127.0.0.1", Some(&world.known));
    assert_eq!(answer(&cache).await.unwrap(), None);
}
