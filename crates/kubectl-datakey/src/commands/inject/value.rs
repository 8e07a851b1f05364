//! What is added to a manifest, and how it is written as YAML or JSON.

use std::fmt::Write;

/// A value that is added. Its keys keep their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Text(String),
    Number(i64),
    Bool(bool),
    List(Vec<Self>),
    Map(Vec<(&'static str, Self)>),
}

/// Words that a reader of YAML 1.1 or 1.2 takes for something else than a text.
const RESERVED: [&str; 9] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null"];

// === impl Value ===

impl Value {
    /// A text.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// A list of texts.
    pub fn texts<T: Into<String>>(texts: impl IntoIterator<Item = T>) -> Self {
        Self::List(texts.into_iter().map(Self::text).collect())
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Map(entries) => entries.iter().find(|(name, _)| *name == key).map(|(_, value)| value),
            _ => None,
        }
    }

    /// Writes `key: value` in lines, from this column. `offset` is how far the items of a list are to the right of their key.
    pub fn entry(&self, key: &str, column: usize, offset: usize) -> String {
        let mut out = String::new();
        self.write_entry(key, column, offset, &mut out);
        out
    }

    /// Writes an item of a list in lines, its dash in this column.
    pub fn item(&self, column: usize, offset: usize) -> String {
        let mut out = String::new();
        self.write_item(column, offset, &mut out);
        out
    }

    fn write_entry(&self, key: &str, column: usize, offset: usize, out: &mut String) {
        let _ = write!(out, "{:column$}{key}:", "");
        match self {
            Self::List(items) if !items.is_empty() => {
                out.push('\n');
                for item in items {
                    item.write_item(column + offset, offset, out);
                }
            }
            Self::Map(entries) if !entries.is_empty() => {
                out.push('\n');
                for (key, value) in entries {
                    value.write_entry(key, column + 2, offset, out);
                }
            }
            _ => {
                let _ = writeln!(out, " {}", self.scalar());
            }
        }
    }

    fn write_item(&self, column: usize, offset: usize, out: &mut String) {
        match self {
            Self::Map(entries) if !entries.is_empty() => {
                let start = out.len();
                for (key, value) in entries {
                    value.write_entry(key, column + 2, offset, out);
                }
                out.replace_range(start + column..=start + column, "-");
            }
            _ => {
                let _ = writeln!(out, "{:column$}- {}", "", self.scalar());
            }
        }
    }

    /// Writes it as YAML in one line.
    fn scalar(&self) -> String {
        match self {
            Self::Text(text) if is_plain(text) => text.clone(),
            _ => self.json(None),
        }
    }

    /// Writes it as JSON: in one line, or in lines that begin in this column, each level indented by so many columns.
    pub fn json(&self, lines: Option<(usize, usize)>) -> String {
        let deeper = lines.map(|(column, step)| (column + step, step));
        let space =
            |lines: Option<(usize, usize)>| lines.map_or(String::new(), |(column, _)| format!("\n{:column$}", ""));
        let join = |parts: Vec<String>| parts.join(&lines.map_or(", ".to_owned(), |_| format!(",{}", space(deeper))));
        match self {
            Self::Text(text) => quoted(text),
            Self::Number(number) => number.to_string(),
            Self::Bool(is) => is.to_string(),
            Self::List(items) if items.is_empty() => "[]".to_owned(),
            Self::List(items) => {
                let items = join(items.iter().map(|item| item.json(deeper)).collect());
                format!("[{}{items}{}]", space(deeper), space(lines))
            }
            Self::Map(entries) if entries.is_empty() => "{}".to_owned(),
            Self::Map(entries) => {
                let entry = |(key, value): &(&str, Self)| format!("{}: {}", quoted(key), value.json(deeper));
                let entries = join(entries.iter().map(entry).collect());
                format!("{{{}{entries}{}}}", space(deeper), space(lines))
            }
        }
    }
}

/// A text in JSON, which is also YAML.
pub fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Whether a text needs no quotes in YAML. Some texts without need get them.
fn is_plain(text: &str) -> bool {
    let begins = |text: &str| text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '/');
    // 16Mi, 10m: no number has such an end.
    let is_quantity = ["Mi", "m"].iter().any(|unit| {
        text.strip_suffix(unit)
            .is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
    });
    let can_begin = is_quantity || begins(text) || text.strip_prefix("--").is_some_and(begins);
    let is_letter = |letter: char| letter.is_ascii_alphanumeric() || "/._-=@".contains(letter);
    // An image has a colon in it, and so has an ARN.
    let has_plain_colons = !text.ends_with(':');
    can_begin
        && has_plain_colons
        && text.chars().all(|letter| is_letter(letter) || letter == ':')
        && !RESERVED.contains(&text.to_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value() -> Value {
        Value::Map(vec![
            ("name", Value::text("a")),
            ("args", Value::texts(["--from=/keys", "--trust=arn:aws:kms x=y", "0400", "yes"])),
            ("probe", Value::Map(vec![("n", Value::Number(1)), ("is", Value::Bool(true))])),
        ])
    }

    #[test]
    fn lines_are_indented_as_in_the_manifest() {
        assert_eq!(
            value().item(2, 0),
            "  - name: a\n    args:\n    - --from=/keys\n    - \"--trust=arn:aws:kms x=y\"\n    - \"0400\"\n    - \"yes\"\n    \
             probe:\n      n: 1\n      is: true\n"
        );
        assert_eq!(Value::texts(["a"]).entry("command", 4, 2), "    command:\n      - a\n");
    }

    #[test]
    fn json_is_in_one_line_or_indented() {
        let short = Value::Map(vec![("a", Value::texts(["b"])), ("c", Value::Map(vec![]))]);
        assert_eq!(short.json(None), r#"{"a": ["b"], "c": {}}"#);
        assert_eq!(short.json(Some((2, 4))), "{\n      \"a\": [\n          \"b\"\n      ],\n      \"c\": {}\n  }");
    }

    #[test]
    fn texts_are_read_again_as_texts() {
        for text in [
            "",
            "a",
            "--",
            "-",
            "--x",
            "yes",
            "Null",
            "0400",
            "1e3",
            "a: b",
            "a:",
            "a #b",
            "it's",
            "\u{7}\"\\",
            "/a",
            "~",
            "{a}",
            "16Mi",
            "10m",
        ] {
            let written = Value::text(text).entry("k", 0, 0);
            let read: serde_json::Value = serde_saphyr::from_str(&written).unwrap();
            assert_eq!(read["k"], text, "{written}");
            let json: serde_json::Value = serde_json::from_str(&Value::text(text).json(None)).unwrap();
            assert_eq!(json, text);
        }
    }
}
