//! The `CustomResourceDefinition`.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{CustomResourceDefinition, JSON};
use kube::CustomResourceExt;
use serde_json::json;

use super::{data_key::DataKey, rules, schema, status::initial_status};

/// The `CustomResourceDefinition` of `DataKey`, as `datakey-operator crd` prints it.
pub fn crd() -> CustomResourceDefinition {
    let mut crd = DataKey::crd();
    for version in &mut crd.spec.versions {
        let Some(root) = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut()) else {
            continue;
        };
        schema::tidy(root);
        schema::refuse_plaintext_in_pins(root);
        schema::bound_name(root);
        root.x_kubernetes_validations
            .get_or_insert_default()
            .extend([rules::issued::new_spec_agrees_with_itself(), rules::issued::issued_settings_stay()]);
        if let Some(status) = root.properties.as_mut().and_then(|properties| properties.get_mut("status")) {
            // A new object must not count as ready: kstatus reads one without status as Current, Argo CD as Healthy.
            status.default = Some(JSON(json!(initial_status())));
            schema::bound_conditions(status);
            schema::add_rules_of_entries(status);
        }
    }
    crd
}
