//! Files that are generated are as their source says. `make generate` writes them.

use testbed::{assert_fresh, repository};

mod help;
mod reference;

#[test]
fn committed_crds_match_the_binary() {
    let printed = std::process::Command::new(env!("CARGO_BIN_EXE_datakey-operator")).arg("crd").output().unwrap();
    assert!(printed.status.success());
    let printed = String::from_utf8(printed.stdout).unwrap();
    assert_fresh("deploy/crd.yaml", &printed);
    assert_fresh("charts/datakey-operator/files/crd.yaml", &printed);
}

#[test]
fn the_health_check_for_argo_cd_is_its_script() {
    let folder = repository().join("deploy/argocd/resource_customizations/datakey.dev/DataKey");
    let script = std::fs::read_to_string(folder.join("health.lua")).unwrap();
    let indented = script.trim_end().replace('\n', "\n    ");
    let patch = format!(
        "# Argo CD's health check of DataKeys, from resource_customizations; make generate writes it.\n\
         #\n\
         #   kubectl patch configmap argocd-cm -n argocd --patch-file deploy/argocd/argocd-cm.yaml\n\
         apiVersion: v1\n\
         kind: ConfigMap\n\
         metadata:\n\
        \x20 name: argocd-cm\n\
        \x20 namespace: argocd\n\
         data:\n\
        \x20 resource.customizations.health.datakey.dev_DataKey: |\n\
        \x20   {indented}\n"
    );
    assert_fresh("deploy/argocd/argocd-cm.yaml", &patch);
    let read: serde_json::Value = serde_saphyr::from_str(&patch).unwrap();
    assert_eq!(read["data"]["resource.customizations.health.datakey.dev_DataKey"], script);
}
