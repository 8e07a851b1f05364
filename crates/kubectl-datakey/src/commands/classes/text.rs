//! Classes as text: a table, and all that one allows in plain lines. Pure.

use std::fmt::Write;

use datakey::api::{Mode, Others, ValueFrom};

use crate::{
    output::printable,
    view::{
        class_summary::{AwsSummary, ClassSummary, ContextSummary, LimitsSummary, PairSummary, Usable},
        table::table,
    },
};

/// How many entries of `allow` the table shows.
const MAX_ENTRIES: usize = 2;

/// Renders the table.
pub fn render_table(items: &[ClassSummary], marks_default: bool) -> String {
    if items.is_empty() {
        return String::new();
    }
    let row = |item: &ClassSummary| {
        let name = if item.default && marks_default { format!("{} (default)", item.name) } else { item.name.clone() };
        vec![
            name,
            item.usable.as_str().to_owned(),
            item.default_key_id.clone().unwrap_or_default(),
            in_short(&item.allow),
            item.why.clone().unwrap_or_default(),
        ]
    };
    table(&["CLASS", "USABLE", "DEFAULT KEY", "ALLOWS", "WHY NOT"], &items.iter().map(row).collect::<Vec<_>>())
}

/// What objects may ask for, without the KMS keys.
fn in_short(allow: &[LimitsSummary]) -> String {
    let mut all: Vec<_> = allow
        .iter()
        .map(|limits| {
            let lengths = lengths(limits).unwrap_or_else(|| vec!["any data key".to_owned()]);
            let lengths = if lengths.is_empty() { "no data key".to_owned() } else { lengths.join(", ") };
            let pairs = match pairs(limits) {
                None => "any key pair".to_owned(),
                Some(pairs) if pairs.is_empty() => "no key pair".to_owned(),
                Some(pairs) => pairs.join(", "),
            };
            let regions = limits.regions.as_ref().map_or_else(|| "any Region".to_owned(), |regions| regions.join(", "));
            format!("{lengths}; {pairs}; {regions}")
        })
        .collect();
    all.dedup();
    match all.len().checked_sub(MAX_ENTRIES) {
        None | Some(0) => all.join(" | "),
        Some(more) => format!("{} | {more} more", all[..MAX_ENTRIES].join(" | ")),
    }
}

/// The lengths of data keys; `None` for any.
fn lengths(limits: &LimitsSummary) -> Option<Vec<String>> {
    if limits.key_specs.is_none() && limits.number_of_bytes.is_none() {
        return None;
    }
    let specs = limits.key_specs.iter().flatten().map(|spec| spec.as_str().to_owned());
    let bytes = limits.number_of_bytes.iter().map(|range| match (range.min, range.max) {
        (min, max) if min == max => format!("{min} bytes"),
        (min, max) => format!("{min} to {max} bytes"),
    });
    Some(specs.chain(bytes).collect())
}

/// The kinds of key pairs; `None` for any.
fn pairs(limits: &LimitsSummary) -> Option<Vec<&'static str>> {
    limits.key_pair_specs.as_ref().map(|specs| specs.iter().map(|spec| spec.as_str()).collect())
}

/// Renders all that a class allows. `target` is where it is to be used.
pub fn describe(item: &ClassSummary, target: &str, marks_default: bool) -> String {
    let usable = match item.usable {
        Usable::Yes => "usable",
        Usable::No => "not usable",
        Usable::Unknown => "not known whether it is usable",
    };
    let mut out = format!("{}: {usable}{}\n", printable(&item.name), printable(target));
    let mut line = |name: &str, text: &str| {
        let _ = writeln!(out, "  {name:<9} {}", printable(text));
    };
    if let Some(why) = &item.why {
        line("Why", why);
    }
    if item.default && marks_default {
        line("Default", "an object without spec.className is of this class, where the operator requires one");
    }
    line("Key", &default_key(item));
    for (number, limits) in item.allow.iter().enumerate() {
        let mut name = if number == 0 { "Allows" } else { "or" };
        for text in of_limits(limits) {
            line(name, &text);
            name = "";
        }
    }
    let mut name = "Context";
    for text in of_context(&item.encryption_context) {
        line(name, &text);
        name = "";
    }
    let mut name = "Role";
    for text in item.aws.iter().flat_map(of_role) {
        line(name, &text);
        name = "";
    }
    if let Some(in_use) = item.in_use {
        line("In use", &format!("by {in_use} {} of the cluster", if in_use == 1 { "object" } else { "objects" }));
    }
    out
}

/// What is filled in where an object leaves it out.
fn default_key(item: &ClassSummary) -> String {
    let region = item.default_region.as_ref().map(|region| format!("Region {region}"));
    match (&item.default_key_id, region) {
        (Some(key), None) => format!("{key}, if an object names none"),
        (Some(key), Some(region)) => format!("{key}, {region}, if an object names none"),
        (None, Some(region)) => format!("each object must name one; {region}, if it names no Region"),
        (None, None) => "each object must name one".to_owned(),
    }
}

/// One entry of what objects may ask for.
fn of_limits(limits: &LimitsSummary) -> Vec<String> {
    let mut texts = vec![format!("KMS keys {}", limits.key_ids.join(", "))];
    if let Some(arns) = &limits.key_arns {
        texts.push(if arns.is_empty() {
            "no ARN of a KMS key, so nothing can be issued, pinned or adopted".to_owned()
        } else {
            format!("answers of KMS, pins and Secrets with {}", arns.join(", "))
        });
    }
    texts.push(match &limits.regions {
        None => "any Region".to_owned(),
        Some(regions) if regions.is_empty() => "no Region".to_owned(),
        Some(regions) => format!("Regions {}", regions.join(", ")),
    });
    texts.push(match lengths(limits) {
        None => "data keys of any length".to_owned(),
        Some(lengths) if lengths.is_empty() => "no data keys".to_owned(),
        Some(lengths) => format!("data keys of {}", lengths.join(", ")),
    });
    texts.push(match pairs(limits) {
        None => "key pairs of any kind".to_owned(),
        Some(pairs) if pairs.is_empty() => "no key pairs".to_owned(),
        Some(pairs) => format!("key pairs of {}", pairs.join(", ")),
    });
    texts
}

/// What is added to the encryption context, and what is demanded of it.
fn of_context(context: &ContextSummary) -> Vec<String> {
    let others = match (context.others, context.pairs.is_empty()) {
        (Others::Allow, true) => "any pairs are allowed",
        (Others::Allow, false) => "other pairs are allowed",
        (Others::Deny, true) => "no pairs are allowed",
        (Others::Deny, false) => "no other pairs are allowed",
    };
    context.pairs.iter().map(of_pair).chain(std::iter::once(others.to_owned())).collect()
}

/// The AWS role, without its external ID.
fn of_role(aws: &AwsSummary) -> Vec<String> {
    let mut texts =
        vec![aws.role_arn.clone(), format!("external ID: {}", if aws.has_external_id { "yes" } else { "no" })];
    let tags: Vec<_> = aws.session_tags.iter().map(|tag| format!("{}={}", tag.key, tag.value)).collect();
    texts.push(if tags.is_empty() {
        "no session tags".to_owned()
    } else {
        format!("session tags {}", tags.join(", "))
    });
    texts.extend(aws.role_assumed.as_ref().map(|assumed| assumed.message.clone()));
    texts
}

fn of_pair(pair: &PairSummary) -> String {
    let value = match (&pair.value, pair.value_from) {
        (Some(value), _) => Some(value.as_str()),
        (None, Some(ValueFrom::Name)) => Some("NAME, the name of the object"),
        (None, Some(ValueFrom::Namespace)) => Some("NAMESPACE, that of the object"),
        (None, None) => None,
    };
    match (pair.mode, value) {
        (Mode::Inject, Some(value)) => format!("adds {}={value} (another value is refused)", pair.key),
        // The class is not accepted then.
        (Mode::Inject, None) => format!("adds {} without a value", pair.key),
        (Mode::Require, Some(value)) => format!("needs {}={value}", pair.key),
        (Mode::Require, None) => format!("needs {}, with any value", pair.key),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        fixtures::{class, edited, recorded},
        view::class_summary::Place,
    };

    const HERE: Place<'_> = Place { namespace: "shop", object: None, region: None };

    fn summary(name: &str, edit: impl FnOnce(&mut Value)) -> ClassSummary {
        ClassSummary::of(&class(name, edit), HERE)
    }

    /// A class that restricts nothing but the KMS key, after a change of an entry of `allow`.
    fn open(limits: &Value) -> ClassSummary {
        let mut entry = json!({ "keyIds": ["alias/shop"] });
        entry.as_object_mut().unwrap().extend(limits.as_object().unwrap().clone());
        summary("open", |value| value["spec"] = json!({ "namespaces": ["shop"], "allow": [entry] }))
    }

    #[test]
    fn absent_and_empty_limits_differ() {
        for (limits, short, lines) in [
            (json!({}), "any data key; any key pair; any Region", ["data keys of any length", "key pairs of any kind"]),
            (
                json!({ "keySpecs": ["AES_256"], "regions": ["eu-west-1"] }),
                "AES_256; any key pair; eu-west-1",
                ["data keys of AES_256", "key pairs of any kind"],
            ),
            (
                json!({ "numberOfBytes": { "min": 32, "max": 32 }, "keyPairSpecs": [] }),
                "32 bytes; no key pair; any Region",
                ["data keys of 32 bytes", "no key pairs"],
            ),
            (
                json!({ "keySpecs": [] }),
                "no data key; any key pair; any Region",
                ["no data keys", "key pairs of any kind"],
            ),
        ] {
            let item = open(&limits);
            assert_eq!(in_short(&item.allow), short, "{limits}");
            let text = describe(&item, "", true);
            assert!(lines.iter().all(|line| text.contains(line)), "{limits}: {text}");
        }
    }

    #[test]
    fn table_shows_few_entries() {
        let limits = |bytes: i32| json!({ "keyIds": ["alias/a"], "numberOfBytes": { "min": bytes, "max": bytes } });
        let of = |count: i32| {
            let allow: Vec<_> = (1..=count).map(limits).collect();
            in_short(&summary("a", |value| value["spec"]["allow"] = json!(allow)).allow)
        };
        assert_eq!(of(2), "1 bytes; any key pair; any Region | 2 bytes; any key pair; any Region");
        assert!(of(4).ends_with("| 2 more"), "{}", of(4));
    }

    #[test]
    fn classes_are_described_as_recorded() {
        let pairs = json!([
            { "key": "namespace", "valueFrom": "Namespace", "mode": "Inject" },
            { "key": "name", "valueFrom": "Name", "mode": "Inject" },
            { "key": "stage", "value": "prod", "mode": "Require" },
            { "key": "purpose", "mode": "Require" },
        ]);
        let full = summary("default", |value| {
            value["spec"]["encryptionContext"] = json!({ "pairs": pairs, "others": "Deny" });
            value["spec"]["allow"].as_array_mut().unwrap().push(json!({ "keyIds": ["alias/old"], "keyPairSpecs": [] }));
            let tags =
                json!([{ "key": "datakey-namespace", "valueFrom": "Namespace" }, { "key": "team", "value": "shop" }]);
            let role = "arn:aws:iam::111122223333:role/shop";
            value["spec"]["aws"] = json!({ "roleArn": role, "externalId": "Example987", "sessionTags": tags });
            let condition = json!({
                "type": "RoleAssumed", "status": "False", "reason": "x", "message": "AWS STS refuses the role for namespace shop",
                "observedGeneration": 1, "lastTransitionTime": "2026-01-01T00:00:00Z",
            });
            value["status"] = json!({ "inUse": 3, "conditions": [condition] });
        });
        let elsewhere = summary("bank", |value| {
            value["spec"] = json!({ "namespaces": ["bank"], "allow": [{ "keyIds": ["alias/bank"], "keyArns": [] }] });
        });
        let wrong = summary("wrong", |value| value["spec"]["defaults"]["keyId"] = json!("alias/other"));
        let fetched = edited(recorded(&[]), |value| value["spec"]["keyId"] = json!("alias/other"));
        let refuses = ClassSummary::of(&class("shop", |_| {}), Place { object: Some(fetched.key.object()), ..HERE });
        let all = [full, elsewhere, wrong, refuses];
        insta::assert_snapshot!("classes", render_table(&all, true));
        let texts: Vec<_> = all.iter().map(|item| describe(item, " in namespace shop", true)).collect();
        insta::assert_snapshot!("classes-wide", texts.join("\n"));
    }

    #[test]
    fn default_is_marked_only_where_a_class_can_be_required() {
        let default = summary("default", |_| {});
        assert!(render_table(std::slice::from_ref(&default), true).contains("default (default)"));
        assert!(!render_table(std::slice::from_ref(&default), false).contains("(default)"));
        assert!(!describe(&default, "", false).contains("without spec.className"));
    }

    #[test]
    fn external_id_is_not_shown() {
        let with = |fields: Value| {
            let mut aws = json!({ "roleArn": "arn:aws:iam::111122223333:role/shop" });
            aws.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
            summary("shop", |value| value["spec"]["aws"] = aws)
        };
        let secret = with(json!({ "externalId": "Example987" }));
        let shown = [describe(&secret, "", true), json!(secret).to_string()];
        assert!(shown.iter().all(|text| !text.contains("Example987")), "{shown:?}");
        assert!(shown[0].contains("external ID: yes") && shown[1].contains("\"hasExternalId\":true"), "{shown:?}");
        let plain = describe(&with(json!({})), "", true);
        assert!(plain.contains("external ID: no") && plain.contains("no session tags"), "{plain}");
    }

    #[test]
    fn class_cannot_control_the_terminal() {
        let odd = summary("odd", |value| value["spec"]["allow"][0]["keyIds"][0] = json!("alias/\u{1b}[2J\u{202e}"));
        for text in [render_table(std::slice::from_ref(&odd), true), describe(&odd, "", true)] {
            assert!(!text.contains(['\u{1b}', '\u{202e}']), "{text:?}");
        }
    }
}
