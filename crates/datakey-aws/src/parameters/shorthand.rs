//! The shorthand syntax of the AWS CLI for a map of strings: `purpose=orders,stage='a, b'` (AWS CLI User Guide, "Using
//! shorthand syntax in the AWS CLI"; `awscli/shorthand.py`).

use datakey::api::EncryptionContext;

use super::{Files, NO_FILES, param_file};

/// Reads the pairs. `KEY@=file://FILE` is the text of a file.
pub(super) fn pairs(text: &str, files: Files) -> Result<EncryptionContext, String> {
    let mut rest = Rest(text);
    let mut pairs = EncryptionContext::new();
    loop {
        let (key, value) = rest.pair(files)?;
        if pairs.insert(key.clone(), value).is_some() {
            return Err(format!("the key {key} is there twice: remove one"));
        }
        rest.skip_blanks();
        match rest.0.chars().next() {
            None => return Ok(pairs),
            Some(_) if rest.skip(',') => rest.skip_blanks(),
            Some(other) => return Err(unexpected(other, &key)),
        }
    }
}

/// What is not read yet.
struct Rest<'a>(&'a str);

// === impl Rest ===

impl<'a> Rest<'a> {
    fn pair(&mut self, files: Files) -> Result<(String, String), String> {
        let is_of_key = |character: char| character.is_ascii_alphanumeric() || "-_.#/:".contains(character);
        let key = self.take(self.0.find(|character| !is_of_key(character)).unwrap_or(self.0.len()));
        self.skip_blanks();
        let is_file = self.skip('@');
        if is_file && files == Files::Refused {
            return Err(format!("{key}@: {NO_FILES}"));
        }
        if !self.skip('=') {
            return Err(format!(
                "after {key:?} there is no '=': write KEY=VALUE,KEY=VALUE; quote a value that has a comma (purpose='a,b'), \
                 and write other keys in JSON"
            ));
        }
        self.skip_blanks();
        let value = self.value(key)?;
        Ok((key.to_owned(), if is_file { param_file::text(&value)? } else { value }))
    }

    fn value(&mut self, key: &str) -> Result<String, String> {
        match self.0.chars().next() {
            Some('[' | '{') => {
                Err(format!("the value of {key} is a list or an object: an encryption context has strings only"))
            }
            // AWS reads "a==b" as an error, not as the value "=b".
            Some('=') => Err(format!("the value of {key} begins with '=': quote it, {key}='=...'")),
            Some(quote @ ('\'' | '"')) => {
                self.skip(quote);
                self.quoted(quote, key)
            }
            _ => Ok(self.plain()),
        }
    }

    /// Reads up to the closing quote. Each quote after a backslash is escaped, also after two, unless no other quote can close the
    /// value: so the expression of the AWS CLI matches.
    fn quoted(&mut self, quote: char, key: &str) -> Result<String, String> {
        let text = self.0;
        let mut quotes = text.match_indices(quote).map(|(at, _)| at);
        let closing = quotes.clone().find(|&at| !text[..at].ends_with('\\')).or_else(|| quotes.next_back());
        let Some(closing) = closing else { return Err(format!("the value of {key} has no closing {quote}")) };
        let value = self.take(closing);
        self.skip(quote);
        Ok(value.replace(&format!("\\{quote}"), &quote.to_string()).replace("\\\\", "\\"))
    }

    /// Reads up to a comma that no backslash precedes. Blanks at the end don't count.
    fn plain(&mut self) -> String {
        let text = self.0;
        let ends = |(at, character): (usize, char)| match character {
            '"' | '\'' => true,
            ',' => !text[..at].ends_with('\\'),
            // The AWS CLI takes these as the first character only.
            ']' | '}' => at > 0,
            _ => false,
        };
        let end = text.char_indices().find(|&found| ends(found)).map_or(text.len(), |(at, _)| at);
        self.take(end).replace("\\,", ",").trim_end().to_owned()
    }

    fn take(&mut self, length: usize) -> &'a str {
        let (taken, rest) = self.0.split_at(length);
        self.0 = rest;
        taken
    }

    /// Skips this character, if it is the next one.
    fn skip(&mut self, character: char) -> bool {
        let rest = self.0.strip_prefix(character);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    fn skip_blanks(&mut self) {
        self.0 = self.0.trim_start_matches(|character: char| character.is_ascii_whitespace());
    }
}

fn unexpected(found: char, key: &str) -> String {
    format!(
        "after the value of {key} there is {found:?} in place of a comma: quote the whole value, for example {key}='a b'"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_read_as_the_aws_cli_reads_them() {
        for (text, expected) in [
            ("purpose=orders", &[("purpose", "orders")][..]),
            ("purpose=orders,stage=prod", &[("purpose", "orders"), ("stage", "prod")]),
            ("a = b , c = d", &[("a", "b"), ("c", "d")]),
            ("a='b, c',d=\"e=f\"", &[("a", "b, c"), ("d", "e=f")]),
            (r"a=b\,c,d=e", &[("a", "b,c"), ("d", "e")]),
            (r"a='it\'s',c='\n'", &[("a", "it's"), ("c", "\\n")]),
            (r"a='b\\'", &[("a", "b\\")]),
            (r"a='b\\',c=d'", &[("a", "b\\',c=d")]),
            (r#"a="b\"",c='"'"#, &[("a", "b\""), ("c", "\"")]),
            ("a=", &[("a", "")]),
            ("a='',b=c", &[("a", ""), ("b", "c")]),
            ("a=,b=c", &[("a", ""), ("b", "c")]),
            ("a=b=c", &[("a", "b=c")]),
            ("a=b c", &[("a", "b c")]),
            ("a=]", &[("a", "]")]),
            ("aws:s3:arn/x.y#z_-=ä", &[("aws:s3:arn/x.y#z_-", "ä")]),
            ("a@=b", &[("a", "b")]),
        ] {
            let expected = expected.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
            assert_eq!(pairs(text, Files::Read), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_the_aws_cli_refuses_is_refused() {
        for (text, message) in [
            ("", "no '='"),
            ("purpose", "no '='"),
            ("purpose=a,b", "quote a value that has a comma"),
            ("purpose=a,", "no '='"),
            ("a=b,a=c", "twice"),
            ("a='b", "no closing '"),
            ("a=b'c'", "in place of a comma"),
            ("a=b]", "in place of a comma"),
            ("a=[b,c]", "strings only"),
            ("a={b=c}", "strings only"),
            ("a==b", "begins with '='"),
            ("ä=b", "write other keys in JSON"),
            ("a@=file:///no/such/file", "can't read"),
            ("a@=fileb:///dev/null", "reads bytes"),
        ] {
            let error = pairs(text, Files::Read).unwrap_err();
            assert!(error.contains(message), "{text}: {error}");
        }
    }
}
