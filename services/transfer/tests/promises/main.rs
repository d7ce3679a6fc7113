//! What the ledger promises, against a real PostgreSQL: one file for each promise.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod a_bad_export_changes_nothing;
mod a_balance_of_the_past_is_exact;
mod a_changed_row_is_named;
mod a_large_batch_waits_for_the_one_before;
mod a_pending_transfer_ends_by_itself;
mod a_pending_transfer_is_resolved_once;
mod a_remembered_account_is_never_trusted;
mod a_retry_never_posts_twice;
mod a_schedule_fires_once;
mod a_schedule_is_planned_once;
mod a_watcher_sees_every_entry_once;
mod accounts_are_private;
mod an_account_is_changed_once;
mod an_exported_ledger_is_imported_whole;
mod bad_input_changes_nothing;
mod counter;
mod drift_is_reported;
mod every_entry_is_published;
mod histories;
mod kafka;
mod ledger_in_memory;
mod money_is_conserved_by_replicas;
mod server;
mod the_journal_is_append_only;
mod the_queue_is_bounded;
mod what_is_remembered_is_published_as_it_is_stored;
mod world;
