//! Requests, as they come over the wire or put together from bytes, through the conversion to what the ledger does.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| transfer::rpc::fuzzing::request(bytes));
