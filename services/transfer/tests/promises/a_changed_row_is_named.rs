//! VerifyLedger finds whatever was changed behind the ledger's back, and names the first place.

use std::time::Duration;

use sqlx::AssertSqlSafe;
use tokio::sync::mpsc;
use transfer::app::audit::{self, Bad, Head, Progress, Report};

use super::{
    histories::{self, seed, written},
    world::{Replica, World, signer},
};

/// The result of a verification that goes to its end.
pub async fn verify(replica: &Replica, known: Vec<Head>) -> (Progress, Option<Bad>, Vec<Head>) {
    let (reports, mut told) = mpsc::channel(1);
    let read = async {
        let mut before = 0;
        loop {
            match told.recv().await.unwrap() {
                Report::Progress(progress) => {
                    assert!(progress.rows >= before);
                    before = progress.rows;
                }
                Report::Done(progress, bad, heads) => return (progress, bad, heads),
            }
        }
    };
    let signer = signer();
    let (verified, result) = tokio::join!(audit::verify(&replica.store, &signer, known, &reports), read);
    verified.unwrap();
    result
}

/// Nothing may be wrong; the heads.
pub async fn assert_sound(world: &World, replica: &Replica) -> Vec<Head> {
    let (progress, bad, heads) = verify(replica, Vec::new()).await;
    assert_eq!(bad, None);
    assert_eq!(progress.rows, world.sql("SELECT count(*) FROM journal").await);
    assert_eq!(progress.total_rows, progress.rows);
    assert_eq!(
        progress.accounts,
        world.sql("SELECT count(*) FROM accounts").await
    );
    heads
}

/// Does something that the database itself would refuse.
pub async fn tamper(world: &World, statements: &[&str]) {
    let mut transaction = postgres::begin(world.pool()).await.unwrap();
    for table in ["journal", "batches"] {
        let disable = format!("ALTER TABLE {table} DISABLE TRIGGER USER");
        sqlx::query(AssertSqlSafe(disable))
            .execute(&mut *transaction)
            .await
            .unwrap();
    }
    for statement in statements {
        let changed = sqlx::query(AssertSqlSafe((*statement).to_owned()))
            .execute(&mut *transaction)
            .await
            .unwrap();
        assert!(changed.rows_affected() > 0, "{statement}");
    }
    for table in ["journal", "batches"] {
        let enable = format!("ALTER TABLE {table} ENABLE TRIGGER USER");
        sqlx::query(AssertSqlSafe(enable))
            .execute(&mut *transaction)
            .await
            .unwrap();
    }
    transaction.commit().await.unwrap();
}

/// A row somewhere in the middle, of a lane and behind its first batch.
async fn some_row(world: &World, condition: &str) -> (i32, i64) {
    let statement = format!(
        "SELECT lane, sequence
           FROM journal
          WHERE lane = (SELECT lane FROM journal GROUP BY lane ORDER BY count(*) DESC LIMIT 1)
            AND sequence > 10
            AND {condition}
          ORDER BY sequence OFFSET 1 LIMIT 1"
    );
    sqlx::query_as(AssertSqlSafe(statement))
        .fetch_one(world.pool())
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_sound_ledger_nothing_is_named() {
    let (world, replicas) = written(3, seed(), 200).await;
    let lanes = world.sql("SELECT count(DISTINCT lane) FROM journal").await;
    assert_eq!(lanes, 3);
    let heads = assert_sound(&world, &replicas[0]).await;
    assert_eq!(heads.len(), 3);
    // known heads stay good while the ledger goes on
    replicas[0].pay(super::world::order(1, 2, 1)).await.unwrap();
    let (_, bad, later) = verify(&replicas[1], heads.clone()).await;
    assert_eq!(bad, None);
    let (_, bad, _) = verify(&replicas[1], [heads, later].concat()).await;
    assert_eq!(bad, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn also_while_writers_work() {
    let seed = seed();
    let (world, replicas) = written(3, seed, 100).await;
    let writing = histories::write(&replicas, seed.wrapping_add(1), 400);
    let verifying = async {
        let mut verified = Vec::new();
        for _ in 0..5 {
            let (progress, bad, _) = verify(&replicas[0], Vec::new()).await;
            assert_eq!(bad, None);
            verified.push(progress.rows);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        verified
    };
    let ((), verified) = tokio::join!(writing, verifying);
    assert!(verified.is_sorted());
    assert_sound(&world, &replicas[0]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_was_changed_in_it() {
    let (world, replicas) = written(3, seed(), 120).await;
    for change in [
        "moved = moved + 1, debit_posted = debit_posted - 1, credit_posted = credit_posted + 1",
        "debit_posted = debit_posted + 1",
        "credit_held = credit_held + 1",
        "debit_account = 99, debit_position = 1",
        "description = 'another text'",
        "reference = NULL, description = NULL, metadata = NULL",
        "metadata = '{\"key 0\": \"another\"}'",
        "metadata = '{\"key 0\": 1}'",
        "metadata = '[]'",
        "created_at = created_at + interval '1 microsecond'",
        "created_at = created_at + interval '10 years'",
        "created_at = created_at - interval '10 years'",
        "signature = signature + 1",
        "currency = 'EUR'",
        "currency = 'QQQ'",
        "id = gen_random_uuid()",
        "leg = 7",
    ] {
        let (lane, sequence) = some_row(&world, "kind = 'transfer' AND description IS NOT NULL").await;
        let here = format!("lane = {lane} AND sequence = {sequence}");
        let keep = format!("CREATE TABLE kept AS SELECT * FROM journal WHERE {here}");
        tamper(
            &world,
            &[&keep, &format!("UPDATE journal SET {change} WHERE {here}")],
        )
        .await;
        let (_, bad, _) = verify(&replicas[0], Vec::new()).await;
        let bad = bad.unwrap();
        assert_eq!((bad.lane, bad.sequence), (lane, sequence), "{change}: {bad}");
        assert!(bad.transfer.is_some() && bad.batch > 0, "{change}: {bad:?}");
        tamper(
            &world,
            &[
                &format!("DELETE FROM journal WHERE {here}"),
                "INSERT INTO journal SELECT * FROM kept",
                "DROP TABLE kept",
            ][..2],
        )
        .await;
        sqlx::query("DROP TABLE kept")
            .execute(world.pool())
            .await
            .unwrap();
    }
    assert_sound(&world, &replicas[0]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn or_taken_out_of_it() {
    let (world, replicas) = written(2, seed(), 120).await;
    let (lane, sequence) = some_row(&world, "true").await;
    let here = format!("lane = {lane} AND sequence = {sequence}");
    tamper(&world, &[&format!("DELETE FROM journal WHERE {here}")]).await;
    let (_, bad, _) = verify(&replicas[0], Vec::new()).await;
    let bad = bad.unwrap();
    assert_eq!(
        (bad.lane, bad.sequence, bad.transfer),
        (lane, sequence, None),
        "{bad}"
    );
    assert!(bad.batch > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn or_put_into_another_place() {
    let (world, replicas) = written(2, seed(), 120).await;
    let (lane, sequence) = some_row(&world, "true").await;
    let move_to = |from: i64, to: i64| {
        format!("UPDATE journal SET sequence = {to} WHERE lane = {lane} AND sequence = {from}")
    };
    let steps = [
        move_to(sequence, -1),
        move_to(sequence + 3, sequence),
        move_to(-1, sequence + 3),
    ];
    tamper(&world, &steps.each_ref().map(String::as_str)).await;
    let (_, bad, _) = verify(&replicas[0], Vec::new()).await;
    let bad = bad.unwrap();
    assert_eq!((bad.lane, bad.sequence), (lane, sequence), "{bad}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn or_cut_off_its_end() {
    let (world, replicas) = written(2, seed(), 120).await;
    let heads = assert_sound(&world, &replicas[0]).await;
    // nothing that is left depends on it
    let lane = world
        .sql("SELECT lane::bigint FROM journal ORDER BY created_at DESC LIMIT 1")
        .await;
    let (last, others): (Vec<Head>, Vec<Head>) = heads.iter().partition(|head| i64::from(head.lane) == lane);
    let last = last[0];
    let cut = format!(
        "lane = {} AND created_at = (SELECT created_at FROM batches WHERE lane = {0} AND number = {})",
        last.lane, last.batch
    );
    // as cleverly as it can be done: everything beside the journal is changed to fit
    let statements = [
        format!("CREATE TABLE gone AS SELECT * FROM journal WHERE {cut}"),
        format!("DELETE FROM journal WHERE {cut}"),
        format!(
            "DELETE FROM batches WHERE lane = {} AND number = {}",
            last.lane, last.batch
        ),
    ];
    tamper(&world, &statements.each_ref().map(String::as_str)).await;
    rebuild_accounts(&world).await;
    let (_, bad, _) = verify(&replicas[0], others).await;
    assert_eq!(bad, None, "from inside it cannot be seen");
    let (_, bad, now) = verify(&replicas[0], heads.clone()).await;
    let bad = bad.unwrap();
    let ends = now.iter().find(|head| head.lane == last.lane).unwrap().sequence;
    assert_eq!((bad.lane, bad.sequence), (last.lane, ends + 1), "{bad}");
    // and when the lane grows over it, it is another one
    let (_, bad, _) = verify(
        &replicas[0],
        vec![Head {
            hash: [7; 32],
            ..*now.iter().find(|head| head.lane == last.lane).unwrap()
        }],
    )
    .await;
    let bad = bad.unwrap();
    assert_eq!((bad.lane, bad.sequence), (last.lane, ends), "{bad}");
}

/// Makes the accounts and the pending transfers what the journal says.
async fn rebuild_accounts(world: &World) {
    sqlx::raw_sql(
        "UPDATE accounts a
            SET (posted, held, incoming, position, last_at) =
                (SELECT coalesce(sum(posted), 0), coalesce(sum(held), 0), coalesce(sum(incoming), 0), count(*),
                        coalesce(max(at), 'epoch')
                   FROM (SELECT -moved AS posted, held, 0 AS incoming, created_at AS at
                           FROM journal WHERE debit_account = a.id
                          UNION ALL
                         SELECT moved, 0, held, created_at FROM journal WHERE credit_account = a.id) AS entry);
         DELETE FROM holds;
         INSERT INTO holds
         SELECT id, expires_at
           FROM journal p
          WHERE kind = 'pending' AND leg = 0
            AND NOT EXISTS (SELECT FROM journal e WHERE e.original_id = p.id AND e.kind <> 'reversal')",
    )
    .execute(world.pool())
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn or_said_of_a_batch() {
    let (world, replicas) = written(2, seed(), 120).await;
    let (lane, sequence) = some_row(&world, "true").await;
    let (number, first): (i64, i64) = sqlx::query_as(
        "SELECT number, first_sequence FROM batches WHERE lane = $1 AND first_sequence <= $2 ORDER BY number DESC LIMIT 1",
    )
    .bind(lane)
    .bind(sequence)
    .fetch_one(world.pool())
    .await
    .unwrap();
    for change in [
        "hash = sha256('forged')",
        "row_count = row_count + 1",
        "first_sequence = first_sequence + 1",
        "created_at = created_at + interval '1 microsecond'",
        "number = 1000000",
    ] {
        let here = format!("lane = {lane} AND number = {number}");
        let keep = format!("CREATE TABLE kept AS SELECT * FROM batches WHERE {here}");
        tamper(
            &world,
            &[&keep, &format!("UPDATE batches SET {change} WHERE {here}")],
        )
        .await;
        let (_, bad, _) = verify(&replicas[0], Vec::new()).await;
        let bad = bad.unwrap();
        let rows = first..=first + world.sql("SELECT row_count::bigint FROM kept").await;
        assert!(
            bad.lane == lane && rows.contains(&bad.sequence),
            "{change}: {bad:?} is not in {rows:?}"
        );
        assert!((number..=number + 1).contains(&bad.batch), "{change}: {bad:?}");
        tamper(
            &world,
            &[
                &format!("DELETE FROM batches WHERE {here} OR lane = {lane} AND number = 1000000"),
                "INSERT INTO batches SELECT * FROM kept",
            ],
        )
        .await;
        sqlx::query("DROP TABLE kept")
            .execute(world.pool())
            .await
            .unwrap();
    }
    assert_sound(&world, &replicas[0]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn or_added_without_the_key() {
    let (world, replicas) = written(2, seed(), 120).await;
    let lane = 1;
    let end = world
        .sql("SELECT max(sequence) FROM journal WHERE lane = 1")
        .await;
    let forged = [
        "INSERT INTO journal (lane, leg, sequence, id, debit_account, credit_account, moved, held, debit_position,
                              credit_position, debit_posted, debit_held, credit_posted, credit_held, created_at, signature,
                              kind, currency)
         SELECT 1, 0, (SELECT max(sequence) + 1 FROM journal WHERE lane = 1), gen_random_uuid(), d.id, c.id, 5, 0,
                d.position + 1, c.position + 1, d.posted - 5, d.held, c.posted + 5, c.held, now(), 1234, 'transfer', 'USD'
           FROM accounts d, accounts c
          WHERE d.user_id = 1 AND c.user_id = 2",
        "INSERT INTO batches
         SELECT 1, max(number) + 1, (SELECT max(sequence) FROM journal WHERE lane = 1), 1, now(), sha256('forged')
           FROM batches WHERE lane = 1",
        "UPDATE accounts
            SET posted = posted + CASE user_id WHEN 1 THEN -5 ELSE 5 END, position = position + 1,
                last_at = (SELECT max(created_at) FROM journal WHERE lane = 1)
          WHERE user_id IN (1, 2)",
    ];
    tamper(&world, &forged).await;
    let (_, bad, _) = verify(&replicas[0], Vec::new()).await;
    let bad = bad.unwrap();
    assert_eq!((bad.lane, bad.sequence), (lane, end + 1), "{bad}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn or_changed_beside_it() {
    let (world, replicas) = written(2, seed(), 120).await;
    let account = world.sql("SELECT id FROM accounts WHERE user_id = 3").await;
    for change in [
        "posted = posted + 1",
        "held = held + 1",
        "incoming = incoming + 1",
        "position = position + 1",
        "currency = 'EUR'",
        "last_at = last_at + interval '1 hour'",
    ] {
        let here = "CREATE TABLE kept AS SELECT * FROM accounts WHERE user_id = 3";
        sqlx::query(here).execute(world.pool()).await.unwrap();
        tamper(
            &world,
            &[&format!("UPDATE accounts SET {change} WHERE user_id = 3")],
        )
        .await;
        let (_, bad, _) = verify(&replicas[0], Vec::new()).await;
        let bad = bad.unwrap();
        assert_eq!(
            (bad.sequence, bad.account),
            (0, Some(account)),
            "{change}: {bad:?}"
        );
        sqlx::raw_sql(
            "UPDATE accounts a
                SET (posted, held, incoming, position, currency, last_at) =
                    (SELECT posted, held, incoming, position, currency, last_at FROM kept)
              WHERE user_id = 3;
             DROP TABLE kept",
        )
        .execute(world.pool())
        .await
        .unwrap();
    }
    assert_sound(&world, &replicas[0]).await;
    tamper(&world, &["INSERT INTO holds VALUES (gen_random_uuid(), now())"]).await;
    let (_, bad, _) = verify(&replicas[0], Vec::new()).await;
    assert!(bad.unwrap().transfer.is_some());
    tamper(&world, &["DELETE FROM holds"]).await;
    let (_, bad, _) = verify(&replicas[0], Vec::new()).await;
    assert!(bad.unwrap().transfer.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn or_in_what_is_older_than_signatures() {
    let (world, replicas) = written(2, seed(), 80).await;
    let unsign = [
        "UPDATE journal SET lane = 0, signature = 0 WHERE lane = 1",
        "DELETE FROM batches WHERE lane = 1",
    ];
    tamper(&world, &unsign).await;
    let heads = assert_sound(&world, &replicas[0]).await;
    tamper(
        &world,
        &["UPDATE journal SET credit_posted = credit_posted + 1 WHERE lane = 0 AND sequence = 5"],
    )
    .await;
    let (_, bad, _) = verify(&replicas[0], Vec::new()).await;
    let bad = bad.unwrap();
    assert_eq!((bad.lane, bad.sequence), (0, 5), "{bad}");
    tamper(
        &world,
        &["UPDATE journal SET credit_posted = credit_posted - 1 WHERE lane = 0 AND sequence = 5"],
    )
    .await;
    // what no balance depends on is seen by who kept the head
    tamper(
        &world,
        &["UPDATE journal SET description = 'another' WHERE lane = 0 AND sequence = 5"],
    )
    .await;
    let (_, bad, _) = verify(&replicas[0], Vec::new()).await;
    assert_eq!(bad, None);
    let (_, bad, _) = verify(&replicas[0], heads).await;
    assert_eq!(bad.unwrap().lane, 0);
}
