//! The shorthand syntax of the AWS CLI for a map of strings: `purpose=orders,stage='a, b'` (AWS CLI User Guide, "Using
//! shorthand syntax in the AWS CLI"; `awscli/shorthand.py`).

use std::{iter::Peekable, str::Chars};

use datakey::api::EncryptionContext;

use super::param_file;

/// Reads the pairs.
pub fn pairs(text: &str) -> Result<EncryptionContext, String> {
    let mut rest = text.chars().peekable();
    let mut pairs = EncryptionContext::new();
    loop {
        let (key, value) = pair(&mut rest)?;
        if pairs.insert(key.clone(), value).is_some() {
            return Err(format!("the key {key} is there twice: remove one"));
        }
        skip_blanks(&mut rest);
        match rest.next() {
            None => return Ok(pairs),
            Some(',') => skip_blanks(&mut rest),
            Some(other) => return Err(unexpected(other, &key)),
        }
    }
}

fn pair(rest: &mut Peekable<Chars<'_>>) -> Result<(String, String), String> {
    let mut key = String::new();
    while let Some(next) = rest.next_if(|next| next.is_ascii_alphanumeric() || "-_.#/:".contains(*next)) {
        key.push(next);
    }
    skip_blanks(rest);
    let is_file = rest.next_if_eq(&'@').is_some();
    if rest.next_if_eq(&'=').is_none() {
        return Err(format!(
            "after {key:?} there is no '=': write KEY=VALUE,KEY=VALUE; quote a value that has a comma (purpose='a,b'), and \
             write other keys in JSON"
        ));
    }
    skip_blanks(rest);
    let value = value(rest, &key)?;
    Ok((key, if is_file { param_file::text(&value)? } else { value }))
}

fn value(rest: &mut Peekable<Chars<'_>>, key: &str) -> Result<String, String> {
    match rest.peek() {
        Some('[' | '{') => {
            Err(format!("the value of {key} is a list or an object: an encryption context has strings only"))
        }
        // AWS reads "a==b" as an error, not as the value "=b".
        Some('=') => Err(format!("the value of {key} begins with '=': quote it, {key}='=...'")),
        Some(&quote @ ('\'' | '"')) => {
            rest.next();
            quoted(rest, quote, key)
        }
        _ => Ok(plain(rest)),
    }
}

/// Reads up to the closing quote. A backslash escapes the quote and itself.
fn quoted(rest: &mut Peekable<Chars<'_>>, quote: char, key: &str) -> Result<String, String> {
    let mut value = String::new();
    while let Some(next) = rest.next() {
        match next {
            '\\' => value.push(rest.next_if(|next| *next == quote || *next == '\\').unwrap_or('\\')),
            next if next == quote => return Ok(value),
            next => value.push(next),
        }
    }
    Err(format!("the value of {key} has no closing {quote}"))
}

/// Reads up to a comma that no backslash precedes. Blanks at the end don't count.
fn plain(rest: &mut Peekable<Chars<'_>>) -> String {
    let mut value = String::new();
    while let Some(next) = rest.next_if(|next| !"\"',]}".contains(*next)) {
        let escaped_comma = (next == '\\').then(|| rest.next_if_eq(&',')).flatten();
        value.push(escaped_comma.unwrap_or(next));
    }
    value.truncate(value.trim_end().len());
    value
}

fn skip_blanks(rest: &mut Peekable<Chars<'_>>) {
    while rest.next_if(char::is_ascii_whitespace).is_some() {}
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
            (r"a='it\'s',b='\\',c='\n'", &[("a", "it's"), ("b", "\\"), ("c", "\\n")]),
            ("a=", &[("a", "")]),
            ("a=,b=c", &[("a", ""), ("b", "c")]),
            ("a=b=c", &[("a", "b=c")]),
            ("a=b c", &[("a", "b c")]),
            ("aws:s3:arn/x.y#z_-=ä", &[("aws:s3:arn/x.y#z_-", "ä")]),
            ("a@=b", &[("a", "b")]),
        ] {
            let expected = expected.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
            assert_eq!(pairs(text), Ok(expected), "{text}");
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
            ("a=[b,c]", "strings only"),
            ("a={b=c}", "strings only"),
            ("a==b", "begins with '='"),
            ("ä=b", "write other keys in JSON"),
            ("a@=file:///no/such/file", "can't read"),
        ] {
            let error = pairs(text).unwrap_err();
            assert!(error.contains(message), "{text}: {error}");
        }
    }
}
