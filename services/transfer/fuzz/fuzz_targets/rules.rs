//! Histories of the ledger, through the rules and through the model of the test that this shares its parts with.
#![no_main]

#[path = "../../tests/the_rules_agree_with_a_naive_model/check.rs"]
mod check;
#[path = "../../tests/the_rules_agree_with_a_naive_model/decisions.rs"]
mod decisions;
#[path = "../../tests/the_rules_agree_with_a_naive_model/history.rs"]
mod history;
#[path = "../../tests/the_rules_agree_with_a_naive_model/model.rs"]
mod model;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| check::run(bytes, &mut check::Outcomes::new()));
