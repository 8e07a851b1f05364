//! What the binary can do at all: the debug one in every run, the one that is shipped in `make release`.

use std::{collections::BTreeSet, process::Command};

use crate::flags;

/// Nothing is reached with it: the operator ends where its flags and variables are right.
const NO_CLUSTER: &str = "/no/such/kubeconfig";

/// How KMS names an operation in a request.
const TARGET: &[u8] = b"TrentService.";

fn path() -> String {
    std::env::var("DATAKEY_BINARY").unwrap_or_else(|_| testbed::operator().display().to_string())
}

fn path_of_unwrap() -> String {
    testbed::unwrap().display().to_string()
}

/// The features of every crate in the operator, as a target of the Makefile builds it.
fn features(target: &str) -> BTreeSet<String> {
    let root = env!("CARGO_MANIFEST_DIR");
    let make = Command::new("make").args(["--dry-run", "--always-make", "--directory", root, target]).output().unwrap();
    let make = String::from_utf8(make.stdout).unwrap();
    let line = make.lines().find(|line| line.contains(" build ") && line.contains("--bin datakey-operator")).unwrap();
    let mut words = line.split_once(" build ").unwrap().1.split_whitespace();
    let mut selection = Vec::new();
    while let Some(word) = words.next() {
        match word {
            // Neither changes a feature; the targets of the builds differ.
            "--release" | "--locked" => {}
            "--bin" | "--target" => _ = words.next(),
            other => selection.push(other),
        }
    }
    let tree = ["tree", "--locked", "--edges=normal,build,features", "--prefix=none"];
    let tree = Command::new(env!("CARGO")).args(tree).args(&selection).current_dir(root).output().unwrap();
    assert!(tree.status.success(), "{selection:?}: {}", String::from_utf8_lossy(&tree.stderr));
    let tree = String::from_utf8(tree.stdout).unwrap();
    // What was shown before is marked.
    tree.lines().map(|line| line.trim_end_matches(" (*)").to_owned()).collect()
}

#[test]
fn what_is_tested_has_the_features_of_what_is_shipped() {
    let shipped = features("dist");
    assert!(shipped.len() > 200 && shipped.contains("aws-config feature \"rt-tokio\""), "{shipped:?}");
    for target in ["release", "operator"] {
        assert_eq!(features(target), shipped, "{target}");
    }
    for feature in ["sso", "credentials-process", "credentials-login"] {
        assert!(!shipped.contains(&format!("aws-config feature \"{feature}\"")), "{feature}");
    }
    // The binary under test is that one: a crate of a feature leaves its name in the places of its panics.
    let binary = std::fs::read(path()).unwrap();
    let holds = |words: &str| binary.windows(words.len()).any(|bytes| bytes == words.as_bytes());
    assert!(holds("aws-sdk-kms-") && !holds("aws-sdk-sso"));
}

/// The packages that a package is built from, itself included.
fn dependencies(package: &str) -> BTreeSet<String> {
    let tree = ["tree", "--locked", "--edges=normal", "--prefix=none", "--format={p}", "--package", package];
    let tree = Command::new(env!("CARGO")).args(tree).current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    assert!(tree.status.success(), "{package}: {}", String::from_utf8_lossy(&tree.stderr));
    let tree = String::from_utf8(tree.stdout).unwrap();
    tree.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

#[test]
fn packages_depend_on_nothing_beyond_their_walls() {
    const KUBERNETES: &[&str] = &["kube-client", "kube-runtime", "hyper"];
    const AWS: &[&str] = &["aws-config", "aws-sdk-kms", "tokio"];
    const PROGRAMS: &[&str] = &["datakey-operator", "kubectl-datakey", "testbed"];
    for (package, walls) in [
        ("datakey", &[KUBERNETES, AWS, PROGRAMS, &["datakey-aws", "datakey-decrypt"]][..]),
        ("datakey-aws", &[&["kube-client", "kube-runtime", "aws-sdk-kms", "datakey-decrypt"], PROGRAMS]),
        ("datakey-decrypt", &[&["kube-client", "kube-runtime", "datakey-dry-run", "datakey-unwrap"], PROGRAMS]),
        ("datakey-unwrap", &[&["kube-client", "kube-runtime", "datakey-dry-run", "aws-sdk-sso"], PROGRAMS]),
        ("datakey-dry-run", &[&["kube-client", "kube-runtime", "datakey-decrypt"], PROGRAMS]),
        ("kubectl-datakey", &[&["kube-runtime", "datakey-operator", "datakey-unwrap", "testbed"]]),
        (
            "datakey-operator",
            &[&["datakey-decrypt", "datakey-dry-run", "datakey-unwrap", "kubectl-datakey", "testbed", "aws-sdk-sso"]],
        ),
    ] {
        let found = dependencies(package);
        assert!(found.contains(package) && found.contains("serde"), "{package}: {found:?}");
        for other in walls.iter().copied().flatten() {
            assert!(!found.contains(*other), "{package} depends on {other}");
        }
    }
}

#[test]
#[ignore = "the binary of the image: make dist"]
fn static_binaries_name_no_build_folder_and_list_their_crates() {
    for (path, program) in [(path(), "datakey-operator"), (path_of_unwrap(), "datakey-unwrap")] {
        assert_static(&path, program);
    }
}

fn assert_static(path: &str, program: &str) {
    let binary = std::fs::read(path).unwrap();
    let holds = |words: &str| binary.windows(words.len()).any(|bytes| bytes == words.as_bytes());
    // Without an interpreter nothing of the system is linked: the program header PT_INTERP names one.
    assert!(!holds("/lib64/ld-linux") && !holds("/lib/ld-musl"), "it is not static");
    for folder in [env!("CARGO_MANIFEST_DIR"), &std::env::var("HOME").unwrap()] {
        assert!(!holds(&format!("{folder}/")), "it names {folder}");
    }
    assert!(holds(".dep-v0"), "it has no list of its crates (cargo auditable)");
    let version = Command::new(path).arg("--version").env_clear().output().unwrap();
    assert_eq!(String::from_utf8_lossy(&version.stdout).trim(), format!("{program} {}", env!("CARGO_PKG_VERSION")));
}

/// Fails unless the KMS operations that a binary holds are exactly these.
fn assert_operations(path: &str, operations: &[&str]) {
    let binary = std::fs::read(path).unwrap();
    let rest = |at: usize| String::from_utf8_lossy(&binary[at + TARGET.len()..][..40]).into_owned();
    let firsts = binary.iter().enumerate().filter(|(_, byte)| **byte == TARGET[0]);
    let found: Vec<_> = firsts.map(|(at, _)| at).filter(|&at| binary[at..].starts_with(TARGET)).map(rest).collect();
    for name in &found {
        assert!(operations.iter().any(|operation| name.starts_with(operation)), "{path} holds {name}");
    }
    for operation in operations {
        assert!(found.iter().any(|name| name.starts_with(operation)), "{path} does not hold {operation}");
    }
}

#[test]
fn the_binary_holds_no_operations_of_kms_but_the_two() {
    // Without a plaintext: the operations of these names without the suffix answer with one.
    assert_operations(&path(), &["GenerateDataKeyWithoutPlaintext", "GenerateDataKeyPairWithoutPlaintext"]);
}

// Elsewhere the program says so, and does nothing.
#[test]
#[cfg(target_os = "linux")]
fn helper_of_workloads_can_unwrap_only() {
    assert_operations(&path_of_unwrap(), &["Decrypt"]);
}

#[test]
fn kubectl_plugin_can_unwrap_rewrap_and_ask_by_dry_runs() {
    let operations = ["Decrypt", "GenerateDataKeyPairWithoutPlaintext", "GenerateDataKeyWithoutPlaintext", "ReEncrypt"];
    assert_operations(&testbed::plugin().display().to_string(), &operations);
    // Only the crate of dry runs has the other operations, and each has one call.
    let texts = crate::words::texts();
    let dry_runs = "crates/datakey-dry-run/src/lib.rs";
    for call in ["generate_data_key_without_plaintext()", "generate_data_key_pair_without_plaintext()"] {
        let calls = |path: &str, what: &str| texts[path].matches(&format!(".{call}{what}")).count();
        assert_eq!((calls(dry_runs, ""), calls(dry_runs, ".dry_run(true)")), (1, 1), "{call}");
        for path in texts.keys().filter(|path| path.starts_with("crates/") && *path != dry_runs) {
            assert_eq!(calls(path, ""), 0, "{path}");
        }
    }
}

/// Exit code and standard error of `datakey-operator` with these arguments and variables, and no others.
fn ended(arguments: &[&str], variables: &[(&str, &str)]) -> (i32, String) {
    let mut command = Command::new(path());
    command.args(arguments).env_clear().env("KUBECONFIG", NO_CLUSTER).envs(variables.iter().copied());
    let output = command.output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

/// Fails unless the operator refuses to start, on one line.
fn assert_refused(arguments: &[&str], variables: &[(&str, &str)], words: &[&str]) {
    let (code, error) = ended(arguments, variables);
    assert_eq!(code, 64, "{arguments:?} {variables:?}: {error}");
    assert_eq!(error.lines().count(), 1, "{arguments:?} {variables:?}: {error}");
    assert!(error.starts_with("datakey-operator: "), "{error}");
    for word in words {
        assert!(error.contains(word), "{arguments:?} {variables:?}: {error}");
    }
}

#[test]
fn every_variable_accepts_and_refuses_what_its_row_says() {
    let check = |row: &flags::FlagCases| {
        // A flag counts before its variable.
        let admin = ["run", "--admin-address=127.0.0.1:0"];
        let arguments = if row.flag == "--admin-address" { &admin[..1] } else { &admin };
        for (value, _) in row.accepted {
            let (_, error) = ended(arguments, &[(row.variable, value)]);
            assert!(
                error.contains("cannot configure the connection to the API server"),
                "{}={value:?}: {error}",
                row.variable
            );
        }
        let name = format!("datakey-operator: {} ({}): ", row.flag, row.variable);
        for value in row.refused {
            assert_refused(arguments, &[(row.variable, value)], &[&name, row.write]);
        }
    };
    std::thread::scope(|scope| {
        for rows in flags::ROWS.chunks(5) {
            scope.spawn(|| rows.iter().for_each(check));
        }
    });
}

#[test]
fn wrong_flags_and_variables_end_with_64_and_one_line() {
    assert_refused(&["run", "--kms-rate=0"], &[], &["--kms-rate (DATAKEY_KMS_RATE): \"0\" is refused"]);
    assert_refused(
        &["run", "--namespace="],
        &[],
        &["--namespace (DATAKEY_NAMESPACES): ", "leave it out to watch every"],
    );
    assert_refused(
        &["run", "--log-level=loud\u{1b}[2J\nx"],
        &[],
        &["--log-level (DATAKEY_LOG_LEVEL)", r"\u{1b}[2J\nx"],
    );
    assert_refused(
        &["run", "--retry-min=10m", "--retry-max=1s"],
        &[],
        &["--retry-min (DATAKEY_RETRY_MIN): 10m is longer"],
    );
    assert_refused(&["run", "--no-such-flag"], &[], &["there is no flag --no-such-flag"]);
    assert_refused(&["walk"], &[], &["'walk'"]);
    assert_refused(
        &["run"],
        &[("DATAKEY_NAMESPACE", "shop")],
        &["DATAKEY_NAMESPACE (did you mean DATAKEY_NAMESPACES?)"],
    );
    let quiet = "--log-level=error";
    assert_refused(&["run", quiet, "--admin-address=192.0.2.1:1"], &[], &["--admin-address (DATAKEY_ADMIN_ADDRESS)"]);
    let service_link = ("DATAKEY_PORT", "tcp://10.0.0.1:80");
    assert_refused(&["run", quiet, "--admin-address=127.0.0.1:0"], &[service_link], &["set KUBECONFIG"]);
}

#[test]
fn bytes_that_are_not_utf8_are_refused_by_name() {
    use std::os::unix::ffi::OsStrExt;

    let odd = std::ffi::OsStr::from_bytes(b"\xff");
    let mut by_variable = Command::new(path());
    by_variable.arg("run").env_clear().env("DATAKEY_KMS_RATE", odd);
    let mut by_flag = Command::new(path());
    by_flag.args(["run", "--namespace"]).arg(odd);
    for (mut command, words) in [(by_variable, "the variable DATAKEY_KMS_RATE"), (by_flag, "the argument ")] {
        let output = command.output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(64), "{error}");
        assert!(error.contains(words) && error.lines().count() == 1, "{error}");
    }
}

#[test]
fn help_and_version_end_with_0_and_no_command_with_64() {
    for arguments in [&["--help"][..], &["run", "--help"], &["--version"], &["crd"]] {
        assert_eq!(ended(arguments, &[("DATAKEY_KMS_RATE", "0"), ("DATAKEY_ODD", "x")]).0, 0, "{arguments:?}");
    }
    let (code, help) = ended(&[], &[]);
    assert!(code == 64 && help.contains("Usage: "), "{code}: {help}");
}
