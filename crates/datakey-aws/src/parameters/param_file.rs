//! Parameters from files, as the AWS CLI reads them: `file://PATH` is the text of a file, `fileb://PATH` its bytes.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

const TEXT: &str = "file://";
const BYTES: &str = "fileb://";

/// The most bytes of a file. No parameter needs more, and a device has no end.
pub const LONGEST: u64 = 1 << 20;

/// The byte order mark, with which some programs on Windows begin a file.
const MARK: char = '\u{feff}';

/// Returns a parameter, or the text of the file that it names by `file://`.
pub fn text(parameter: &str) -> Result<String, String> {
    if let Some(path) = parameter.strip_prefix(BYTES) {
        return Err(format!("this parameter is text, and {BYTES} reads bytes: write {TEXT}{path}"));
    }
    let Some(path) = parameter.strip_prefix(TEXT) else {
        return Ok(parameter.to_owned());
    };
    let text = String::from_utf8(read(&expanded(path))?);
    let text = text.map_err(|_| format!("{path} is not text in UTF-8; for bytes write {BYTES}"))?;
    // The AWS CLI opens the file with Python's universal newlines.
    Ok(text.replace("\r\n", "\n").replace('\r', "\n"))
}

/// The same for JSON, YAML and shorthand: a byte order mark is not a part of them.
pub fn document(parameter: &str) -> Result<String, String> {
    text(parameter).map(|text| text.strip_prefix(MARK).map(str::to_owned).unwrap_or(text))
}

/// Returns the bytes of the file that a parameter names by `file://` or `fileb://`; `None` for another parameter.
pub fn bytes(parameter: &str) -> Option<Result<Vec<u8>, String>> {
    let path = parameter.strip_prefix(BYTES).or_else(|| parameter.strip_prefix(TEXT));
    path.map(|path| read(&expanded(path)))
}

/// Whether a parameter names a file.
pub fn is_file(parameter: &str) -> bool {
    [TEXT, BYTES].iter().any(|prefix| parameter.starts_with(prefix))
}

/// Reads a file of at most [`LONGEST`] bytes.
pub fn read(path: &Path) -> Result<Vec<u8>, String> {
    let read = || {
        let file = File::open(path)?;
        let length = file.metadata()?.len().min(LONGEST);
        // The file can hold a plaintext key, of which a growing buffer would leave copies.
        let mut bytes = Vec::with_capacity(usize::try_from(length + 1).unwrap_or_default());
        file.take(LONGEST + 1).read_to_end(&mut bytes).map(|_| bytes)
    };
    let show = path.display();
    match read() {
        Ok(bytes) if bytes.len() as u64 > LONGEST => Err(format!("{show} has more than {LONGEST} bytes")),
        Ok(bytes) => Ok(bytes),
        Err(error) => Err(format!("can't read {show}: {error}")),
    }
}

/// Returns the path with the home folder in place of `~`, and variables, as the AWS CLI does: shells expand `~` only at the
/// beginning of a word.
fn expanded(path: &str) -> PathBuf {
    let home = std::env::home_dir();
    let home = home.as_deref().and_then(Path::to_str);
    let path = match (path.strip_prefix('~'), home) {
        (Some(rest), Some(home)) if rest.starts_with('/') => format!("{home}{rest}"),
        _ => path.to_owned(),
    };
    with_variables(&path, |name| std::env::var(name).ok()).into()
}

/// Replaces `$NAME` and `${NAME}` by variables that are set, as Python's `os.path.expandvars` does. Others stay.
fn with_variables(path: &str, variable: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::new();
    let mut rest = path;
    while let Some((before, after)) = rest.split_once('$') {
        out += before;
        let braced = after.strip_prefix('{').and_then(|inner| inner.split_once('}'));
        let is_word = |character: char| character.is_ascii_alphanumeric() || character == '_';
        let word = after.len() - after.trim_start_matches(is_word).len();
        let (name, tail) = braced.unwrap_or_else(|| after.split_at(word));
        if let Some(value) = Some(name).filter(|name| !name.is_empty()).and_then(&variable) {
            out += &value;
            rest = tail;
        } else {
            out.push('$');
            rest = after;
        }
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_as_text_or_as_bytes() {
        let file = std::env::temp_dir().join(format!("datakey-aws-param-{}", std::process::id()));
        std::fs::write(&file, b"a\r\nb\n").unwrap();
        let path = file.display();
        assert_eq!(text(&format!("file://{path}")).as_deref(), Ok("a\nb\n"));
        assert_eq!(text("alias/orders").as_deref(), Ok("alias/orders"));
        std::fs::write(&file, "\u{feff}a=b").unwrap();
        assert_eq!(document(&format!("file://{path}")).as_deref(), Ok("a=b"));
        std::fs::write(&file, b"\xff\r\n").unwrap();
        assert!(text(&format!("file://{path}")).unwrap_err().contains("fileb://"));
        assert!(text(&format!("fileb://{path}")).unwrap_err().contains("write file://"));
        assert_eq!(bytes(&format!("fileb://{path}")), Some(Ok(b"\xff\r\n".to_vec())));
        assert_eq!((bytes("AQID"), is_file("AQID/"), is_file("file://x")), (None, false, true));
        std::fs::remove_file(&file).unwrap();
        assert!(text("file:///no/such/file").unwrap_err().contains("can't read /no/such/file"));
        assert!(expanded("~/context").is_absolute());
    }

    #[test]
    fn file_without_an_end_is_refused() {
        assert_eq!(text("file:///dev/zero").unwrap_err(), "/dev/zero has more than 1048576 bytes");
    }

    #[test]
    fn variables_that_are_set_are_expanded() {
        let variable = |name: &str| (name == "DIR_1").then(|| "/x/$y".to_owned());
        for (path, expected) in [
            ("$DIR_1/a", "/x/$y/a"),
            ("${DIR_1}a", "/x/$ya"),
            ("a$DIR_1", "a/x/$y"),
            ("$DIR_12/${NONE}/$", "$DIR_12/${NONE}/$"),
            ("${DIR_1", "${DIR_1"),
        ] {
            assert_eq!(with_variables(path, variable), expected, "{path}");
        }
    }
}
