//! What kontor promises in Kubernetes, on a cluster that `tests/kind/run` brings up and in the order that it says: one file for each
//! promise. Some of them break the cluster for a while. See tests/kind/README.md.

#[path = "kind/a_backup_is_restored.rs"]
mod a_backup_is_restored;
#[path = "kind/a_drain_respects_the_budgets.rs"]
mod a_drain_respects_the_budgets;
#[path = "kind/a_killed_pod_loses_nothing.rs"]
mod a_killed_pod_loses_nothing;
#[path = "kind/a_region_is_accepted.rs"]
mod a_region_is_accepted;
#[path = "kind/a_rolling_update_fails_no_request.rs"]
mod a_rolling_update_fails_no_request;
#[path = "kind/a_wrong_configuration_is_said.rs"]
mod a_wrong_configuration_is_said;
#[path = "kind/applying_twice_changes_nothing.rs"]
mod applying_twice_changes_nothing;
#[path = "kind/every_pod_is_restricted.rs"]
mod every_pod_is_restricted;
#[path = "kind/it_works_from_outside.rs"]
mod it_works_from_outside;
#[path = "kind/more_replicas_share_the_load.rs"]
mod more_replicas_share_the_load;
#[path = "kind/no_pod_reaches_what_is_forbidden.rs"]
mod no_pod_reaches_what_is_forbidden;
#[path = "kind/services_are_small.rs"]
mod services_are_small;
#[path = "kind/the_autoscaler_reacts.rs"]
mod the_autoscaler_reacts;
