//! The tables of docs/reference.md that come from the code, each between two comments. `make generate` writes them.

use std::fs;

use clap::CommandFactory;
use datakey::{
    api::{DataKey, DataKeyPair, KeyKind as _, KindId, PENDING, class_crd, crd},
    condition::{ISSUED, ReadyState, key_usable::Cause},
    reason::{Failure, Reason, RetryPolicy},
};
use datakey_operator::{
    args::Cli,
    exit_code::Ended,
    metrics::{Gauges, KeyCheck, Metrics, ReconcileOutcome, SecretWrite},
};
use testbed::{assert_fresh, repository};

mod fields;

/// The file with the tables.
const FILE: &str = "docs/reference.md";

/// The table `part` in the place that a page has for it.
pub fn with_part(text: &str, name: &str, part: &str) -> String {
    let (begin, end) = (format!("<!-- generated: {name} -->\n"), format!("<!-- end: {name} -->\n"));
    let (before, rest) = text.split_once(&begin).unwrap_or_else(|| panic!("the page has no {begin}"));
    let (_, after) = rest.split_once(&end).unwrap_or_else(|| panic!("the page has no {end}"));
    format!("{before}{begin}\n{part}\n{end}{after}")
}

/// A table of Markdown.
pub fn table(head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let line = |cells: &[String]| {
        let cells: Vec<_> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
        format!("| {} |\n", cells.join(" | "))
    };
    let head: Vec<_> = head.iter().map(|&cell| cell.to_owned()).collect();
    let rule = vec!["---".to_owned(); head.len()];
    rows.into_iter().fold(line(&head) + &line(&rule), |table, row| table + &line(&row))
}

pub fn code(text: &str) -> String {
    format!("`{text}`")
}

pub fn sentence(text: &str) -> String {
    format!("{}.", text.trim_end_matches('.'))
}

fn flags() -> String {
    let cli = Cli::command();
    let run = cli.find_subcommand("run").unwrap();
    let flags = run.get_arguments().filter(|flag| flag.get_env().is_some());
    let rows = flags.map(|flag| {
        let default = flag.get_default_values().first().and_then(|value| value.to_str());
        let help = flag.get_help().unwrap().to_string().replace('\n', " ");
        let values: Vec<_> = flag.get_possible_values().iter().map(|value| code(value.get_name())).collect();
        let values = if values.is_empty() { String::new() } else { format!(" Values: {}.", values.join(", ")) };
        vec![
            code(&format!("--{}", flag.get_long().unwrap())),
            code(flag.get_env().unwrap().to_str().unwrap()),
            default.map_or_else(|| "none".to_owned(), code),
            sentence(&help) + &values,
        ]
    });
    table(&["flag", "environment variable", "default", "meaning"], rows)
}

fn reasons() -> String {
    let row = |status: &str, reason: &str, stalled: bool, retried: &str, message: &str| {
        let section = format!("[`{reason}`](troubleshooting.md#{})", reason.to_lowercase());
        let stalled = if stalled { "True" } else { "" };
        let reason = if status == "False" { section } else { code(reason) };
        vec![reason, status.to_owned(), stalled.to_owned(), retried.to_owned(), message.to_owned()]
    };
    let own = [
        row("True", ISSUED, false, "", "The Secret holds the data key of the spec."),
        row("Unknown", PENDING, false, "", "The operator has not seen the DataKey yet."),
    ];
    let failures = Reason::ALL.iter().map(|&reason| {
        let (policy, stalled) = match reason.retry_policy() {
            RetryPolicy::RetrySoon => ("soon", false),
            RetryPolicy::RetrySlowly => ("slowly", false),
            RetryPolicy::RetryRarely => ("rarely", true),
        };
        row("False", reason.as_str(), stalled, policy, &Failure::from(reason).message(DataKey::KIND))
    });
    table(&["reason", "`Ready`", "`Stalled`", "retried", "message"], own.into_iter().chain(failures))
}

/// The metrics as a scrape shows them. Each family has one value, so that its labels are known.
fn metrics() -> String {
    let metrics = Metrics::default();
    metrics.kms_call("eu-west-1", "OK", std::time::Duration::ZERO);
    metrics.reconciled(ReconcileOutcome::Success, std::time::Duration::ZERO);
    metrics.secret_written(SecretWrite::Create);
    metrics.role_assumption("OK");
    metrics.kms_key_checked(KeyCheck::Usable);
    let (states, unusable) =
        (vec![(KindId::DataKey, ReadyState::Issued)], vec![(Cause::DisabledException, "shop".to_owned())]);
    let scraped = metrics.render(Gauges { states, unusable, ..Gauges::default() }).unwrap();
    let after = |keyword: &str| {
        let lines = scraped.lines().filter_map(move |line| line.strip_prefix(keyword)?.split_once(' '));
        lines.collect::<Vec<_>>()
    };
    let helps = after("# HELP ");
    let rows = after("# TYPE ").into_iter().map(|(name, kind)| {
        let sample = match kind {
            "counter" => format!("{name}_total"),
            "info" => format!("{name}_info"),
            _ => name.to_owned(),
        };
        let help = helps.iter().find(|(of, _)| *of == name).unwrap().1;
        vec![code(&format!("{sample}{}", labels(&scraped, name))), kind.to_owned(), sentence(help)]
    });
    table(&["metric", "type", "meaning"], rows)
}

/// The names of the labels of a metric, in braces; nothing if it has none.
fn labels(scraped: &str, name: &str) -> String {
    let sample = scraped.lines().find(|line| line.starts_with(name)).unwrap();
    let Some((_, labels)) = sample.split_once('{') else { return String::new() };
    let (labels, _) = labels.split_once('}').unwrap();
    let names: Vec<_> = labels.split(',').filter_map(|label| label.split('=').next()).collect();
    format!("{{{}}}", names.join(","))
}

fn exit_codes() -> String {
    let rows = Ended::ALL.map(|ended| vec![ended.code().to_string(), ended.meaning().to_owned()]);
    table(&["exit code", "meaning"], rows)
}

/// The exit codes of the plugin, from its help: `Exit codes: 0, all is well; 1, ...`.
fn exit_codes_of_the_plugin() -> String {
    let help = fs::read_to_string(repository().join("tests/repository/help/kubectl-datakey.txt")).unwrap();
    let (_, list) = help.split_once("\nExit codes: ").unwrap();
    let (list, _) = list.split_once(".\n").unwrap();
    let rows = list.split("; ").map(|entry| {
        let (number, meaning) = entry.split_once(", ").unwrap();
        let meaning = meaning.replace('\n', " ");
        let (first, rest) = meaning.split_at(1);
        vec![number.trim().to_owned(), sentence(&(first.to_uppercase() + rest))]
    });
    table(&["exit code", "meaning"], rows)
}

#[test]
fn tables_of_the_reference_are_as_the_code_says() {
    let pair = serde_json::to_value(crd::<DataKeyPair>()).unwrap();
    let class = serde_json::to_value(class_crd()).unwrap();
    let crd = serde_json::to_value(crd::<DataKey>()).unwrap();
    let text = fs::read_to_string(repository().join(FILE)).unwrap();
    let parts = [
        ("spec", fields::spec(&crd)),
        ("status", fields::status(&crd)),
        ("version", fields::version(&crd)),
        ("columns", fields::columns(&crd)),
        ("pair spec", fields::spec(&pair)),
        ("pair version", fields::version(&pair)),
        ("pair columns", fields::columns(&pair)),
        ("class spec", fields::spec(&class)),
        ("class status", fields::status(&class)),
        ("class columns", fields::columns(&class)),
        ("reasons", reasons()),
        ("flags", flags()),
        ("metrics", metrics()),
        ("exit codes", exit_codes()),
        ("exit codes of the plugin", exit_codes_of_the_plugin()),
    ];
    let marks = text.matches("<!-- generated: ").count();
    assert_eq!(marks, parts.len(), "{FILE} has a place for a part that is not there");
    let fresh = parts.iter().fold(text, |text, (name, part)| with_part(&text, name, part));
    assert_fresh(FILE, &fresh);
}

#[test]
fn stale_table_is_replaced_and_the_text_around_it_stays() {
    let file = |part: &str| format!("a\n<!-- generated: x -->\n\n{part}\n<!-- end: x -->\nb\n");
    let part = table(&["c"], [vec!["d|e".to_owned()]]);
    assert_eq!(part, "| c |\n| --- |\n| d\\|e |\n");
    assert_eq!(with_part(&file("stale\n"), "x", &part), file(&part));
    assert_eq!(with_part(&file(&part), "x", &part), file(&part));
}

#[test]
fn every_flag_reason_metric_and_field_is_in_its_table() {
    let crd = serde_json::to_value(crd::<DataKey>()).unwrap();
    assert_eq!(reasons().lines().count(), Reason::ALL.len() + 4);
    assert!(flags().contains("| `--admin-address` | `DATAKEY_ADMIN_ADDRESS` | `[::]:8080` | "), "{}", flags());
    assert!(metrics().contains("| `datakey_kms_requests_total{region,code}` | counter | "), "{}", metrics());
    assert!(metrics().contains("| `datakey_build_info{version}` | info | "), "{}", metrics());
    let spec = fields::spec(&crd);
    for field in ["keyId", "secretTemplate.metadata.labels", "wrappedKeys"] {
        assert!(spec.contains(&format!("| `{field}` | ")), "{field}: {spec}");
    }
    let class = fields::spec(&serde_json::to_value(class_crd()).unwrap());
    for field in ["namespaces", "defaults.keyId", "allow[].numberOfBytes.min", "encryptionContext.pairs[].valueFrom"] {
        assert!(class.contains(&format!("| `{field}` | ")), "{field}: {class}");
    }
    assert!(exit_codes().contains("\n| 64 | ") && exit_codes_of_the_plugin().contains("\n| 64 | "));
}
