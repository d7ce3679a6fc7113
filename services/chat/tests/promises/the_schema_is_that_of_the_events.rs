#[test]
fn outbox_and_inbox_are_what_the_crate_expects() {
    let migrations: String = chat::MIGRATOR
        .iter()
        .map(|migration| migration.sql.as_str())
        .collect();
    assert!(migrations.contains(events::outbox::SCHEMA));
    assert!(migrations.contains(events::inbox::SCHEMA));
}
