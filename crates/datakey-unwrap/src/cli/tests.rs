use datakey::fixtures::ARN;

use super::*;

fn refusal(arguments: &str) -> Failure {
    match read(words(arguments)) {
        Err(Refusal::Usage(failure)) => failure,
        other => panic!("{arguments}: {other:?}"),
    }
}

/// The arguments of a command line, with `ARN` for a KMS key and `_` for the blank in an argument.
fn words(arguments: &str) -> Vec<OsString> {
    let arguments = format!("datakey-unwrap {arguments}");
    arguments.split(' ').map(|word| word.replace("ARN_", &format!("{ARN} ")).into()).collect()
}

#[test]
fn every_command_has_its_arguments() {
    for arguments in [
        "file --from /keys --to /plaintext --trust ARN_none --key-spec AES_256",
        "watch --from /keys --to /plaintext --trust=ARN_purpose=orders --number-of-bytes 64 --format hex --name {version}.hex",
        "exec --from /keys --trust ARN_none --key-pair-spec RSA_2048 --format der -- app --flag",
        "file --from /keys --to /plaintext --trust ARN_none --key-spec AES_256 --uid 70 --gid 70",
        "check --from /keys --trust ARN_none --key-spec AES_128 --same 1 3 --versions 1,3",
        "ready --to /plaintext",
        "install /datakey",
    ] {
        assert!(read(words(arguments)).is_ok(), "{arguments}");
    }
}

#[test]
fn wrong_arguments_are_refused_on_one_line() {
    let file = "file --from /keys --to /plaintext --trust ARN_none --key-spec AES_256";
    for (arguments, part) in [
        ("file --from /keys --to /plaintext --key-spec AES_256".to_owned(), "--trust"),
        ("file --from /keys --to /plaintext --trust ARN_none".to_owned(), "--key-spec"),
        (format!("{file} --number-of-bytes 32"), "--number-of-bytes"),
        (format!("{file} --format pem"), "a data key is written as raw, hex, base64 or jwk"),
        (format!("{file} --name one"), "all versions would have one file"),
        (format!("{file} --name one --versions 1,2"), "all versions would have one file"),
        (format!("{file} --name version --versions 1"), "another file in the folder"),
        (format!("{file} --name ../x --versions 1"), "without '/'"),
        (format!("{file} --mode 0420"), "only its owner may write"),
        (format!("{file} --mode 0500"), "not executable"),
        (format!("{file} --mode 0040"), "the owner can read"),
        (format!("{file} --gid 1000"), "write --mode 0440"),
        (format!("{file} --versions 1,x"), "write all, current, or numbers"),
        (format!("{file} --versions 01"), "write all, current, or numbers"),
        (format!("{file} --min-version 0"), "--min-version"),
        (format!("{file} --blob-sha256 1=abc"), "64 hexadecimal digits"),
        (format!("{file} --timeout 0s"), "100ms"),
        (format!("{file} --no-such-flag"), "--no-such-flag"),
        ("check --from k --trust ARN_none --key-pair-spec ML_KEM_768 --same 1".to_owned(), "--same"),
        ("exec --from k --trust ARN_none --key-pair-spec ML_KEM_768 --format jwk -- app".to_owned(), "no JSON Web Key"),
        ("exec --from k --trust ARN_none --key-pair-spec RSA_2048 --format raw -- app".to_owned(), "pem, der or jwk"),
        ("exec --from k --trust ARN_none --key-spec AES_256".to_owned(), "COMMAND"),
    ] {
        let failure = refusal(&arguments);
        assert!(failure.why.contains(part), "{arguments}: {}", failure.why);
        assert!(
            !failure.why.contains('\n') && failure.why.contains("--help") | !failure.why.contains("usage"),
            "{failure:?}"
        );
    }
}

#[test]
fn kms_key_is_trusted_with_its_encryption_context() {
    let context =
        |text: &str| values::trusted(&format!("{ARN} {text}")).map(|trusted| trusted.context.into_iter().collect());
    let pairs = |pairs: &[(&str, &str)]| {
        Ok(pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect::<Vec<_>>())
    };
    assert_eq!(context("none"), pairs(&[]));
    assert_eq!(context("purpose=orders,stage='a, b'"), pairs(&[("purpose", "orders"), ("stage", "a, b")]));
    assert_eq!(context(r#"{"purpose": "orders"}"#), pairs(&[("purpose", "orders")]));
    for (text, part) in [
        (ARN.to_owned(), "no encryption context"),
        ("alias/orders purpose=orders".to_owned(), "no ARN of a KMS key"),
        (ARN.replace("key/1234abcd-12ab-34cd-56ef-1234567890ab", "alias/orders none"), "no ARN of a KMS key"),
        (format!("{ARN} purpose"), "no '='"),
        (format!("{ARN} purpose@=file:///etc/hostname"), "files are read for flags only"),
    ] {
        let error = values::trusted(&text).unwrap_err();
        assert!(error.contains(part), "{text}: {error}");
    }
}

#[test]
fn missing_command_is_refused_with_all_commands() {
    for arguments in [vec!["datakey-unwrap"], vec!["datakey-unwrap", "walk"]] {
        let read = read(arguments.iter().map(OsString::from));
        let Err(Refusal::Usage(failure)) = read else { panic!("{arguments:?}: {read:?}") };
        assert!(failure.why.contains("--help"), "{failure:?}");
    }
}
