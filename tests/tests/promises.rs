//! What kontor promises, on real servers: one file for each promise. See tests/README.md.

mod a_killed_chat_instance_loses_nothing;
mod a_lost_session_fails_no_request;
mod a_message_reaches_its_subscriber;
mod a_real_consumer_sees_the_event;
mod a_release_can_be_rolled_back;
mod a_retry_never_posts_twice;
mod a_revoked_session_stops;
mod a_service_stops_within_its_grace_time;
mod a_service_that_waits_is_live;
mod all_configuration_errors_are_reported_at_once;
mod internal_errors_never_leak;
mod money_is_never_overspent;
mod one_trace_covers_a_request;
mod redis_away_logs_nobody_out;
mod services_talk_by_tls;
mod sessions_with_the_database_end_in_time;
mod sign_up_survives_a_crash;
mod the_ledger_answers_by_rest;
mod the_ledger_survives_everything;
mod the_public_door_shows_only_public_methods;
mod the_rest_api_answers_as_documented;
mod the_seeds_programs_run;
