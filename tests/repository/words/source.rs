//! Names of tests and lengths of files of Rust.

use super::Finding;

/// How the allow-list calls a test whose name is too long.
pub const TEST_NAME: &str = "test name";
/// How the allow-list calls a file that is too long.
pub const LINES: &str = "lines";

const MAX_NAME: usize = 60;
const MAX_LINES: usize = 400;

pub fn find(path: &str, text: &str) -> Vec<Finding> {
    let finding = |line, word: &str, advice| Finding { path: path.to_owned(), line, word: word.to_owned(), advice };
    let mut found = Vec::new();
    let mut is_test = false;
    for (number, line) in text.lines().enumerate() {
        let code = line.trim_start();
        is_test |= code.starts_with("#[test]") || code.starts_with("#[tokio::test");
        if let Some((name, _)) = code.split_once("fn ").and_then(|(_, definition)| definition.split_once('('))
            && std::mem::take(&mut is_test)
            && name.len() > MAX_NAME
        {
            let advice = format!("{name} has {} characters, at most {MAX_NAME} are readable", name.len());
            found.push(finding(number + 1, TEST_NAME, advice));
        }
    }
    let length = text.lines().take_while(|line| *line != "mod tests {").count();
    let is_of_tests = path.split('/').any(|part| part == "tests" || part == "tests.rs");
    if length > MAX_LINES && !is_of_tests {
        let advice = format!("{length} lines without its tests, divide it: at most {MAX_LINES}");
        found.push(finding(length, LINES, advice));
    }
    found
}
