//! Parameters from files, as the AWS CLI reads them: `file://PATH` is the text of a file, `fileb://PATH` its bytes.

use std::path::Path;

const TEXT: &str = "file://";
const BYTES: &str = "fileb://";

/// Returns a parameter, or the text of the file that it names by `file://`.
pub fn text(parameter: &str) -> Result<String, String> {
    let Some(path) = parameter.strip_prefix(TEXT) else {
        return Ok(parameter.to_owned());
    };
    String::from_utf8(read(path)?).map_err(|_| format!("{path} is not text in UTF-8; for bytes write fileb://"))
}

/// Returns the bytes of the file that a parameter names by `file://` or `fileb://`; `None` for another parameter.
pub fn bytes(parameter: &str) -> Option<Result<Vec<u8>, String>> {
    parameter.strip_prefix(BYTES).or_else(|| parameter.strip_prefix(TEXT)).map(read)
}

/// Whether a parameter names a file.
pub fn is_file(parameter: &str) -> bool {
    [TEXT, BYTES].iter().any(|prefix| parameter.starts_with(prefix))
}

fn read(path: &str) -> Result<Vec<u8>, String> {
    std::fs::read(expanded(path)).map_err(|error| format!("can't read {path}: {error}"))
}

/// Returns the path with the home folder in place of `~`, as the AWS CLI does: shells expand it only at the beginning of a
/// word.
fn expanded(path: &str) -> std::path::PathBuf {
    match (path.strip_prefix("~/"), std::env::home_dir()) {
        (Some(rest), Some(home)) => home.join(rest),
        _ => Path::new(path).to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_as_text_or_as_bytes() {
        let file = std::env::temp_dir().join(format!("kubectl-datakey-param-{}", std::process::id()));
        std::fs::write(&file, b"a\n").unwrap();
        let path = file.display();
        assert_eq!(text(&format!("file://{path}")).as_deref(), Ok("a\n"));
        assert_eq!(text("alias/orders").as_deref(), Ok("alias/orders"));
        std::fs::write(&file, b"\xff").unwrap();
        assert!(text(&format!("file://{path}")).unwrap_err().contains("fileb://"));
        assert_eq!(bytes(&format!("fileb://{path}")), Some(Ok(b"\xff".to_vec())));
        assert_eq!((bytes("AQID"), is_file("AQID/"), is_file("file://x")), (None, false, true));
        std::fs::remove_file(&file).unwrap();
        assert!(text("file:///no/such/file").unwrap_err().contains("can't read /no/such/file"));
        assert!(expanded("~/context").is_absolute());
    }
}
