//! The Deployment of the operator, and who leads.

use std::time::Duration;

use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        coordination::v1::{Lease, LeaseSpec},
    },
    jiff::Timestamp,
};
use kube::ResourceExt;

use super::{
    Finding, USUAL_NAMESPACE,
    flags::{setting, switch, variable},
    watched::Watched,
};
use crate::{cluster::ServiceAccount, output::CommandError, view::table::age};

/// The Lease of an operator without `--lease-name`.
const DEFAULT_LEASE: &str = "datakey-operator";

/// A Deployment of the operator.
pub struct Installed {
    pub namespace: String,
    pub name: String,
    /// How many replicas it is to have.
    pub wanted: i32,
    available: i32,
    /// The namespaces that it watches.
    pub watched: Watched,
    /// Whether it watches DataKeyPairs.
    pub key_pairs: bool,
    /// Whether each object needs a class.
    pub requires_classes: bool,
    /// The account of its pods.
    pub account: ServiceAccount,
    /// Namespace and name of the Lease, with `--leader-elect`.
    pub lease: Option<(String, String)>,
    /// The Region in its environment.
    pub region: Option<String>,
}

// === impl Installed ===

impl Installed {
    pub fn of(deployment: &Deployment) -> Self {
        let namespace = deployment.namespace().unwrap_or_default();
        let spec = deployment.spec.as_ref();
        let pod = spec.and_then(|spec| spec.template.spec.as_ref());
        let container = pod.and_then(|pod| pod.containers.first());
        let setting = |flag: &str, variable: &str| container.and_then(|container| setting(container, flag, variable));
        let switch = |flag: &str, variable: &str| container.and_then(|container| switch(container, flag, variable));
        let elects = switch("--leader-elect", "DATAKEY_LEADER_ELECT").unwrap_or(false);
        let lease = elects.then(|| {
            let own = setting("--lease-namespace", "DATAKEY_LEASE_NAMESPACE").unwrap_or_else(|| namespace.clone());
            let name = setting("--lease-name", "DATAKEY_LEASE_NAME").unwrap_or_else(|| DEFAULT_LEASE.to_owned());
            (own, name)
        });
        Self {
            name: deployment.name_any(),
            watched: container.map_or(Watched::Unknown, Watched::by),
            wanted: spec.and_then(|spec| spec.replicas).unwrap_or(1),
            available: deployment.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0),
            key_pairs: switch("--key-pairs", "DATAKEY_KEY_PAIRS").unwrap_or(true),
            requires_classes: setting("--classes", "DATAKEY_CLASSES").as_deref() == Some("required"),
            account: ServiceAccount {
                namespace: namespace.clone(),
                // Kubernetes gives a pod without a name this one.
                name: pod.and_then(|pod| pod.service_account_name.clone()).unwrap_or_else(|| "default".to_owned()),
            },
            lease,
            region: ["AWS_REGION", "AWS_DEFAULT_REGION"]
                .into_iter()
                .find_map(|name| container.and_then(|container| variable(container, name))),
            namespace,
        }
    }

    /// What it is called in messages.
    pub fn place(&self) -> String {
        format!("Deployment {} in namespace {}", self.name, self.namespace)
    }

    /// A Deployment with the operator's label in another namespace than the operator's.
    pub fn elsewhere(&self) -> Finding {
        let detail = format!(
            "{} has the label of the operator and says that it watches {}, but any user of that namespace can say so",
            self.place(),
            self.watched.text()
        );
        let next = format!("if it is an operator of yours, check it by --operator-namespace {}", self.namespace);
        Finding::unknown("operator", detail, next)
    }

    /// Whether pods of it run.
    pub fn runs(&self) -> Finding {
        let Self { namespace, name, wanted, available, .. } = self;
        let detail = format!("{}: {available} of {wanted} replicas are available", self.place());
        if *available > 0 {
            return Finding::ok("operator", detail);
        }
        let next = if *wanted == 0 {
            format!("start it: kubectl scale deployment/{name} -n {namespace} --replicas=1")
        } else {
            format!("see why: kubectl describe deployment/{name} -n {namespace}, and kubectl get pods -n {namespace}")
        };
        Finding::failed("operator", detail, next)
    }

    /// An operator that does not compete for a Lease.
    pub fn without_lease(&self) -> Finding {
        if self.wanted > 1 {
            let next = "run it with --leader-elect, or with one replica";
            return Finding::failed(
                "leader",
                "several replicas run without --leader-elect, and all of them work",
                next,
            );
        }
        Finding::ok("leader", "the operator runs without --leader-elect, as a single replica may")
    }

    /// Who leads, and since when.
    pub fn leader(&self, lease: Result<Option<Lease>, CommandError>, now: Timestamp) -> Finding {
        let (namespace, name) = self.lease.clone().unwrap_or_default();
        let what = format!("Lease {name} in namespace {namespace}");
        let log = format!(
            "see what the operator waits for: kubectl logs -n {} deployment/{} --tail=50",
            self.namespace, self.name
        );
        let spec = match lease {
            Err(error) => {
                return Finding::unknown("leader", error.to_string(), format!("look at {what}, with that right"));
            }
            Ok(lease) => lease.and_then(|lease| lease.spec).unwrap_or_default(),
        };
        let LeaseSpec { holder_identity, acquire_time, renew_time, lease_duration_seconds, .. } = spec;
        let Some(holder) = holder_identity.filter(|holder| !holder.is_empty()) else {
            return Finding::failed("leader", format!("no replica holds {what}"), log);
        };
        let since = acquire_time.map(|time| format!(", for {}", age(time.0, now))).unwrap_or_default();
        // The clock of this machine and that of the node can differ by a few seconds.
        let duration = Duration::from_secs(u64::try_from(lease_duration_seconds.unwrap_or(15)).unwrap_or_default()) * 2;
        let idle = renew_time.and_then(|renewed| Duration::try_from(now.duration_since(renewed.0)).ok());
        if let Some(idle) = idle.filter(|idle| *idle > duration) {
            let idle = humantime::format_duration(Duration::from_secs(idle.as_secs()));
            return Finding::failed("leader", format!("{holder} has not renewed {what} for {idle}"), log);
        }
        Finding::ok("leader", format!("{holder} holds {what}{since}"))
    }
}

/// No Deployment was found.
pub fn none(namespace: Option<&str>) -> Finding {
    let place = namespace.map_or_else(|| "in any namespace".to_owned(), |name| format!("in namespace {name}"));
    let next = "install the operator, or name its namespace by --operator-namespace; for one outside the cluster (make dev), \
                look at its log";
    let detail = format!(
        "there is no Deployment of the operator {place}; an operator that runs outside the cluster is not seen from here"
    );
    Finding::failed("operator", detail, next)
}

/// The Deployment could not be looked for.
pub fn unknown(error: &CommandError) -> Finding {
    let next = format!(
        "name the namespace of the operator by --operator-namespace (usually {USUAL_NAMESPACE}), with the right to list \
         Deployments there"
    );
    Finding::unknown("operator", error.to_string(), next)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{super::CheckResult, *};
    use crate::fixtures::at;

    fn installed(arguments: &[&str], env: &Value, replicas: i32, available: i32) -> Installed {
        let deployment = json!({
            "metadata": { "name": "data-keys", "namespace": "keys" },
            "spec": {
                "replicas": replicas,
                "selector": {},
                "template": { "spec": { "containers": [{ "name": "operator", "args": arguments, "env": env }] } },
            },
            "status": { "availableReplicas": available },
        });
        Installed::of(&serde_json::from_value(deployment).unwrap())
    }

    #[test]
    fn lease_and_region_are_those_of_the_deployment() {
        let flags = ["run", "--leader-elect", "--lease-name=data-keys", "--lease-namespace=leases"];
        let found = installed(&flags, &json!([{ "name": "AWS_REGION", "value": "eu-west-1" }]), 2, 2);
        assert_eq!(found.lease, Some(("leases".to_owned(), "data-keys".to_owned())));
        assert_eq!(found.region.as_deref(), Some("eu-west-1"));
        let env = json!([{ "name": "DATAKEY_LEADER_ELECT", "value": "true" }]);
        let found = installed(&["run"], &env, 1, 1);
        assert_eq!((found.lease, found.region), (Some(("keys".to_owned(), DEFAULT_LEASE.to_owned())), None));
        assert_eq!(installed(&["run", "--leader-elect=false"], &json!([]), 1, 1).lease, None);
        let off = json!([{ "name": "DATAKEY_KEY_PAIRS", "value": "false" }]);
        let watches_pairs = |flags: &[&str], env: &Value| installed(flags, env, 1, 1).key_pairs;
        assert!(watches_pairs(&["run"], &json!([])) && watches_pairs(&["--key-pairs"], &off));
        assert!(!watches_pairs(&["run"], &off) && !watches_pairs(&["run", "--key-pairs=false"], &json!([])));
    }

    #[test]
    fn requirement_of_classes_is_read_as_the_operator_reads_it() {
        let env = json!([{ "name": "DATAKEY_CLASSES", "value": "required" }]);
        let reads = |flags: &[&str], env: &Value| installed(flags, env, 1, 1).requires_classes;
        for flags in [&["run", "--classes=required"][..], &["run", "--classes", "required"]] {
            assert!(reads(flags, &json!([])), "{flags:?}");
        }
        assert!(reads(&["run"], &env) && !reads(&["run", "--classes=optional"], &env));
        assert!(!reads(&["run"], &json!([])));
        assert_eq!(installed(&[], &json!([]), 1, 1).account.user(), "system:serviceaccount:keys:default");
    }

    #[test]
    fn operator_without_available_replicas_failed() {
        assert_eq!(installed(&[], &json!([]), 2, 1).runs().result, CheckResult::Ok);
        for replicas in [0, 2] {
            assert_eq!(installed(&[], &json!([]), replicas, 0).runs().result, CheckResult::Failed);
        }
        assert_eq!(installed(&[], &json!([]), 2, 2).without_lease().result, CheckResult::Failed);
        assert_eq!(installed(&[], &json!([]), 1, 1).without_lease().result, CheckResult::Ok);
    }

    #[test]
    fn leader_renews_its_lease() {
        let found = installed(&["--leader-elect"], &json!([]), 1, 1);
        let lease = |holder: Value, renewed: i64| -> Lease {
            let spec = json!({
                "holderIdentity": holder, "acquireTime": format!("{:.6}", at(0)), "leaseDurationSeconds": 15,
                "renewTime": format!("{:.6}", at(renewed)),
            });
            serde_json::from_value(json!({ "metadata": {}, "spec": spec })).unwrap()
        };
        let finding = found.leader(Ok(Some(lease(json!("pod-a"), 290))), at(300));
        assert_eq!(finding, Finding::ok("leader", "pod-a holds Lease datakey-operator in namespace keys, for 5m"));
        for lease in [Some(lease(json!("pod-a"), 200)), Some(lease(json!(""), 290)), None] {
            assert_eq!(found.leader(Ok(lease), at(300)).result, CheckResult::Failed);
        }
        let forbidden = Err(CommandError::Forbidden("you may not".to_owned()));
        assert_eq!(found.leader(forbidden, at(300)).result, CheckResult::NotChecked);
    }
}
