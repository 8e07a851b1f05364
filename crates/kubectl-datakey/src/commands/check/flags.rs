//! The flags and the environment of the operator's container, read as the operator reads them.

use k8s_openapi::api::core::v1::Container;

/// The values of a flag, in the order in which they are given.
pub fn values<'a>(container: &'a Container, flag: &str) -> impl Iterator<Item = &'a str> {
    let words: Vec<_> = words(container).collect();
    (0..words.len()).filter_map(move |at| match words[at].strip_prefix(flag)? {
        "" => words.get(at + 1).copied(),
        rest => rest.strip_prefix('='),
    })
}

/// The value of a flag, else of its variable. The last of several values counts.
pub fn setting(container: &Container, flag: &str, name: &str) -> Option<String> {
    values(container, flag).last().map(str::to_owned).or_else(|| variable(container, name))
}

/// Whether a flag, else its variable, is on; `None` without either. A word after it is not its value.
pub fn switch(container: &Container, flag: &str, name: &str) -> Option<bool> {
    let given = words(container).filter_map(|word| match word.strip_prefix(flag)? {
        "" => Some("true"),
        rest => rest.strip_prefix('='),
    });
    given.last().map(str::to_owned).or_else(|| variable(container, name)).map(|value| value != "false")
}

/// The value of a variable, where the container names it.
pub fn variable(container: &Container, name: &str) -> Option<String> {
    container.env.iter().flatten().find(|known| known.name == name)?.value.clone()
}

fn words(container: &Container) -> impl Iterator<Item = &str> {
    container.command.iter().chain(&container.args).flatten().map(String::as_str)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn container(edit: &Value) -> Container {
        let mut container = edit.clone();
        container["name"] = json!("operator");
        serde_json::from_value(container).unwrap()
    }

    #[test]
    fn last_value_of_a_flag_counts_in_both_forms() {
        let env = json!([{ "name": "NAME", "value": "env" }]);
        let of = |args: &[&str]| setting(&container(&json!({ "args": args, "env": env })), "--lease-name", "NAME");
        for (args, value) in [
            (&["run", "--lease-name=a"][..], "a"),
            (&["--lease-name", "a"], "a"),
            (&["--lease-name=a", "--lease-name", "b"], "b"),
            (&["--lease-name", "b", "--lease-name=a"], "a"),
            (&["--lease-names=a"], "env"),
        ] {
            assert_eq!(of(args).as_deref(), Some(value), "{args:?}");
        }
        let command = container(&json!({ "command": ["datakey-operator", "run", "--lease-name=a"] }));
        assert_eq!(setting(&command, "--lease-name", "NAME").as_deref(), Some("a"));
    }

    #[test]
    fn word_after_a_switch_is_not_its_value() {
        let env = json!([{ "name": "ELECT", "value": "true" }]);
        let of = |args: &[&str]| switch(&container(&json!({ "args": args, "env": env })), "--elect", "ELECT");
        for (args, is_set) in [
            (&[][..], true),
            (&["--elect", "false"], true),
            (&["--elect=false"], false),
            (&["--elect=false", "--elect"], true),
            (&["--elect", "--elect=false"], false),
        ] {
            assert_eq!(of(args), Some(is_set), "{args:?}");
        }
        assert_eq!(switch(&container(&json!({})), "--elect", "ELECT"), None);
    }
}
