//! Words and names for POSIX shells.

/// Quotes a text, so that a shell reads it as one word and expands nothing in it.
pub fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Converts a name in camel case to one for an environment variable: `keyId` becomes `KEY_ID`.
pub fn env_name(name: &str) -> String {
    name.chars().fold(String::new(), |mut out, character| {
        if character.is_ascii_uppercase() {
            out.push('_');
        }
        out.push(character.to_ascii_uppercase());
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_text_is_one_word_for_a_shell() {
        for text in ["", "a b", "it's", "$(id) `id` \\ \" ! *", "two\nlines", "''"] {
            let script = format!("printf %s {}", quote(text));
            let output = std::process::Command::new("/bin/sh").args(["-c", &script]).output().unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), text);
        }
    }

    #[test]
    fn env_names_are_upper_case_with_underscores() {
        assert_eq!(env_name("keyId"), "KEY_ID");
        assert_eq!(env_name("version"), "VERSION");
    }
}
