//! A collector that accepts connections and never answers costs neither time nor memory without bound.

use std::{
    collections::BTreeMap,
    process::ExitCode,
    time::{Duration, Instant},
};

use tokio::net::TcpListener;

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_collector_disturbs_nobody() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let variables = BTreeMap::from([("KONTOR_OTLP_ENDPOINT".to_owned(), endpoint)]);
    let config = telemetry::Config::read(&mut settings::Reader::from_map(variables)).unwrap();
    let start = Instant::now();
    let code = telemetry::run("tester", &config, &[], async {
        for _ in 0..20_000 {
            tracing::info_span!("work").in_scope(|| {});
        }
        assert!(
            start.elapsed() < Duration::from_secs(2),
            "spans beyond the queue are dropped, not waited for"
        );
        Ok::<(), &str>(())
    })
    .await;
    assert_eq!(
        code,
        ExitCode::SUCCESS,
        "telemetry that cannot be sent is no failure of the program"
    );
    assert!(
        start.elapsed() < Duration::from_secs(8),
        "the flush is bounded: {:?}",
        start.elapsed()
    );
    drop(listener);
}
