use super::world::{World, order};

#[tokio::test]
async fn the_database_itself_refuses_to_rewrite_it() {
    let world = World::new().await;
    let replica = world.replica();
    replica.users(2, 100).await;
    replica.pay(order(1, 2, 1)).await.unwrap();
    for statement in [
        "UPDATE journal SET moved = moved + 1",
        "DELETE FROM journal",
        "TRUNCATE journal",
        "UPDATE batches SET row_count = row_count + 1",
        "DELETE FROM batches",
        "TRUNCATE batches",
        "DELETE FROM account_changes",
    ] {
        let refused = sqlx::query(statement).execute(world.pool()).await.unwrap_err();
        assert!(
            refused.to_string().contains("append-only"),
            "{statement}: {refused}"
        );
    }
    world.assert_sound().await;
}

#[tokio::test]
async fn a_row_that_does_not_balance_cannot_be_written() {
    let world = World::new().await;
    let insert = |kind: &str, moved: i64, held: i64, debit: i64| {
        let statement = format!(
            "INSERT INTO journal (lane, leg, sequence, id, debit_account, credit_account, moved, held, debit_position,
                                  credit_position, debit_posted, debit_held, credit_posted, credit_held, created_at,
                                  signature, kind, currency)
             VALUES (9, 0, 1, gen_random_uuid(), {debit}, 2, {moved}, {held}, 1, 1, 0, 0, 0, 0, now(), 0, '{kind}', 'USD')"
        );
        async {
            sqlx::query(sqlx::AssertSqlSafe(statement))
                .execute(world.pool())
                .await
        }
    };
    for (kind, moved, held, debit, constraint) in [
        ("transfer", 5, 0, 2, "journal_between_two"),
        ("transfer", -5, 0, 1, "journal_amounts_fit_kind"),
        ("transfer", 5, 1, 1, "journal_amounts_fit_kind"),
        ("pending", 0, 5, 1, "journal_amounts_fit_kind"),
        ("gift", 5, 0, 1, "journal_amounts_fit_kind"),
    ] {
        let refused = insert(kind, moved, held, debit).await.unwrap_err();
        assert_eq!(postgres::constraint(&refused), Some(constraint), "{kind}");
    }
}
