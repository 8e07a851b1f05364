//! docs/datakey-unwrap.md says what `datakey-unwrap` does.

use testbed::repository;

fn text(path: &str) -> String {
    std::fs::read_to_string(repository().join(path)).unwrap()
}

/// The numbers in a text, in order.
fn numbers(text: &str) -> Vec<&str> {
    text.split(|letter: char| !letter.is_ascii_digit()).filter(|number| !number.is_empty()).collect()
}

#[test]
fn exit_codes_of_datakey_unwrap_are_those_of_its_help() {
    let help = text("tests/repository/help/datakey-unwrap.txt");
    let (_, codes) = help.split_once("\nExit codes: ").unwrap();
    let codes = numbers(codes.split_once("\n\n").unwrap().0);
    let page = text("docs/datakey-unwrap.md");
    let (_, table) = page.split_once("\n| exit code | meaning | what to do |\n| --- | --- | --- |\n").unwrap();
    let rows = table.lines().take_while(|line| line.starts_with('|'));
    let documented: Vec<_> = rows.map(|row| row.split('|').nth(1).unwrap().trim()).collect();
    assert!(documented.len() > 6, "{documented:?}");
    assert_eq!(documented, codes);
}

#[test]
fn each_command_of_datakey_unwrap_has_a_section() {
    let help = text("tests/repository/help/datakey-unwrap.txt");
    let (_, commands) = help.split_once("\nCommands:\n").unwrap();
    let commands =
        commands.lines().take_while(|line| !line.is_empty()).filter_map(|line| line.split_whitespace().next());
    let page = text("docs/datakey-unwrap.md");
    let missing: Vec<_> =
        commands.filter(|name| *name != "help" && !page.contains(&format!("\n### {name}\n"))).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
