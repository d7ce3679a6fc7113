//! What only a real server, and a broken way to it, can show. The server is that of `KONTOR_TEST_REDIS_URL`.
#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use cache::{Cache, Config, DEADLINE, Error, Follower};
use serde::{Deserialize, Serialize};
use settings::Reader;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
};

const MINUTE: Duration = Duration::from_mins(1);

fn server() -> String {
    let default = "redis://127.0.0.1:56379".to_owned();
    Reader::from_env()
        .or("KONTOR_TEST_REDIS_URL", "server for tests", default)
        .unwrap()
}

fn connect(url: &str) -> Cache {
    let mut random = [0; 8];
    getrandom::fill(&mut random).unwrap();
    let prefix = format!("test-{:x}:", u64::from_ne_bytes(random));
    let variables = [("KONTOR_REDIS_URL", url), ("KONTOR_REDIS_PREFIX", &prefix)];
    let variables: BTreeMap<_, _> = variables
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
    Cache::connect(&Config::read(&mut Reader::from_map(variables)).unwrap())
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Session {
    user_id: i64,
}

#[tokio::test]
async fn values_come_back_until_they_expire() {
    let cache = connect(&server());
    let session = Session { user_id: 7 };
    assert_eq!(cache.get::<Session>("a").await.unwrap(), None);
    cache
        .put("a", &session, Duration::from_millis(150))
        .await
        .unwrap();
    assert_eq!(cache.get("a").await.unwrap(), Some(session));
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(cache.get::<Session>("a").await.unwrap(), None);
    cache.put("b", &1, Duration::ZERO).await.unwrap();
    assert_eq!(cache.get::<i32>("b").await.unwrap(), None);
}

#[tokio::test]
async fn only_the_first_fills_an_absent_key() {
    let cache = connect(&server());
    assert!(cache.put_if_absent("a", &1, MINUTE).await.unwrap());
    assert!(!cache.put_if_absent("a", &2, MINUTE).await.unwrap());
    assert_eq!(cache.get("a").await.unwrap(), Some(1));
    cache.delete("a").await.unwrap();
    assert!(cache.put_if_absent("a", &3, MINUTE).await.unwrap());
}

#[tokio::test]
async fn a_value_of_another_shape_is_an_error_and_no_outage() {
    let cache = connect(&server());
    cache.put("a", &"text", MINUTE).await.unwrap();
    for _ in 0..5 {
        assert!(matches!(cache.get::<Session>("a").await, Err(Error::Value(_))));
    }
    assert_eq!(cache.get::<String>("a").await.unwrap().as_deref(), Some("text"));
}

#[tokio::test]
async fn many_values_come_in_the_order_of_their_keys() {
    let cache = connect(&server());
    cache.put("a", &1, MINUTE).await.unwrap();
    cache.put("b", &"text", MINUTE).await.unwrap();
    cache.put("d", &4, MINUTE).await.unwrap();
    let keys = ["d", "b", "c", "a"].map(str::to_owned);
    assert_eq!(
        cache.get_many::<i32>(&keys).await.unwrap(),
        [Some(4), None, None, Some(1)]
    );
    assert!(cache.get_many::<i32>(&[]).await.unwrap().is_empty());
}

#[tokio::test]
async fn nobody_listens() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    drop(listener);
    let cache = connect(&url);
    for _ in 0..3 {
        assert!(matches!(cache.get::<i32>("a").await, Err(Error::Redis(_))));
    }
    assert!(matches!(cache.get::<i32>("a").await, Err(Error::Away)));
}

/// A way to the server that swallows everything until it is mended, and again when it is broken.
async fn way(broken: Arc<AtomicBool>) -> String {
    let target = server()
        .trim_start_matches("redis://")
        .split('/')
        .next()
        .unwrap()
        .to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    #[expect(clippy::disallowed_methods, reason = "the way ends with the test's runtime")]
    tokio::spawn(async move {
        let mut held = Vec::new();
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            if broken.load(Ordering::SeqCst) {
                held.push(client);
                continue;
            }
            let mut server = TcpStream::connect(&target).await.unwrap();
            tokio::spawn(async move { copy_bidirectional(&mut client, &mut server).await });
        }
    });
    url
}

#[tokio::test]
async fn a_server_that_hangs_costs_little_and_its_return_is_noticed() {
    let broken = Arc::new(AtomicBool::new(true));
    let cache = connect(&way(broken.clone()).await);
    for _ in 0..3 {
        let start = Instant::now();
        assert!(cache.get::<i32>("a").await.is_err());
        assert!(start.elapsed() < DEADLINE * 2, "{:?}", start.elapsed());
    }
    let start = Instant::now();
    for _ in 0..1000 {
        assert!(matches!(cache.get::<i32>("a").await, Err(Error::Away)));
    }
    assert!(start.elapsed() < DEADLINE, "{:?}", start.elapsed());
    broken.store(false, Ordering::SeqCst);
    let start = Instant::now();
    while cache.put("a", &1, MINUTE).await.is_err() {
        assert!(
            start.elapsed() < Duration::from_secs(3),
            "the return of the server is noticed"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(cache.get("a").await.unwrap(), Some(1));
}

/// What was heard of keys.
#[derive(Default)]
struct Heard {
    up_to: Mutex<Option<Instant>>,
    keys: Mutex<Vec<String>>,
}

impl Heard {
    async fn until(&self, moment: Instant) {
        while self.up_to.lock().unwrap().is_none_or(|up_to| up_to <= moment) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Follower for Heard {
    fn begins(&self, at: Instant) {
        *self.up_to.lock().unwrap() = Some(at);
    }

    fn up_to(&self, moment: Instant) {
        *self.up_to.lock().unwrap() = Some(moment);
    }

    fn changed(&self, key: &str) {
        self.keys.lock().unwrap().push(key.to_owned());
    }

    fn all_changed(&self) {
        self.changed("all");
    }
}

#[tokio::test]
async fn every_change_is_told_before_it_is_said_that_all_were() {
    let (cache, heard) = (connect(&server()), Arc::new(Heard::default()));
    let change = async {
        heard.until(Instant::now()).await;
        cache.put("watched:a", &1, MINUTE).await.unwrap();
        cache.put("other", &1, MINUTE).await.unwrap();
        cache
            .put("watched:b", &1, Duration::from_millis(50))
            .await
            .unwrap();
        heard.until(Instant::now()).await;
        assert_eq!(heard.keys.lock().unwrap()[..2], ["watched:a", "watched:b"]);
        // one that ends by itself changes, too
        while heard.keys.lock().unwrap().len() < 3 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(heard.keys.lock().unwrap()[2], "watched:b");
        cache.delete("watched:a").await.unwrap();
        heard.until(Instant::now()).await;
        assert_eq!(heard.keys.lock().unwrap()[3..], ["watched:a"]);
    };
    tokio::select! {
        error = cache.follow("watched:", Arc::clone(&heard)) => assert_eq!(error.to_string(), ""),
        () = change => {}
    }
}

#[tokio::test]
async fn who_hears_nothing_any_more_is_told_so() {
    let stands = Arc::new(AtomicBool::new(true));
    let cache = connect(&way(Arc::clone(&stands)).await);
    let heard = Arc::new(Heard::default());
    // a server that takes connections and says nothing
    let begun = Instant::now();
    cache.follow("watched:", Arc::clone(&heard)).await;
    assert!(begun.elapsed() < Duration::from_secs(5) && heard.up_to.lock().unwrap().is_none());
    // one that is not there
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    drop(listener);
    let error = connect(&url).follow("watched:", heard).await;
    assert!(matches!(error, Error::Redis(_)), "{error}");
}
