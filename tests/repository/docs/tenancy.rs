//! The classes of the documentation and of the samples can be used, and allow the DataKeys beside them.

use std::{collections::BTreeMap, fs};

use datakey::{
    api::{DataKey, DataKeyClassSpec},
    class::{Ask, Check, Class, Identity, Lookup, Refusal, Tenancy},
};
use serde_json::Value;
use testbed::repository;

const PAGE: &str = "docs/tenancy.md";

/// What a command of the page finds out.
const ROLE: &str = "arn:aws:iam::222233334444:role/datakey-payroll";

fn page() -> String {
    fs::read_to_string(repository().join(PAGE)).unwrap()
}

/// The manifests of a page: its blocks of YAML, and what its commands apply.
fn manifests(page: &str) -> Vec<Value> {
    let blocks = page.split("\n```").skip(1).step_by(2).filter_map(|block| block.split_once('\n'));
    let texts = blocks.flat_map(|(language, body)| {
        if language == "yaml" {
            return vec![body.to_owned()];
        }
        let quoted = body.replace("<<END\n", "<<'END'\n").replace("$role_arn", ROLE);
        let manifests = quoted.split("<<'END'\n").skip(1);
        manifests.map(|rest| rest.split("\nEND").next().unwrap().to_owned()).collect()
    });
    texts
        .flat_map(|text| serde_saphyr::from_multiple::<Value>(&text).unwrap_or_else(|error| panic!("{error}:\n{text}")))
        .collect()
}

/// The samples of the API.
fn samples() -> Vec<Value> {
    let folders = ["deploy/samples", "deploy/samples/class"];
    let files = folders.into_iter().flat_map(|folder| fs::read_dir(repository().join(folder)).unwrap());
    let files = files.map(|file| file.unwrap().path()).filter(|path| path.extension().is_some_and(|own| own == "yaml"));
    files.flat_map(|path| serde_saphyr::from_multiple::<Value>(&fs::read_to_string(path).unwrap()).unwrap()).collect()
}

/// The classes among manifests, by name.
fn classes(manifests: &[Value]) -> BTreeMap<String, Class> {
    let classes = manifests.iter().filter(|manifest| manifest["kind"] == "DataKeyClass");
    let class = |manifest: &Value| {
        let name = manifest["metadata"]["name"].as_str().unwrap();
        let spec = serde_json::from_value::<DataKeyClassSpec>(manifest["spec"].clone());
        assert!(manifest["metadata"]["namespace"].is_null(), "{name}");
        (name.to_owned(), Class::new(name, "uid", 1, spec.map_err(|error| error.to_string())))
    };
    classes.map(class).collect()
}

/// What the class of each DataKey says, by the name of the DataKey.
fn asked(manifests: &[Value]) -> BTreeMap<String, Result<Ask, Refusal>> {
    let classes = classes(manifests);
    let keys = manifests.iter().filter(|manifest| manifest["kind"] == "DataKey");
    let ask = |manifest: &Value| {
        let key: DataKey = serde_json::from_value(manifest.clone()).unwrap();
        assert!(key.spec.rest.is_empty(), "{manifest}");
        let name = key.metadata.name.clone().unwrap();
        let class = key.spec.class_name.as_ref().map(|class| &classes[class]);
        let tenancy = Tenancy { is_required: class.is_some(), class: class.map_or(Lookup::Absent, Lookup::Found) };
        (name, tenancy.ask((&key).into(), Some("eu-west-1")))
    };
    keys.map(ask).collect()
}

#[test]
fn documented_classes_are_accepted() {
    let (of_the_page, of_the_samples) = (classes(&manifests(&page())), classes(&samples()));
    assert!(of_the_page.len() > 3 && !of_the_samples.is_empty());
    for (name, class) in of_the_page.iter().chain(&of_the_samples) {
        assert_eq!(class.flaw(), None, "{name}");
    }
}

#[test]
fn documented_classes_allow_what_the_page_says() {
    let page = asked(&manifests(&page()));
    let samples = asked(&samples());
    let context = |ask: &Result<Ask, Refusal>| {
        let ask = ask.as_ref().unwrap();
        assert!(ask.as_written.as_ref().is_some_and(|written| written.key_id.is_none()));
        let pairs = ask.request.encryption_context.iter().flatten();
        pairs.map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(context(&page["receipts"]), "cluster=prod-eu purpose=receipts");
    for carts in [&page["carts"], &samples["carts"]] {
        assert_eq!(context(carts), "cluster=prod-eu namespace=shop purpose=carts");
    }
    assert_eq!(page["carts"].as_ref().unwrap().request.key_id, "alias/shop");
    let Err(Refusal::Failed(failure)) = &page["accounts"] else { panic!("{:?}", page["accounts"]) };
    assert_eq!(failure.reason.as_str(), "ClassRefused");
    assert!(failure.detail.as_ref().unwrap().starts_with("class bank, check namespaces: "));
    assert_eq!(context(&page["salaries"]), "cluster=prod-eu namespace=payroll");
    let Ok(Ask { identity: Identity::Role(role), .. }) = &page["salaries"] else { panic!() };
    assert_eq!((role.arn.as_str(), role.tags["datakey-namespace"].as_str()), (ROLE, "payroll"));
    assert_eq!(page.len(), 4);
    assert!(samples.values().all(Result::is_ok));
}

#[test]
fn page_has_each_check_in_its_order() {
    let page = page();
    let (_, table) = page.split_once("\n| check | refuses |\n| --- | --- |\n").unwrap();
    let rows = table.lines().take_while(|line| line.starts_with('|'));
    let named: Vec<_> = rows.map(|row| row.split('`').nth(1).unwrap()).collect();
    assert_eq!(named, Check::all().map(Check::name).collect::<Vec<_>>());
}
