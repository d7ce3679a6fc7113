//! House style as a test: pure checks of the files in the tree, one `#[test]` for each rule.
//! A message names the file and the line, and says what to do instead.

#[path = "tidy/contracts.rs"]
mod contracts;
#[path = "tidy/crates.rs"]
mod crates;
#[path = "tidy/files.rs"]
mod files;
#[path = "tidy/migrations.rs"]
mod migrations;
#[path = "tidy/rust.rs"]
mod rust;
#[path = "tidy/tests_themselves.rs"]
mod tests_themselves;
#[path = "tidy/tree.rs"]
mod tree;
