//! A program that is not ours (kcat) reads what kontor publishes: the key, the headers with the trace, and a payload that the
//! contract decodes.

use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use prost::Message as _;
use proto::{
    account::v1::UserChanged,
    chat::v1::{ChatEvent, chat_event::Event},
};
use tests::{TestWorld, eventually, promise, world::Options};
use tokio::process::Command;
use uuid::Uuid;

/// A record, as kcat shows it.
#[derive(Debug)]
struct Record {
    key: String,
    headers: Vec<(String, String)>,
    payload: Vec<u8>,
}

impl Record {
    fn header(&self, name: &str) -> Result<&str> {
        let found = self.headers.iter().find(|(header, _)| header == name);
        found
            .map(|(_, value)| value.as_str())
            .with_context(|| format!("no {name} in {:?}", self.headers))
    }
}

/// Every record of a topic from its beginning to its end, partition by partition.
async fn records(world: &TestWorld, topic: &str) -> Result<Vec<Record>> {
    let topic = world.local().topic(topic);
    let places = kcat(world, &topic, &["-e", "-f", "%p %o\\n"]).await?;
    let mut records = Vec::new();
    for place in String::from_utf8(places)?.lines() {
        let (partition, offset) = place.split_once(' ').context("no place")?;
        // one record at a time: the payload is binary
        let read = async |format| {
            kcat(
                world,
                &topic,
                &["-p", partition, "-o", offset, "-c", "1", "-f", format],
            )
            .await
        };
        let headers = String::from_utf8(read("%h").await?)?;
        records.push(Record {
            key: String::from_utf8(read("%k").await?)?,
            headers: headers
                .split(',')
                .filter_map(|pair| pair.split_once('='))
                .map(owned)
                .collect(),
            payload: read("%s").await?,
        });
    }
    Ok(records)
}

fn owned((name, value): (&str, &str)) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

async fn kcat(world: &TestWorld, topic: &str, arguments: &[&str]) -> Result<Vec<u8>> {
    let beginning: &[&str] = if arguments.contains(&"-o") {
        &[]
    } else {
        &["-o", "beginning"]
    };
    let output = Command::new("kcat")
        .args(["-C", "-q", "-u", "-b", world.local().kafka_brokers(), "-t", topic])
        .args(beginning)
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .context("kcat does not run")?;
    ensure!(
        output.status.success(),
        "kcat: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(output.stdout)
}

/// The headers that every event has. The trace is the caller's, and the writer's span within it.
fn has_the_envelope(record: &Record, trace_id: &str) -> Result<()> {
    let parts: Vec<_> = record.header("traceparent")?.split('-').collect();
    ensure!(
        parts.len() == 4 && parts[0] == "00" && parts[1] == trace_id,
        "{record:?} is not of {trace_id}"
    );
    Uuid::parse_str(record.header("event-id")?)?;
    ensure!(!record.header("event-type")?.is_empty());
    ensure!(
        record.header("content-type")? == "application/x-protobuf",
        "{record:?}"
    );
    Ok(())
}

#[test]
fn a_message_is_a_record_with_key_headers_and_payload() -> Result<()> {
    promise(async {
        // traces are exported, so that there is one to carry
        let collector = tests::Collector::start().await?;
        let otlp_endpoint = Some(collector.endpoint());
        let world = TestWorld::start(Options {
            otlp_endpoint,
            ..Options::default()
        })
        .await?;
        let (mut alice, bob) = (world.user("Alice", 0).await?, world.user("Bob", 0).await?);
        let trace_id = Uuid::new_v4().simple().to_string();
        alice.rest = alice
            .rest
            .with("traceparent", &format!("00-{trace_id}-00f067aa0ba902b7-01"))?;
        let id = Uuid::new_v4();
        let sent = alice.write(bob.id, "a letter", id).await?.expect(201)?;
        let room = sent["room_id"].as_i64().context("no room")?;
        let records = eventually(
            "both events are published",
            std::time::Duration::from_secs(30),
            async || {
                let records = records(&world, "chat.messages").await?;
                ensure!(records.len() >= 2, "{} records", records.len());
                Ok(records)
            },
        )
        .await?;
        ensure!(records.len() == 2, "{records:?}");
        let mut events = Vec::new();
        for record in &records {
            ensure!(
                record.key == room.to_string(),
                "the key of {record:?} is not the room {room}"
            );
            has_the_envelope(record, &trace_id)?;
            events.push(
                ChatEvent::decode(record.payload.as_slice())?
                    .event
                    .context("an empty event")?,
            );
        }
        // the room comes before its first message
        let [Event::RoomOpened(opened), Event::MessageSent(message)] = events.as_slice() else {
            anyhow::bail!("{events:?}");
        };
        let mut members = opened.member_ids.clone();
        members.sort_unstable();
        ensure!(
            (opened.room_id, members) == (room, vec![alice.id, bob.id]),
            "{opened:?}"
        );
        ensure!(
            (message.room_id, message.seq, message.sender_id) == (room, 1, alice.id),
            "{message:?}"
        );
        ensure!(
            message.content == "a letter" && message.message_id == id.to_string(),
            "{message:?}"
        );
        Ok(())
    })
}

#[test]
fn a_user_is_a_record_without_a_name() -> Result<()> {
    promise(async {
        let world = TestWorld::start(Options::default()).await?;
        let alice = world.user("Alice", 0).await?;
        let records = eventually(
            "the event is published",
            std::time::Duration::from_secs(30),
            async || {
                let records = records(&world, "account.users").await?;
                ensure!(!records.is_empty());
                Ok(records)
            },
        )
        .await?;
        for record in records {
            ensure!(record.key == alice.id.to_string(), "{record:?}");
            let event = UserChanged::decode(record.payload.as_slice())?;
            ensure!(event.user_id == alice.id, "{event:?}");
            let text = String::from_utf8_lossy(&record.payload).into_owned();
            ensure!(!text.contains("Alice") && !text.contains('@'), "{text}");
        }
        Ok(())
    })
}
