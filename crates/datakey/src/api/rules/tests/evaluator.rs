//! The syntax of CEL that the evaluator of these tests does not have.

use std::fmt::Write as _;

use serde_json::Value;

/// Rewrites what the evaluator does not have.
pub fn rewrite(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    Value::String(expression) if ["rule", "messageExpression"].contains(&name.as_str()) => {
                        *expression = for_this_evaluator(expression);
                    }
                    value => rewrite(value),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(rewrite),
        _ => {}
    }
}

/// Without `name.?field` and `dyn(...)`, and with an `oldSelf` that is null where it is absent.
pub fn for_this_evaluator(expression: &str) -> String {
    let replaced = [("oldSelf.hasValue()", "oldSelf != null"), ("oldSelf.value()", "oldSelf"), ("dyn(", "(")];
    replaced.iter().fold(without_optionals(expression), |expression, (from, to)| expression.replace(from, to))
}

fn without_optionals(expression: &str) -> String {
    let is_name = |c: char| c.is_ascii_alphanumeric();
    let (mut out, mut rest) = (String::new(), expression);
    while let Some((before, after)) = rest.split_once(".?") {
        let variable = before.len() - before.chars().rev().take_while(|&c| is_name(c)).count();
        let (mut path, mut present) = (before[variable..].to_owned(), Vec::new());
        rest = after;
        loop {
            let (field, after) = rest.split_at(rest.find(|c| !is_name(c)).unwrap_or(rest.len()));
            path = format!("{path}.{field}");
            present.push(format!("has({path})"));
            rest = after;
            match after.strip_prefix(".?") {
                Some(after) => rest = after,
                None => break,
            }
        }
        out += &before[..variable];
        let _ = write!(out, "({} ? optional.of({path}) : optional.none())", present.join(" && "));
    }
    out + rest
}
