//! What kontor promises, on real servers: one file for each promise. See tests/README.md.

mod a_killed_chat_instance_loses_nothing;
mod a_message_reaches_its_subscriber;
mod a_retry_never_posts_twice;
mod a_revoked_session_stops;
mod all_configuration_errors_are_reported_at_once;
mod money_is_never_overspent;
mod redis_away_logs_nobody_out;
mod sign_up_survives_a_crash;
mod the_seeds_programs_run;
