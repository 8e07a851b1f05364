//! Conversion of text from users, Secrets and servers for terminals, logs and conditions. Pure.
//!
//! A control character can change the state of a terminal and split a log line; a bidirectional control or another
//! invisible character makes a text look like another one. They are escaped as in Rust: `\u{202e}`.

use std::{borrow::Cow, error::Error, fmt::Write as _, iter::successors};

/// The text on one line, with invisible characters escaped, cut to this many characters.
pub fn printable(text: &str, max: usize) -> String {
    if text.len() <= max && text.bytes().all(is_printable_ascii) {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len().min(max));
    let mut length = 0;
    for character in text.chars() {
        let spelled = if is_printable(character) {
            Cow::Borrowed("")
        } else {
            Cow::Owned(character.escape_default().to_string())
        };
        length += spelled.len().max(1);
        if length > max {
            break;
        }
        if spelled.is_empty() {
            out.push(character);
        } else {
            out += &spelled;
        }
    }
    out
}

/// A text from outside as a clause of a message: on one line, with invisible characters escaped.
pub fn clause(text: &str) -> String {
    printable(&on_one_line(text), usize::MAX)
}

/// The text with a capital first letter.
pub fn capitalized(text: &str) -> String {
    let mut rest = text.chars();
    rest.next().map_or_else(String::new, |first| first.to_uppercase().chain(rest).collect())
}

/// The same JSON with invisible characters escaped: they can only be in its strings. Line ends and tabs between its values
/// stay.
pub fn printable_json(json: &str) -> Cow<'_, str> {
    let odd = |character: char| !matches!(character, '\n' | '\r' | '\t') && !is_printable(character);
    // Nearly every text is ASCII, whose bytes are checked many times faster than characters.
    let is_plain = |byte| matches!(byte, b'\n' | b'\r' | b'\t') || is_printable_ascii(byte);
    if json.bytes().all(is_plain) || !json.contains(odd) {
        return Cow::Borrowed(json);
    }
    let mut out = String::with_capacity(json.len() + 16);
    for character in json.chars() {
        if odd(character) {
            for unit in character.encode_utf16(&mut [0; 2]) {
                // Writing to a String can't fail.
                let _ = write!(out, "\\u{unit:04x}");
            }
        } else {
            out.push(character);
        }
    }
    Cow::Owned(out)
}

fn is_printable_ascii(byte: u8) -> bool {
    matches!(byte, b' '..=b'~')
}

/// Whether a character is visible, or a blank.
pub fn is_printable(character: char) -> bool {
    if let Ok(byte) = u8::try_from(character)
        && byte.is_ascii()
    {
        return is_printable_ascii(byte);
    }
    // Letters and marks without a glyph, which Unicode lists as ignorable in addition to the format characters.
    let invisible = matches!(
        character,
        '\u{34f}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}' | '\u{3164}' | '\u{ffa0}'
            | '\u{fe00}'..='\u{fe0f}' | '\u{e0000}'..='\u{e0fff}'
    );
    // The standard library knows the Unicode categories: in the middle of a text it escapes controls, format characters,
    // separators except the blank, and unassigned and private characters. It leaves combining marks.
    let mut middle = [b'a', 0, 0, 0, 0];
    let length = 1 + character.encode_utf8(&mut middle[1..]).len();
    let escaped = str::from_utf8(&middle[..length]).is_ok_and(|middle| middle.escape_debug().nth(2).is_some());
    !invisible && !escaped
}

/// An error and its causes in one line, without causes that the text already contains.
pub fn error_chain(error: &dyn Error) -> String {
    successors(error.source(), |cause| (*cause).source()).fold(error.to_string(), |text, cause| {
        let cause = cause.to_string();
        if text.contains(&cause) { text } else { format!("{text}: {cause}") }
    })
}

/// The text on one line: a line break, with the blanks around it, becomes one blank.
pub fn on_one_line(text: &str) -> String {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}

/// The text with `[redacted]` in place of each of these secrets. What is put in their place is not searched again: users choose the
/// secrets, and with "e" and "d" among them the text would grow with each one.
pub fn redact(text: &str, secrets: &[String]) -> String {
    let mut redacted = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        // A secret can be the beginning of another one.
        let found = secrets.iter().filter(|secret| !secret.is_empty() && rest.starts_with(secret.as_str()));
        let skipped = if let Some(length) = found.map(String::len).max() {
            redacted.push_str("[redacted]");
            length
        } else {
            redacted.push(first);
            first.len_utf8()
        };
        rest = &rest[skipped..];
    }
    redacted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_one() {
        assert_eq!(on_one_line("invalid: \r\n* spec: a\n\n  * status: b\n"), "invalid: * spec: a * status: b");
        assert_eq!(clause("invalid: \r\n* spec: \u{1b}[2J\n"), r"invalid: * spec: \u{1b}[2J");
    }

    #[test]
    fn invisible_characters_are_escaped() {
        assert_eq!(printable("a\u{1b}[2J\u{7}b\r\nc\t\u{7f}\u{9b}", 100), r"a\u{1b}[2J\u{7}b\r\nc\t\u{7f}\u{9b}");
        let hidden =
            ["\u{ad}", "\u{61c}", "\u{180e}", "\u{feff}", "\u{fff9}", "\u{e0041}", "\u{e0100}", "\u{3164}", "\u{fe0f}"];
        let ranges = ['\u{200b}'..='\u{200f}', '\u{2028}'..='\u{202e}', '\u{2060}'..='\u{206f}', '\u{80}'..='\u{9f}'];
        let ranges = ranges.into_iter().flatten().map(String::from);
        for odd in hidden.into_iter().map(str::to_owned).chain(ranges) {
            let spelled = printable(&odd, 100);
            assert!(spelled.starts_with('\\') && spelled.is_ascii(), "{spelled}");
        }
    }

    #[test]
    fn visible_characters_stay_unchanged() {
        for text in ["alias/orders", r#"a "b" 'c' \n"#, "Aufträge", "目的 注文 🔑", "e\u{301}", "שלום", "العربية"]
        {
            assert_eq!(printable(text, 100), text);
        }
    }

    #[test]
    fn long_text_is_cut_between_escapes() {
        assert_eq!(printable("ääää", 3), "äää");
        assert_eq!(printable("a\u{202e}b", 8), "a");
        assert_eq!(printable("a\u{202e}b", 9), r"a\u{202e}");
    }

    #[test]
    fn json_keeps_its_value_when_escaped() {
        let value = serde_json::json!({ "a\u{202e}": "b\u{7f}\u{1b}\u{e0041}\n" });
        let json = format!("{value:#}\n");
        let plain = printable_json(&json);
        assert!(plain.chars().all(|character| character == '\n' || is_printable(character)), "{plain:?}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&plain).unwrap(), value);
        assert!(matches!(printable_json("{\n\t\"a\": \"ä\"\n}\n"), Cow::Borrowed(_)));
    }

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Chained(&'static str, #[source] Option<Box<Self>>);

    #[test]
    fn each_cause_of_an_error_is_shown_once() {
        let cause = Chained("no route", Some(Box::new(Chained("timed out", None))));
        assert_eq!(error_chain(&Chained("can't connect", Some(Box::new(cause)))), "can't connect: no route: timed out");
        let cause = Chained("no route", None);
        assert_eq!(error_chain(&Chained("can't connect: no route", Some(Box::new(cause)))), "can't connect: no route");
    }

    #[test]
    fn secrets_are_redacted() {
        let said = "Value '[marker-token]' at 'grantTokens' failed";
        assert_eq!(
            redact("seed", &["e".to_owned(), "d".to_owned(), "e".to_owned()]),
            "s[redacted][redacted][redacted]"
        );
        assert_eq!(redact(said, &["marker-token".to_owned()]), "Value '[[redacted]]' at 'grantTokens' failed");
        let nested = [String::new(), "marker".to_owned(), "marker-token".to_owned()];
        assert_eq!(redact(said, &nested), "Value '[[redacted]]' at 'grantTokens' failed");
    }
}
