//! Rules for the contracts under `proto/kontor`.

use crate::tree::{File, files, has_extension, must_be_clean, words};

fn contracts() -> impl Iterator<Item = &'static File> {
    files().filter(|file| file.path.starts_with("proto/kontor/") && has_extension(&file.path, "proto"))
}

/// The part of a line that is not a comment.
fn statement(line: &str) -> &str {
    line.split("//").next().unwrap_or_default().trim()
}

#[test]
fn every_declaration_says_what_it_is() {
    must_be_clean(contracts().flat_map(|file| {
        let lines: Vec<_> = file.text.lines().collect();
        (0..lines.len())
            .filter(|&index| is_declaration(&lines, index) && !has_comment(&lines, index))
            .map(|index| {
                file.at(
                    index + 1,
                    format!(
                        "`{}` needs a comment above: what may the caller rely on?",
                        statement(lines[index])
                    ),
                )
            })
            .collect::<Vec<_>>()
    }));
}

/// A message, enum, service, method, field or value; not an option, nor the inside of one.
fn is_declaration(lines: &[&str], index: usize) -> bool {
    let line = statement(lines[index]);
    let opens = ["message ", "enum ", "service ", "rpc ", "oneof "]
        .iter()
        .any(|keyword| line.starts_with(keyword));
    let numbered = line.ends_with(';') || line.contains(" [");
    let numbered = numbered
        && line
            .split_once(" = ")
            .is_some_and(|(_, number)| number.starts_with(|c: char| c.is_ascii_digit()));
    opens || numbered && !line.starts_with("option ") && !line.starts_with("reserved ")
}

fn has_comment(lines: &[&str], index: usize) -> bool {
    index > 0 && lines[index - 1].trim().starts_with("// ")
}

#[test]
fn every_method_says_who_may_call_it_and_what_it_costs() {
    must_be_clean(
        contracts()
            .filter(|file| file.path != "proto/kontor/options/v1/options.proto")
            .flat_map(|file| {
                let starts: Vec<_> = words(&file.text, "rpc")
                    .filter(|&at| is_code(&file.text, at))
                    .collect();
                let ends = starts.iter().skip(1).copied().chain([file.text.len()]);
                starts
                    .iter()
                    .zip(ends)
                    .flat_map(|(&start, end)| {
                        let method = &file.text[start..end];
                        [
                            "(kontor.options.v1.access) = ACCESS_",
                            "(kontor.options.v1.cost) = ",
                        ]
                        .into_iter()
                        .filter(|option| !method.contains(option))
                        .map(move |option| {
                            file.at_byte(start, format!("the method needs `option {option}…`"))
                        })
                    })
                    .collect::<Vec<_>>()
            }),
    );
}

fn is_code(text: &str, at: usize) -> bool {
    let line_start = text[..at].rfind('\n').map_or(0, |start| start + 1);
    text[line_start..at].trim().is_empty()
}

#[test]
fn no_contract_has_a_floating_point_number() {
    must_be_clean(contracts().flat_map(|file| {
        file.lines().filter_map(|(number, line)| {
            let kind = statement(line)
                .split_whitespace()
                .find(|word| ["float", "double"].contains(word))?;
            Some(file.at(number, format!("`{kind}`: money and ids are int64")))
        })
    }));
}

#[test]
fn a_method_without_side_effects_is_the_one_with_get() {
    must_be_clean(contracts().flat_map(|file| {
        let methods = file
            .text
            .split("\n  rpc ")
            .skip(1)
            .map(|method| method.split("\n  }\n").next().unwrap_or_default());
        methods
            .filter(|method| method.contains(" get: ") || method.contains("{get: "))
            .filter(|method| !method.contains("idempotency_level = NO_SIDE_EFFECTS"))
            .filter_map(|method| {
                let at = file.text.find(method)?;
                Some(file.at_byte(
                    at,
                    "a GET is a read: `option idempotency_level = NO_SIDE_EFFECTS`",
                ))
            })
            .collect::<Vec<_>>()
    }));
}

#[test]
fn declarations_without_a_comment_are_found() {
    let source = [
        "message A {",
        "  // the id",
        "  int64 id = 1;",
        "  string name = 2 [json_name = \"n\"];",
        "  option (x) = 1;",
        "}",
    ];
    let bare: Vec<_> = (0..source.len())
        .filter(|&index| is_declaration(&source, index) && !has_comment(&source, index))
        .collect();
    assert_eq!(bare, [0, 3]);
}
