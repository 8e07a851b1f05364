//! Many wrapped data keys: the lines of a CSV file, and the files of a folder.

use std::path::Path;

use datakey::api::{FIRST_VERSION, Material};
use zeroize::Zeroizing;

use super::{
    candidate::Candidate,
    wrapped::{Wrapped, plaintext_is_there},
};
use crate::{
    aws_cli::{self, param_file},
    cli::{
        aws::{data_key_name, key_spec, region},
        import::Import,
    },
    output::CommandError,
};

/// The columns of the CSV file.
const COLUMNS: [&str; 9] = [
    "name",
    "version",
    "key_id",
    "ciphertext_blob",
    "encryption_context",
    "key_spec",
    "number_of_bytes",
    "region",
    "issued_at",
];

/// One line or file: the name of the DataKey, and the candidate or what is wrong with it.
#[derive(Debug)]
pub struct Row {
    /// The name of the DataKey; the place where there is none.
    pub name: String,
    /// The candidate, or what is wrong, with the place.
    pub candidate: Result<Candidate, String>,
}

/// Reads a CSV file. Flags apply to lines without a value.
pub fn csv(file: &Path, args: &Import) -> Result<Vec<Row>, CommandError> {
    let show = file.display();
    let reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_path(file);
    let mut reader = reader.map_err(|error| CommandError::Failed(format!("can't read {show}: {}", brief(&error))))?;
    let headers = reader.headers().map_err(|error| CommandError::Failed(format!("{show}: {}", brief(&error))))?;
    let headers: Vec<String> = headers.iter().map(str::to_ascii_lowercase).collect();
    check_columns(&headers).map_err(|why| CommandError::Usage(format!("{show}: {why}")))?;
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = match record {
            Ok(record) => record,
            Err(error) => {
                let line = error.position().map(csv::Position::line).unwrap_or_default();
                let place = format!("line {line}");
                rows.push(Row { candidate: Err(format!("{place}: {}", brief(&error))), name: place });
                continue;
            }
        };
        let line = record.position().map(csv::Position::line).unwrap_or_default();
        let cell = |column: &str| {
            let index = headers.iter().position(|header| header == column)?;
            record.get(index).filter(|value| !value.is_empty())
        };
        let place = format!("line {line}");
        let name = cell("name").map_or_else(|| place.clone(), str::to_owned);
        let candidate = of_cells(&cell, args, &place).map_err(|why| format!("{place}: {why}"));
        rows.push(Row { name, candidate });
    }
    Ok(rows)
}

/// An error of the CSV reader, without what was read.
fn brief(error: &csv::Error) -> String {
    match error.kind() {
        csv::ErrorKind::Io(error) => error.to_string(),
        csv::ErrorKind::Utf8 { .. } => "it is not text in UTF-8".to_owned(),
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!("it has {len} values, and the first line names {expected_len} columns: quote values with a comma")
        }
        _ => "it is no CSV".to_owned(),
    }
}

fn check_columns(headers: &[String]) -> Result<(), String> {
    if headers.iter().any(|header| header == "plaintext") {
        return Err(plaintext_is_there("the file"));
    }
    let unknown: Vec<_> = headers.iter().filter(|header| !COLUMNS.contains(&header.as_str())).collect();
    if let Some(unknown) = unknown.first() {
        return Err(format!("there is no column {unknown:?}: the columns are {}", COLUMNS.join(", ")));
    }
    match ["name", "ciphertext_blob"].into_iter().find(|column| !headers.iter().any(|header| header == column)) {
        Some(missing) => Err(format!("the column {missing} is missing: the first line names the columns")),
        None => Ok(()),
    }
}

fn of_cells<'a>(cell: &impl Fn(&str) -> Option<&'a str>, args: &Import, place: &str) -> Result<Candidate, String> {
    let name = data_key_name(cell("name").ok_or("name is empty")?)?;
    let blob = cell("ciphertext_blob").ok_or("ciphertext_blob is empty")?;
    let wrapped = Wrapped::base64(blob).ok_or("ciphertext_blob is not base64")?;
    let wrapped = wrapped.checked("ciphertext_blob")?;
    let mut candidate = Candidate { place: place.to_owned(), ..Candidate::of(args, &name, wrapped) };
    if let Some(version) = cell("version") {
        candidate.version =
            version.parse().ok().filter(|version| *version > 0).ok_or("version is no number from 1 on")?;
    }
    if let Some(key_id) = cell("key_id") {
        candidate.key_id = Some(key_id.to_owned());
    }
    if let Some(context) = cell("encryption_context") {
        candidate.encryption_context =
            aws_cli::encryption_context(context).map_err(|error| format!("encryption_context: {error}"))?;
    }
    let given = (cell("key_spec"), cell("number_of_bytes"));
    if given != (None, None) {
        candidate.key_spec = given.0.map(key_spec).transpose()?;
        candidate.number_of_bytes =
            given.1.map(|bytes| bytes.parse().map_err(|_| "number_of_bytes is no number")).transpose()?;
        if Material::new(candidate.key_spec, candidate.number_of_bytes, None).is_none() {
            return Err("give one of key_spec and number_of_bytes (1 to 1024), or none".to_owned());
        }
    }
    if let Some(named) = cell("region") {
        candidate.region = Some(region(named)?);
    }
    if let Some(time) = cell("issued_at") {
        candidate.issued_at = Some(time.parse().map_err(|_| "issued_at is no time such as 2026-11-24T01:02:03Z")?);
    }
    Ok(candidate)
}

/// Reads the files of a folder. Files that begin with a dot, and folders, are left out.
pub fn folder(folder: &Path, args: &Import) -> Result<Vec<Row>, CommandError> {
    let failed = |error: std::io::Error| CommandError::Failed(format!("can't read {}: {error}", folder.display()));
    let mut files = Vec::new();
    for file in std::fs::read_dir(folder).map_err(failed)? {
        let file = file.map_err(failed)?;
        let name = file.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') && file.path().is_file() {
            files.push((name, file.path()));
        }
    }
    files.sort();
    Ok(files.iter().map(|(name, path)| of_file(name, path, args)).collect())
}

fn of_file(file: &str, path: &Path, args: &Import) -> Row {
    let read = || {
        let (name, version) = name_and_version(file);
        let name = data_key_name(name)?;
        let bytes = param_file::bytes(&format!("fileb://{}", path.display()));
        let bytes = Zeroizing::new(bytes.unwrap_or_else(|| Err(format!("can't read {file}")))?);
        let wrapped = Wrapped::parse(&bytes, "the file")?;
        Ok(Candidate { place: file.to_owned(), version, ..Candidate::of(args, &name, wrapped) })
    };
    let candidate = read().map_err(|why: String| format!("{file}: {why}"));
    Row { name: name_and_version(file).0.to_owned(), candidate }
}

/// Splits `NAME.vN.EXTENSION`.
fn name_and_version(file: &str) -> (&str, i32) {
    let stem = file.rsplit_once('.').map_or(file, |(stem, _)| stem);
    let versioned = stem.rsplit_once(".v").and_then(|(name, version)| Some((name, version.parse().ok()?)));
    versioned.filter(|(_, version)| *version > 0).unwrap_or((stem, FIRST_VERSION))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn args() -> Import {
        let words = ["kubectl-datakey", "import", "--from-csv=x", "--to=y", "--key-id=alias/all", "--key-spec=AES_256"];
        match Cli::try_parse_from(words).unwrap().command {
            Command::Import(args) => args,
            other => panic!("{other:?}"),
        }
    }

    fn rows(text: &str) -> Result<Vec<Row>, CommandError> {
        let file = std::env::temp_dir().join(format!("kubectl-datakey-{:?}.csv", std::thread::current().id()));
        std::fs::write(&file, text).unwrap();
        let rows = csv(&file, &args());
        std::fs::remove_file(&file).unwrap();
        rows
    }

    #[test]
    fn lines_have_their_values_or_those_of_the_flags() {
        let rows = rows(
            "Name,version,key_id,ciphertext_blob,encryption_context,number_of_bytes,issued_at\n\
             orders,2,alias/orders,AQID,\"{\"\"a\"\": \"\"b\"\"}\",64,2026-11-24T01:02:03Z\n\
             payments,,,AQIE,\"c=d,e=f\",,\n",
        )
        .unwrap();
        let [orders, payments] = &rows[..] else { panic!("{rows:?}") };
        let orders = orders.candidate.as_ref().unwrap();
        assert_eq!((orders.version, orders.key_id.as_deref()), (2, Some("alias/orders")));
        assert_eq!((orders.key_spec, orders.number_of_bytes), (None, Some(64)));
        assert_eq!(orders.encryption_context, [("a".to_owned(), "b".to_owned())].into());
        assert_eq!(orders.wrapped.ciphertext_blob, [1, 2, 3]);
        assert!(orders.issued_at.is_some());
        let payments = payments.candidate.as_ref().unwrap();
        assert_eq!((payments.version, payments.key_id.as_deref()), (1, Some("alias/all")));
        assert_eq!((payments.key_spec.is_some(), payments.encryption_context.len()), (true, 2));
    }

    #[test]
    fn wrong_lines_are_reported_with_their_number() {
        let text = "name,ciphertext_blob,version\nORDERS,AQID,1\na,%%,1\nb,AQID,0\nc,AQID\n,AQID,1\nd,,1\n";
        let wrong: Vec<_> = rows(text).unwrap().into_iter().map(|row| row.candidate.unwrap_err()).collect();
        for (error, (line, message)) in wrong.iter().zip([
            ("line 2", "lower-case"),
            ("line 3", "not base64"),
            ("line 4", "no number"),
            ("line 5", "2 values"),
            ("line 6", "name is empty"),
            ("line 7", "ciphertext_blob is empty"),
        ]) {
            assert!(error.starts_with(line) && error.contains(message), "{error}");
        }
        assert_eq!(wrong.len(), 6);
    }

    #[test]
    fn line_with_two_lengths_is_refused() {
        for (spec, bytes) in [("AES_256", "32"), ("", "1025"), ("", "x"), ("AES", "")] {
            let text = format!("name,ciphertext_blob,key_spec,number_of_bytes\na,AQID,{spec},{bytes}\n");
            assert!(rows(&text).unwrap()[0].candidate.is_err(), "{spec} {bytes}");
        }
    }

    #[test]
    fn columns_that_are_unknown_or_missing_are_refused() {
        for (text, message) in [
            ("name,blob\n", "no column \"blob\""),
            ("name\n", "column ciphertext_blob is missing"),
            ("name,ciphertext_blob,Plaintext\na,AQID,c2VjcmV0\n", "has Plaintext"),
        ] {
            let error = rows(text).unwrap_err().to_string();
            assert!(error.contains(message) && !error.contains("c2VjcmV0"), "{error}");
        }
    }

    #[test]
    fn file_names_have_the_name_and_the_version() {
        for (file, expected) in [
            ("orders.json", ("orders", 1)),
            ("orders.v2.json", ("orders", 2)),
            ("orders.eu.v12.blob", ("orders.eu", 12)),
            ("orders.v0.json", ("orders.v0", 1)),
            ("orders", ("orders", 1)),
        ] {
            assert_eq!(name_and_version(file), expected, "{file}");
        }
    }
}
