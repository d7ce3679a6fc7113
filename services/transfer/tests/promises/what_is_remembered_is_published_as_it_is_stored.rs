//! What a replica has committed itself is published without being read again, and only if the journal has it.

use std::sync::{Arc, Mutex};

use transfer::{
    app::engine::Committed,
    store::{Page, Publication, Recent},
};
use uuid::Uuid;

use crate::world::{Replica, World, order};

const MANY: usize = 1_000;

/// A replica that publishes, and the batches that it has committed.
struct Publisher {
    replica: Replica,
    publication: Publication,
    recent: Recent,
    batches: Arc<Mutex<Vec<Committed>>>,
}

impl Publisher {
    /// One that has published all that there is.
    async fn start(world: &World) -> Self {
        let batches = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&batches);
        let replica = world.replica_that_tells(100, move |batch| told.lock().unwrap().push(batch));
        replica.users(2, 1_000).await;
        let recent = Recent::default();
        let options = world.pool().connect_options();
        let mut publication = Publication::connect(&options, recent.clone()).await.unwrap();
        assert!(publication.try_lead().await.unwrap());
        let mut publisher = Self {
            replica,
            publication,
            recent,
            batches,
        };
        assert_eq!(publisher.publish().await.rows.len(), 2);
        publisher
    }

    /// Makes so many transfers, and does not remember them yet.
    async fn commit(&self, transfers: usize) -> Vec<Committed> {
        self.batches.lock().unwrap().clear();
        for _ in 0..transfers {
            self.replica.pay(order(1, 2, 1)).await.unwrap();
        }
        self.batches.lock().unwrap().drain(..).collect()
    }

    fn remember(&self, batches: Vec<Committed>) {
        for batch in batches {
            self.recent.push(batch);
        }
    }

    async fn publish(&mut self) -> Page {
        let page = self.publication.next(MANY).await.unwrap();
        self.publication.advance(&page.rows).await.unwrap();
        page
    }
}

fn ids(page: &Page) -> Vec<Uuid> {
    page.rows.iter().map(|row| row.row.id).collect()
}

fn ids_of(batches: &[Committed]) -> Vec<Uuid> {
    batches
        .iter()
        .flat_map(|batch| batch.rows.iter().map(|row| row.id))
        .collect()
}

#[tokio::test]
async fn it_is_not_read_again() {
    let world = World::new().await;
    let mut publisher = Publisher::start(&world).await;
    let mut batches = publisher.commit(3).await;
    let stored = ids_of(&batches);
    // no reader of the journal could know this
    batches[0].rows[0].id = Uuid::now_v7();
    let remembered = ids_of(&batches);
    publisher.remember(batches);
    let page = publisher.publish().await;
    assert_eq!((ids(&page), page.full), (remembered.clone(), false));
    assert_ne!(remembered, stored);
    assert!(publisher.publish().await.rows.is_empty(), "once");
}

#[tokio::test]
async fn what_the_journal_lacks_is_not_published() {
    let world = World::new().await;
    let mut publisher = Publisher::start(&world).await;
    // as if the database had forgotten the last commit
    let batches = publisher.commit(2).await;
    let stored = ids_of(&batches);
    let mut lost = batches[1].clone();
    lost.first_sequence += 1;
    lost.rows[0].id = Uuid::now_v7();
    publisher.remember(batches);
    publisher.remember(vec![lost.clone()]);
    assert_eq!(ids(&publisher.publish().await), stored);
    // as if it had written another one in its place since
    let batches = publisher.commit(1).await;
    publisher.remember(vec![lost]);
    assert_eq!(ids(&publisher.publish().await), ids_of(&batches));
}

#[tokio::test]
async fn what_others_have_committed_is_published_in_between() {
    let world = World::new().await;
    let mut publisher = Publisher::start(&world).await;
    let other = world.replica();
    let mut expected = Vec::new();
    for _ in 0..3 {
        let batches = publisher.commit(1).await;
        expected.extend(ids_of(&batches));
        publisher.remember(batches);
        let order = order(2, 1, 1);
        expected.push(order.id);
        other.pay(order).await.unwrap();
    }
    // one that it does not remember
    expected.extend(ids_of(&publisher.commit(1).await));
    let (first, second) = (publisher.publish().await, publisher.publish().await);
    assert_eq!([ids(&first), ids(&second)].concat(), expected);
    assert!(first.full && !second.full, "it knew that there was more");
}
