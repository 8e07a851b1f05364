//! Many wrapped data keys: the lines of a CSV file, and the files of a folder.

use std::{fs::File, io::Read, path::Path};

use datakey::api::FIRST_VERSION;
use zeroize::Zeroizing;

use super::{
    candidate::Candidate,
    wrapped::{Wrapped, plaintext_is_there},
};
use crate::{
    aws_cli::{self, param_file},
    cli::{aws::data_key_name, import::Import},
    commands::report::Failure,
    output::CommandError,
};

/// The most bytes of a CSV file: its lines are held in memory.
const LONGEST: u64 = 64 << 20;

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
    /// The candidate, or what is wrong.
    pub candidate: Result<Candidate, Failure>,
}

/// Reads a CSV file. Flags apply to lines without a value. A line without any value is left out: spreadsheets write such lines.
pub fn csv(file: &Path, args: &Import) -> Result<Vec<Row>, CommandError> {
    let show = file.display();
    let failed = |why: String| CommandError::Failed(format!("{show}: {why}"));
    let input = File::open(file).map_err(|error| CommandError::Failed(format!("can't read {show}: {error}")))?;
    // A line with too few or too many values still names the DataKey, which then is not imported without that version.
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).flexible(true).from_reader(input.take(LONGEST));
    let headers = reader.headers().map_err(|error| failed(brief(&error)))?;
    let headers: Vec<String> = headers.iter().map(str::to_ascii_lowercase).collect();
    check_columns(&headers).map_err(|why| CommandError::Usage(format!("{show}: {why}")))?;
    let mut rows = Vec::new();
    for record in reader.byte_records() {
        let record = record.map_err(|error| failed(brief(&error)))?;
        if record.iter().any(|cell| !cell.is_empty()) {
            rows.push(of_record(&record, &headers, args));
        }
    }
    if reader.into_inner().limit() == 0 {
        return Err(failed(format!("it has {LONGEST} bytes or more: split it")));
    }
    if rows.is_empty() {
        return Err(failed("it has no line with a wrapped data key below the names of the columns".to_owned()));
    }
    Ok(rows)
}

fn of_record(record: &csv::ByteRecord, headers: &[String], args: &Import) -> Row {
    let place = format!("line {}", record.position().map(csv::Position::line).unwrap_or_default());
    let bytes = |column: &str| {
        let index = headers.iter().position(|header| header == column)?;
        record.get(index).filter(|value| !value.is_empty())
    };
    let name = bytes("name").map_or_else(|| place.clone(), |name| String::from_utf8_lossy(name).into_owned());
    let candidate = || {
        if record.len() != headers.len() {
            let (found, wanted) = (record.len(), headers.len());
            return Err(format!(
                "it has {found} values, and the first line names {wanted} columns: quote values with a comma"
            ));
        }
        // Programs break the lines of base64, but of no other value. Otherwise the lines below can have become a part of it.
        let broken = |(header, value): &(&String, &[u8])| *header != "ciphertext_blob" && is_broken(value);
        if let Some((header, _)) = headers.iter().zip(record).find(broken) {
            return Err(format!("{header} has a line break"));
        }
        if record.iter().any(|value| std::str::from_utf8(value).is_err()) {
            return Err("it is not text in UTF-8".to_owned());
        }
        of_cells(&|column| bytes(column).and_then(|value| std::str::from_utf8(value).ok()), args, &place)
    };
    let candidate = candidate().map_err(|why| {
        // A quote without its closing one takes in the lines below, which then are not reported.
        let hint = if record.iter().any(is_broken) {
            "; a value goes over several lines: a closing quote may be missing"
        } else {
            ""
        };
        Failure::new(&place, why + hint)
    });
    Row { name, candidate }
}

fn is_broken(value: &[u8]) -> bool {
    value.iter().any(|byte| b"\r\n".contains(byte))
}

/// An error of the CSV reader, without what was read.
fn brief(error: &csv::Error) -> String {
    match error.kind() {
        csv::ErrorKind::Io(error) => error.to_string(),
        csv::ErrorKind::Utf8 { .. } => "it is not text in UTF-8".to_owned(),
        _ => "it is no CSV".to_owned(),
    }
}

fn check_columns(headers: &[String]) -> Result<(), String> {
    if headers.iter().any(|header| header == "plaintext") {
        return Err(plaintext_is_there("the file"));
    }
    let unknown: Vec<_> = headers.iter().filter(|header| !COLUMNS.contains(&header.as_str())).collect();
    if let Some(unknown) = unknown.first() {
        let shown: String = unknown.chars().take(40).collect();
        let hint = if unknown.contains([';', '\t']) { "separate the values by commas; " } else { "" };
        return Err(format!("there is no column {shown:?}: {hint}the columns are {}", COLUMNS.join(", ")));
    }
    if let Some(twice) = headers.iter().enumerate().find(|(at, header)| headers[..*at].contains(header)) {
        return Err(format!("the column {} is there twice: remove one", twice.1));
    }
    match ["name", "ciphertext_blob"].into_iter().find(|column| !headers.iter().any(|header| header == column)) {
        Some(missing) => Err(format!("the column {missing} is missing: the first line names the columns")),
        None => Ok(()),
    }
}

fn of_cells<'a>(cell: &impl Fn(&str) -> Option<&'a str>, args: &Import, place: &str) -> Result<Candidate, String> {
    let name = data_key_name(cell("name").ok_or("name is empty")?)?;
    let blob = cell("ciphertext_blob").ok_or("ciphertext_blob is empty")?;
    let wrapped = Wrapped::base64(blob, "ciphertext_blob")?.ok_or("ciphertext_blob is not base64")?;
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
        candidate.encryption_context = aws_cli::encryption_context_without_files(context)
            .map_err(|error| format!("encryption_context: {error}"))?;
    }
    let given = (cell("key_spec"), cell("number_of_bytes"));
    if given != (None, None) {
        candidate.key_spec = given.0.map(aws_cli::key_spec).transpose()?;
        candidate.number_of_bytes =
            given.1.map(|bytes| bytes.parse().map_err(|_| "number_of_bytes is no number")).transpose()?;
        if candidate.material().is_none() {
            return Err("give one of key_spec and number_of_bytes (1 to 1024), or none".to_owned());
        }
    }
    if let Some(named) = cell("region") {
        candidate.region = Some(aws_cli::region(named)?);
    }
    if let Some(time) = cell("issued_at") {
        candidate.issued_at = Some(time.parse().map_err(|_| "issued_at is no time such as 2026-11-24T01:02:03Z")?);
    }
    Ok(candidate)
}

/// Reads the files of a folder, and those that links name, and returns the names of other files. Files that begin with a dot, and
/// folders, are left out.
pub fn folder(folder: &Path, args: &Import) -> Result<(Vec<Row>, Vec<String>), CommandError> {
    let failed = |error: std::io::Error| CommandError::Failed(format!("can't read {}: {error}", folder.display()));
    let (mut files, mut skipped) = (Vec::new(), Vec::new());
    for file in std::fs::read_dir(folder).map_err(failed)? {
        let file = file.map_err(failed)?;
        let name = file.file_name().to_string_lossy().into_owned();
        // A link that leads nowhere is reported when it is read.
        let is_file = std::fs::metadata(file.path()).map_or(true, |found| found.is_file());
        match (is_file && !name.starts_with('.'), has_data_key(&name)) {
            (true, true) => files.push((name, file.path())),
            (true, false) => skipped.push(name),
            (false, _) => {}
        }
    }
    if files.is_empty() {
        return Err(CommandError::Failed(format!(
            "{} has no file NAME.json or NAME.blob with a wrapped data key",
            folder.display()
        )));
    }
    files.sort();
    skipped.sort();
    Ok((files.iter().map(|(name, path)| of_file(name, path, args)).collect(), skipped))
}

/// Whether a file is one of those that the documentation names: others are no data keys, for example a README.
fn has_data_key(file: &str) -> bool {
    let extension = file.rsplit_once('.').map(|(_, extension)| extension);
    ["json", "blob"].into_iter().any(|known| extension.is_some_and(|extension| extension.eq_ignore_ascii_case(known)))
}

/// The note about the other files; `None` if there are none.
pub fn skipped(files: &[String]) -> Option<String> {
    const SHOWN: usize = 5;
    let shown = files.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    let more = files.len().saturating_sub(SHOWN);
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    (!files.is_empty()).then(|| format!("note: skipped {shown}{more}: --from-folder reads NAME.json and NAME.blob"))
}

fn of_file(file: &str, path: &Path, args: &Import) -> Row {
    let (name, version) = name_and_version(file);
    let read = || {
        let name = data_key_name(name)?;
        let bytes = Zeroizing::new(param_file::read(path)?);
        let wrapped = Wrapped::parse(&bytes, "the file")?;
        Ok(Candidate { place: file.to_owned(), version, ..Candidate::of(args, &name, wrapped) })
    };
    let candidate = read().map_err(|why: String| Failure::new(file, why));
    Row { name: name.to_owned(), candidate }
}

/// Splits `NAME.vN.EXTENSION` and `NAME.EXTENSION`.
fn name_and_version(file: &str) -> (&str, i32) {
    let stem = file.rsplit_once('.').map_or(file, |(stem, _)| stem);
    versioned_name(stem).unwrap_or((stem, FIRST_VERSION))
}

fn versioned_name(text: &str) -> Option<(&str, i32)> {
    let (name, version) = text.rsplit_once(".v")?;
    version.parse().ok().filter(|version| *version > 0).map(|version| (name, version))
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
    fn files_of_spreadsheets_are_read() {
        let rows = rows(
            "\u{feff}\"name\",\"ciphertext_blob\",version\r\n\r\norders , AQID,2\r\n,,\r\n\"payments\",\"AQIE\",\r\n",
        );
        let names: Vec<_> = rows.unwrap().into_iter().map(|row| (row.name, row.candidate.unwrap().version)).collect();
        assert_eq!(names, [("orders".to_owned(), 2), ("payments".to_owned(), 1)]);
    }

    #[test]
    fn line_with_a_wrong_form_belongs_to_its_data_key() {
        let read = rows("name,ciphertext_blob,version\norders,AQID,1\norders,AQID\n").unwrap();
        assert_eq!([&read[0].name, &read[1].name], ["orders", "orders"]);
        let open = rows("name,ciphertext_blob\norders,\"AQID\npayments,AQIE\n").unwrap();
        assert!(open[0].candidate.as_ref().unwrap_err().why.ends_with("a closing quote may be missing"), "{open:?}");
        assert_eq!(open.len(), 1);
    }

    #[test]
    fn line_breaks_are_refused_but_in_base64() {
        // The quote takes in a line, up to the next quote.
        for end in ["\n", "\r\n", "\r"] {
            let text = "name,encryption_context,ciphertext_blob,key_id|orders,\"a=b,AQID,|payments,c=d\",AQIE,|ledger,a=b,\"AQ|IF\",|";
            let read = rows(&text.replace('|', end)).unwrap();
            let error = read[0].candidate.as_ref().unwrap_err().to_string();
            assert!(
                error.contains(": encryption_context has a line break;")
                    && error.ends_with("a closing quote may be missing"),
                "{error}"
            );
            assert_eq!(read[1].candidate.as_ref().unwrap().wrapped.ciphertext_blob, [1, 2, 5]);
        }
        let read = rows("name,ciphertext_blob,key_id\norders,AQID,\"alias/\norders\"\n").unwrap();
        assert!(read[0].candidate.as_ref().unwrap_err().why.starts_with("key_id has a line break"), "{read:?}");
        let escaped = "name,ciphertext_blob,encryption_context\norders,AQID,\"{\"\"a\"\": \"\"b\\nc\"\"}\"\n";
        assert_eq!(rows(escaped).unwrap()[0].candidate.as_ref().unwrap().encryption_context["a"], "b\nc");
    }

    #[test]
    fn wrong_lines_are_reported_with_their_number() {
        let text = "name,ciphertext_blob,version\nORDERS,AQID,1\na,%%,1\nb,AQID,0\nc,AQID\n,AQID,1\nd,,1\n";
        let wrong: Vec<_> = rows(text).unwrap().into_iter().map(|row| row.candidate.unwrap_err().to_string()).collect();
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
    fn cells_name_no_files() {
        let read = rows(
            "name,ciphertext_blob,encryption_context,key_id\n\
             a,AQID,x@=file:///dev/null,\n\
             b,AQID,file:///dev/null,\n\
             c,AQID,,file:///dev/null\n\
             d,file:///dev/null,,\n",
        )
        .unwrap();
        for row in &read[..2] {
            assert!(row.candidate.as_ref().unwrap_err().why.contains("files are read for flags only"), "{row:?}");
        }
        assert_eq!(read[2].candidate.as_ref().unwrap().key_id.as_deref(), Some("file:///dev/null"));
        assert!(read[3].candidate.as_ref().unwrap_err().why.contains("not base64"));
    }

    #[test]
    fn text_that_is_no_utf_8_fails_its_line_alone() {
        let file = std::env::temp_dir().join(format!("kubectl-datakey-latin-{}.csv", std::process::id()));
        std::fs::write(&file, b"name,ciphertext_blob\norders,AQID\nk\xe4se,AQIE\n").unwrap();
        let read = csv(&file, &args()).unwrap();
        std::fs::remove_file(&file).unwrap();
        assert!(read[0].candidate.is_ok());
        assert_eq!(read[1].candidate.as_ref().unwrap_err().to_string(), "line 3: it is not text in UTF-8");
    }

    #[test]
    fn odd_files_of_a_folder_are_reported() {
        use std::os::unix::{ffi::OsStrExt, fs::symlink};

        let from = std::env::temp_dir().join(format!("kubectl-datakey-folder-{}", std::process::id()));
        std::fs::create_dir_all(from.join("folder.json")).unwrap();
        let write =
            |name: &[u8], bytes: &[u8]| std::fs::write(from.join(std::ffi::OsStr::from_bytes(name)), bytes).unwrap();
        write(b"good.json", b"{\"CiphertextBlob\": \"AQID\"}");
        write(b"$HOME.json", b"AQID");
        write(b"k\xe4se.json", b"AQID");
        write(b".hidden", b"AQID");
        symlink(from.join("good.json"), from.join("link.json")).unwrap();
        symlink("/no/such/file", from.join("lost.json")).unwrap();
        symlink("/dev/zero", from.join("zero.json")).unwrap();
        write(b"README.md", b"# Keys");
        write(b"notes", b"AQID");
        let (rows, others) = folder(&from, &args()).unwrap();
        std::fs::remove_dir_all(&from).unwrap();
        let read: Vec<_> = rows.iter().map(|row| (row.name.as_str(), row.candidate.is_ok())).collect();
        assert_eq!(read, [("$HOME", false), ("good", true), ("k\u{fffd}se", false), ("link", true), ("lost", false)]);
        assert!(rows[4].candidate.as_ref().unwrap_err().why.contains("can't read"));
        assert_eq!(others, ["README.md", "notes"]);
    }

    #[test]
    fn input_without_a_data_key_is_an_error() {
        for text in ["name,ciphertext_blob\n", "name,ciphertext_blob\n,\n"] {
            assert!(rows(text).unwrap_err().to_string().contains("has no line with a wrapped data key"));
        }
        let from = std::env::temp_dir().join(format!("kubectl-datakey-no-keys-{}", std::process::id()));
        std::fs::create_dir_all(&from).unwrap();
        std::fs::write(from.join("README.md"), "# Keys").unwrap();
        let error = folder(&from, &args()).unwrap_err().to_string();
        std::fs::remove_dir_all(&from).unwrap();
        assert!(error.contains("has no file NAME.json or NAME.blob"), "{error}");
    }

    #[test]
    fn skipped_files_are_named_once() {
        let names = |count: usize| (0..count).map(|number| format!("{number}.md")).collect::<Vec<_>>();
        assert_eq!(skipped(&[]), None);
        assert_eq!(
            skipped(&names(2)).unwrap(),
            "note: skipped 0.md, 1.md: --from-folder reads NAME.json and NAME.blob"
        );
        assert!(skipped(&names(7)).unwrap().contains("4.md and 2 more:"));
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
            ("name;ciphertext_blob\n", "separate the values by commas"),
            ("name\n", "column ciphertext_blob is missing"),
            ("name,ciphertext_blob,Name\n", "column name is there twice"),
            ("", "column name is missing"),
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
        ] {
            assert_eq!(name_and_version(file), expected, "{file}");
        }
    }
}
