//! Files that are generated are as their source says. `make generate` writes them.

use std::fmt::Write as _;

use datakey::api::KINDS;
use testbed::{assert_fresh, repository};

mod help;
mod reference;
mod unwrap;

#[test]
fn committed_crds_match_the_binary() {
    let printed = std::process::Command::new(env!("CARGO_BIN_EXE_datakey-operator")).arg("crd").output().unwrap();
    assert!(printed.status.success());
    let printed = String::from_utf8(printed.stdout).unwrap();
    assert_fresh("deploy/crd.yaml", &printed);
    assert_fresh("charts/datakey-operator/files/crd.yaml", &printed);
}

#[test]
fn the_health_checks_for_argo_cd_are_their_script() {
    let folder = repository().join("deploy/argocd/resource_customizations/datakey.dev");
    let mut patch = "# Argo CD's health check of DataKeys and DataKeyPairs, from resource_customizations; make generate writes it.\n\
         #\n\
         #   kubectl patch configmap argocd-cm -n argocd --patch-file deploy/argocd/argocd-cm.yaml\n\
         apiVersion: v1\n\
         kind: ConfigMap\n\
         metadata:\n\
        \x20 name: argocd-cm\n\
        \x20 namespace: argocd\n\
         data:\n"
        .to_owned();
    let scripts = KINDS.map(|kind| std::fs::read_to_string(folder.join(kind.name).join("health.lua")).unwrap());
    assert_eq!(scripts[0], scripts[1], "all kinds have the same conditions");
    for (kind, script) in KINDS.into_iter().zip(&scripts) {
        let indented = script.trim_end().replace('\n', "\n    ");
        let name = kind.name;
        writeln!(patch, "  resource.customizations.health.datakey.dev_{name}: |\n    {indented}").unwrap();
    }
    assert_fresh("deploy/argocd/argocd-cm.yaml", &patch);
    let read: serde_json::Value = serde_saphyr::from_str(&patch).unwrap();
    for (kind, script) in KINDS.into_iter().zip(scripts) {
        assert_eq!(read["data"][format!("resource.customizations.health.datakey.dev_{}", kind.name)], script);
    }
}
