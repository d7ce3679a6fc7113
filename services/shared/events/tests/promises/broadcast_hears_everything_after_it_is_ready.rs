use std::sync::{Arc, Mutex};

use events::{
    Relay,
    consume::{Broadcast, Delivery},
};

use crate::world::{World, eventually};

#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<String>>>);

impl Heard {
    fn listen(&self, world: &World) -> Broadcast {
        let heard = self.0.clone();
        Broadcast::start(
            "ears",
            "things",
            &world.config,
            &world.lifecycle,
            move |delivery| {
                heard.lock().unwrap().push(match delivery {
                    Delivery::Reset => "reset".to_owned(),
                    Delivery::Record(record) => String::from_utf8_lossy(&record.payload).into_owned(),
                });
            },
        )
    }

    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

#[tokio::test]
async fn every_instance_hears_every_new_record_and_none_before() {
    let world = World::start(&["things"]).await;
    let relay = Relay::start(&world.pool, &world.config, &world.lifecycle);
    world.enqueue("things", "1", "old").await;
    relay.wake();
    world.drained().await;
    let ears = [Heard::default(), Heard::default()];
    for ear in &ears {
        let consumer = ear.listen(&world);
        consumer.ready().wait_for(|ready| *ready).await.unwrap();
    }
    for key in ["1", "2", "3"] {
        world.enqueue("things", key, &format!("new {key}")).await;
    }
    relay.wake();
    for ear in &ears {
        eventually("all are heard", async || ear.all().len() == 4).await;
        let mut heard = ear.all();
        assert_eq!(heard.remove(0), "reset");
        heard.sort();
        assert_eq!(heard, ["new 1", "new 2", "new 3"]);
    }
    world.stop().await;
}

#[tokio::test]
async fn new_partitions_are_heard_after_a_reset() {
    let world = World::start(&["things"]).await;
    let ear = Heard::default();
    let consumer = ear.listen(&world);
    consumer.ready().wait_for(|ready| *ready).await.unwrap();
    world.grow("things", 24).await;
    eventually("a second reset", async || ear.all().len() == 2).await;
    consumer.ready().wait_for(|ready| *ready).await.unwrap();
    let relay = Relay::start(&world.pool, &world.config, &world.lifecycle);
    for key in 0..100 {
        world.enqueue("things", &key.to_string(), &key.to_string()).await;
    }
    relay.wake();
    eventually("all are heard", async || ear.all().len() == 102).await;
    assert!(
        world
            .read_all("things")
            .await
            .iter()
            .any(|record| record.partition >= 6)
    );
    world.stop().await;
}

#[tokio::test]
async fn a_topic_that_comes_later_is_found_and_one_made_anew_is_a_reset() {
    let world = World::start(&[]).await;
    let relay = Relay::start(&world.pool, &world.config, &world.lifecycle);
    let ear = Heard::default();
    let consumer = ear.listen(&world);
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    assert!(!*consumer.ready().borrow(), "there is no topic");
    world.create_topic("things").await;
    consumer.ready().wait_for(|ready| *ready).await.unwrap();
    for number in 0..3 {
        world.enqueue("things", "1", &format!("old {number}")).await;
    }
    relay.wake();
    eventually("the topic is heard", async || ear.all().len() == 4).await;

    // the consumer stands at an offset that the new topic does not have
    world.delete_topic("things").await;
    eventually("the name is free", async || {
        world.create_topic("things").await;
        ear.all().len() == 5
    })
    .await;
    assert_eq!(ear.all()[4], "reset");
    consumer.ready().wait_for(|ready| *ready).await.unwrap();
    world.enqueue("things", "1", "new").await;
    relay.wake();
    eventually("the new topic is heard", async || {
        ear.all().last().unwrap() == "new"
    })
    .await;
    world.stop().await;
}
