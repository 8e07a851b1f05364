//! What each value of the chart does.

use serde_json::{Value, json};

/// Values that are handed on as a whole, though their default is a map.
pub const WHOLE: &[&str] =
    &["podSecurityContext", "securityContext", "resources", "strategy", "dnsConfig", "metrics.dashboard.labels"];

/// A value, and what it makes of one field of one object.
pub struct Case {
    pub path: &'static str,
    pub value: Value,
    /// Other values that it needs.
    pub with: Value,
    /// Kind, or kind and name.
    pub object: &'static str,
    pub pointer: &'static str,
    /// The element of a list that it is about.
    pub element: Option<fn(&Value) -> bool>,
    /// `None`: the object or the field is not there.
    pub expected: Option<Value>,
}

fn case(path: &'static str, value: Value, object: &'static str, pointer: &'static str, expected: Value) -> Case {
    let expected = (!expected.is_null()).then_some(expected);
    Case { path, value, with: json!({}), object, pointer, element: None, expected }
}

impl Case {
    fn with(self, with: Value) -> Self {
        Self { with, ..self }
    }

    fn element(self, element: fn(&Value) -> bool) -> Self {
        Self { element: Some(element), ..self }
    }
}

const POD: &str = "/spec/template/spec";
const NAME: &str = "/metadata/name";

/// A flag of the operator.
fn flag(path: &'static str, value: Value, expected: &str, is_it: fn(&Value) -> bool) -> Case {
    case(path, value, "Deployment", "/spec/template/spec/containers/0/args", json!(expected)).element(is_it)
}

/// An environment variable of the operator.
fn variable(path: &'static str, value: Value, expected: Value, is_it: fn(&Value) -> bool) -> Case {
    case(path, value, "Deployment", "/spec/template/spec/containers/0/env", expected).element(is_it)
}

/// A field that is handed on as it is.
fn handed_on(path: &'static str, value: Value, object: &'static str, pointer: &'static str) -> Case {
    let expected = value.clone();
    case(path, value, object, pointer, expected)
}

fn starts(value: &Value, with: &str) -> bool {
    value.as_str().is_some_and(|text| text.starts_with(with))
}

/// A pointer into the pod.
macro_rules! pod {
    ($pointer:literal) => {
        concat!("/spec/template/spec", $pointer)
    };
}

#[allow(clippy::too_many_lines)]
pub fn cases() -> Vec<Case> {
    assert_eq!(POD, pod!(""));
    let digest = format!("sha256:{}", "0".repeat(64));
    let account = json!({ "serviceAccount": { "create": true } });
    let monitoring = |what: &str| json!({ "metrics": { what: { "enabled": true } } });
    vec![
        handed_on("replicaCount", json!(3), "Deployment", "/spec/replicas"),
        case("image.repository", json!("r/x"), "Deployment", pod!("/containers/0/image"), json!("r/x:0.1.0")),
        case("image.tag", json!("t"), "Deployment", pod!("/containers/0/image"), json!("datakey-operator:t")),
        case(
            "image.digest",
            json!(digest),
            "Deployment",
            pod!("/containers/0/image"),
            json!(format!("datakey-operator@{digest}")),
        )
        .with(json!({ "image": { "tag": "t" } })),
        handed_on("image.pullPolicy", json!("Always"), "Deployment", pod!("/containers/0/imagePullPolicy")),
        handed_on("imagePullSecrets", json!([{ "name": "s" }]), "Deployment", pod!("/imagePullSecrets")),
        case("nameOverride", json!("dk"), "Deployment", NAME, json!("datakey-operator-dk"))
            .with(json!({ "serviceAccount": { "name": "a" } })),
        handed_on("fullnameOverride", json!("dk"), "Deployment", NAME),
        case("commonLabels", json!({ "team": "t" }), "PodDisruptionBudget", "/metadata/labels/team", json!("t")),
        case("commonAnnotations", json!({ "a": "b" }), "Deployment", "/metadata/annotations/a", json!("b")),
        case("crds.enabled", json!(false), "CustomResourceDefinition", NAME, Value::Null),
        case(
            "crds.keep",
            json!(false),
            "CustomResourceDefinition",
            "/metadata/annotations/helm.sh~1resource-policy",
            Value::Null,
        ),
        flag("classes.required", json!(true), "--classes=required", |flag| starts(flag, "--classes")),
        case(
            "classes.items",
            json!({ "shop": { "namespaces": ["shop"], "allow": [{ "keyIds": ["alias/shop"] }] } }),
            "DataKeyClass/shop",
            "/spec",
            json!({ "namespaces": ["shop"], "allow": [{ "keyIds": ["alias/shop"] }] }),
        ),
        case(
            "classes.usePolicy.enabled",
            json!(true),
            "ValidatingAdmissionPolicy",
            NAME,
            json!("datakey-system.datakey-operator-use-classes"),
        ),
        case("serviceAccount.create", json!(false), "ServiceAccount", NAME, Value::Null)
            .with(json!({ "serviceAccount": { "name": "there" } })),
        handed_on("serviceAccount.name", json!("a"), "Deployment", pod!("/serviceAccountName")).with(account.clone()),
        handed_on("serviceAccount.annotations", json!({ "role": "r" }), "ServiceAccount", "/metadata/annotations"),
        case("serviceAccount.labels", json!({ "l": "m" }), "ServiceAccount", "/metadata/labels/l", json!("m")),
        case("rbac.create", json!(false), "ClusterRoleBinding", NAME, Value::Null),
        case("rbac.aggregate", json!(false), "ClusterRole/datakey-system:datakey-operator:edit", NAME, Value::Null),
        case("rbac.classes", json!(false), "ClusterRole/datakey-system:datakey-operator", NAME, Value::Null)
            .with(json!({ "watchNamespaces": ["shop"] })),
        flag("watchNamespaces", json!(["shop"]), "--namespace=shop", |flag| starts(flag, "--namespace")),
        case("leaderElection.enabled", json!(false), "Role", NAME, Value::Null),
        flag("leaderElection.duration", json!("30s"), "--lease-duration=30s", |flag| starts(flag, "--lease-duration")),
        variable("aws.region", json!("eu-west-1"), json!({ "name": "AWS_REGION", "value": "eu-west-1" }), |variable| {
            variable["name"] == "AWS_REGION"
        }),
        flag("aws.extraRegions", json!(["xx-a-1", "xx-b-1", "xx-a-1"]), "--extra-regions=xx-a-1,xx-b-1", |flag| {
            starts(flag, "--extra-regions")
        }),
        variable(
            "aws.kmsEndpoint",
            json!("https://kms.example.com"),
            json!({ "name": "AWS_ENDPOINT_URL_KMS", "value": "https://kms.example.com" }),
            |variable| variable["name"] == "AWS_ENDPOINT_URL_KMS",
        ),
        variable(
            "aws.stsEndpoint",
            json!("https://sts.example.com"),
            json!({ "name": "AWS_ENDPOINT_URL_STS", "value": "https://sts.example.com" }),
            |variable| variable["name"] == "AWS_ENDPOINT_URL_STS",
        ),
        variable(
            "aws.useFipsEndpoint",
            json!(true),
            json!({ "name": "AWS_USE_FIPS_ENDPOINT", "value": "true" }),
            |variable| variable["name"] == "AWS_USE_FIPS_ENDPOINT",
        ),
        variable(
            "aws.useDualstackEndpoint",
            json!(true),
            json!({ "name": "AWS_USE_DUALSTACK_ENDPOINT", "value": "true" }),
            |variable| variable["name"] == "AWS_USE_DUALSTACK_ENDPOINT",
        ),
        variable("aws.disableInstanceMetadata", json!(false), Value::Null, |variable| {
            variable["name"] == "AWS_EC2_METADATA_DISABLED"
        }),
        flag("config.concurrency", json!(7), "--concurrency=7", |flag| starts(flag, "--concurrency")),
        flag("config.workingSet", json!(9), "--working-set=9", |flag| starts(flag, "--working-set")),
        flag("dataKeyPairs.enabled", json!(false), "--key-pairs=false", |flag| starts(flag, "--key-pairs")),
        flag("config.issue", json!(false), "--issue=false", |flag| starts(flag, "--issue")),
        flag(
            "config.reservedTemplateKeys",
            json!(["example.com/", "team", "team"]),
            "--reserved-template-keys=example.com/,team",
            |flag| starts(flag, "--reserved-template-keys"),
        ),
        flag("config.kmsRate", json!(7), "--kms-rate=7", |flag| starts(flag, "--kms-rate")),
        flag("config.kmsTimeout", json!("7s"), "--kms-timeout=7s", |flag| starts(flag, "--kms-timeout")),
        flag("config.kmsRsaTimeout", json!("7s"), "--kms-rsa-timeout=7s", |flag| starts(flag, "--kms-rsa-timeout")),
        flag(
            "config.kmsPairRates",
            json!(["RSA_4096=0.5", "ECC=7", "ECC=7"]),
            "--kms-pair-rates=RSA_4096=0.5,ECC=7",
            |flag| starts(flag, "--kms-pair-rates"),
        ),
        flag("config.kubeTimeout", json!("7s"), "--kube-timeout=7s", |flag| starts(flag, "--kube-timeout")),
        flag("config.retryMin", json!("7s"), "--retry-min=7s", |flag| starts(flag, "--retry-min")),
        flag("config.retryMax", json!("7m"), "--retry-max=7m", |flag| starts(flag, "--retry-max")),
        flag("config.resync", json!("7h"), "--resync=7h", |flag| starts(flag, "--resync")),
        flag("config.keyCheckInterval", json!("6h"), "--key-check-interval=6h", |flag| {
            starts(flag, "--key-check-interval")
        }),
        flag("config.shutdownGrace", json!("7s"), "--shutdown-grace=7s", |flag| starts(flag, "--shutdown-grace")),
        flag("config.logLevel", json!("debug"), "--log-level=debug", |flag| starts(flag, "--log-level")),
        flag("config.logFormat", json!("text"), "--log-format=text", |flag| starts(flag, "--log-format")),
        flag("extraArgs", json!(["--more"]), "--more", |flag| starts(flag, "--more")),
        variable(
            "extraEnv",
            json!([{ "name": "A", "value": "b" }]),
            json!({ "name": "A", "value": "b" }),
            |variable| variable["name"] == "A",
        ),
        handed_on(
            "extraEnvFrom",
            json!([{ "secretRef": { "name": "s" } }]),
            "Deployment",
            pod!("/containers/0/envFrom"),
        ),
        handed_on("extraVolumes", json!([{ "name": "v", "emptyDir": {} }]), "Deployment", pod!("/volumes")),
        handed_on(
            "extraVolumeMounts",
            json!([{ "name": "v", "mountPath": "/v" }]),
            "Deployment",
            pod!("/containers/0/volumeMounts"),
        ),
        case("podLabels", json!({ "l": "m" }), "Deployment", "/spec/template/metadata/labels/l", json!("m")),
        case("podAnnotations", json!({ "a": "b" }), "Deployment", "/spec/template/metadata/annotations/a", json!("b")),
        case(
            "podSecurityContext",
            json!({ "runAsUser": 7 }),
            "Deployment",
            pod!("/securityContext/runAsUser"),
            json!(7),
        ),
        case(
            "securityContext",
            json!({ "runAsUser": 7 }),
            "Deployment",
            pod!("/containers/0/securityContext/runAsUser"),
            json!(7),
        ),
        case(
            "resources",
            json!({ "limits": { "memory": "1Gi" } }),
            "Deployment",
            pod!("/containers/0/resources/limits/memory"),
            json!("1Gi"),
        ),
        case("strategy", json!({ "type": "Recreate" }), "Deployment", "/spec/strategy", json!({ "type": "Recreate" })),
        handed_on("revisionHistoryLimit", json!(7), "Deployment", "/spec/revisionHistoryLimit"),
        handed_on("terminationGracePeriodSeconds", json!(77), "Deployment", pod!("/terminationGracePeriodSeconds")),
        handed_on("priorityClassName", json!("high"), "Deployment", pod!("/priorityClassName")),
        handed_on("nodeSelector", json!({ "n": "s" }), "Deployment", pod!("/nodeSelector")),
        handed_on("tolerations", json!([{ "operator": "Exists" }]), "Deployment", pod!("/tolerations")),
        handed_on("affinity", json!({ "podAntiAffinity": {} }), "Deployment", pod!("/affinity")),
        case(
            "topologySpreadConstraints",
            json!([{ "maxSkew": 2, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule" }]),
            "Deployment",
            pod!("/topologySpreadConstraints"),
            json!([{
                "maxSkew": 2,
                "topologyKey": "zone",
                "whenUnsatisfiable": "DoNotSchedule",
                "labelSelector": { "matchLabels": {
                    "app.kubernetes.io/name": "datakey-operator",
                    "app.kubernetes.io/instance": "datakey-operator",
                }},
            }]),
        ),
        case("dnsConfig", json!({ "searches": ["s"] }), "Deployment", pod!("/dnsConfig/searches"), json!(["s"])),
        handed_on("dnsPolicy", json!("Default"), "Deployment", pod!("/dnsPolicy")),
        handed_on("runtimeClassName", json!("gvisor"), "Deployment", pod!("/runtimeClassName")),
        handed_on(
            "livenessProbe.periodSeconds",
            json!(7),
            "Deployment",
            pod!("/containers/0/livenessProbe/periodSeconds"),
        ),
        handed_on(
            "livenessProbe.timeoutSeconds",
            json!(7),
            "Deployment",
            pod!("/containers/0/livenessProbe/timeoutSeconds"),
        ),
        handed_on(
            "livenessProbe.failureThreshold",
            json!(7),
            "Deployment",
            pod!("/containers/0/livenessProbe/failureThreshold"),
        ),
        handed_on(
            "readinessProbe.periodSeconds",
            json!(7),
            "Deployment",
            pod!("/containers/0/readinessProbe/periodSeconds"),
        ),
        handed_on(
            "readinessProbe.timeoutSeconds",
            json!(7),
            "Deployment",
            pod!("/containers/0/readinessProbe/timeoutSeconds"),
        ),
        handed_on(
            "readinessProbe.failureThreshold",
            json!(7),
            "Deployment",
            pod!("/containers/0/readinessProbe/failureThreshold"),
        ),
        case("podDisruptionBudget.enabled", json!(false), "PodDisruptionBudget", NAME, Value::Null),
        handed_on("podDisruptionBudget.minAvailable", json!("50%"), "PodDisruptionBudget", "/spec/minAvailable"),
        handed_on("podDisruptionBudget.maxUnavailable", json!(0), "PodDisruptionBudget", "/spec/maxUnavailable"),
        case("networkPolicy.enabled", json!(true), "NetworkPolicy", NAME, json!("datakey-operator")),
        case(
            "networkPolicy.apiServerPorts",
            json!([16443]),
            "NetworkPolicy",
            "/spec/egress/1/ports",
            json!([{ "port": 16443, "protocol": "TCP" }]),
        )
        .with(json!({ "networkPolicy": { "enabled": true } })),
        case(
            "networkPolicy.apiServerCidrs",
            json!(["10.0.0.1/32"]),
            "NetworkPolicy",
            "/spec/egress/1/to",
            json!([{ "ipBlock": { "cidr": "10.0.0.1/32" } }]),
        )
        .with(json!({ "networkPolicy": { "enabled": true } })),
        case(
            "networkPolicy.awsCidrs",
            json!(["10.0.0.2/32"]),
            "NetworkPolicy",
            "/spec/egress/2/to",
            json!([{ "ipBlock": { "cidr": "10.0.0.2/32" } }]),
        )
        .with(json!({ "networkPolicy": { "enabled": true } })),
        handed_on("networkPolicy.metricsFrom", json!([{ "podSelector": {} }]), "NetworkPolicy", "/spec/ingress/0/from")
            .with(json!({ "networkPolicy": { "enabled": true } })),
        case(
            "networkPolicy.extraEgress",
            json!([{ "ports": [{ "port": 3128 }] }]),
            "NetworkPolicy",
            "/spec/egress/4/ports/0/port",
            json!(3128),
        )
        .with(json!({ "networkPolicy": { "enabled": true } })),
        handed_on("metrics.port", json!(9090), "Deployment", pod!("/containers/0/ports/0/containerPort")),
        case("metrics.service.enabled", json!(false), "Service", NAME, Value::Null),
        handed_on("metrics.service.annotations", json!({ "a": "b" }), "Service", "/metadata/annotations"),
        case("metrics.serviceMonitor.enabled", json!(true), "ServiceMonitor", NAME, json!("datakey-operator")),
        case(
            "metrics.serviceMonitor.labels",
            json!({ "release": "p" }),
            "ServiceMonitor",
            "/metadata/labels/release",
            json!("p"),
        )
        .with(monitoring("serviceMonitor")),
        handed_on("metrics.serviceMonitor.interval", json!("7s"), "ServiceMonitor", "/spec/endpoints/0/interval")
            .with(monitoring("serviceMonitor")),
        handed_on(
            "metrics.serviceMonitor.relabelings",
            json!([{ "action": "drop" }]),
            "ServiceMonitor",
            "/spec/endpoints/0/relabelings",
        )
        .with(monitoring("serviceMonitor")),
        case("metrics.podMonitor.enabled", json!(true), "PodMonitor", NAME, json!("datakey-operator")),
        case(
            "metrics.podMonitor.labels",
            json!({ "release": "p" }),
            "PodMonitor",
            "/metadata/labels/release",
            json!("p"),
        )
        .with(monitoring("podMonitor")),
        handed_on("metrics.podMonitor.interval", json!("7s"), "PodMonitor", "/spec/podMetricsEndpoints/0/interval")
            .with(monitoring("podMonitor")),
        handed_on(
            "metrics.podMonitor.relabelings",
            json!([{ "action": "drop" }]),
            "PodMonitor",
            "/spec/podMetricsEndpoints/0/relabelings",
        )
        .with(monitoring("podMonitor")),
        case("metrics.prometheusRule.enabled", json!(true), "PrometheusRule", NAME, json!("datakey-operator")),
        case(
            "metrics.prometheusRule.labels",
            json!({ "release": "p" }),
            "PrometheusRule",
            "/metadata/labels/release",
            json!("p"),
        )
        .with(monitoring("prometheusRule")),
        case(
            "metrics.prometheusRule.runbookUrl",
            json!("https://runbooks.example.com/datakey"),
            "PrometheusRule",
            "/spec/groups/0/rules/0/annotations/runbook_url",
            json!("https://runbooks.example.com/datakey#datakeyoperatornotworking"),
        )
        .with(monitoring("prometheusRule")),
        case("metrics.dashboard.enabled", json!(true), "ConfigMap", NAME, json!("datakey-operator-dashboard")),
        case("metrics.dashboard.labels", json!({ "find": "me" }), "ConfigMap", "/metadata/labels/find", json!("me"))
            .with(monitoring("dashboard")),
        handed_on("metrics.dashboard.annotations", json!({ "folder": "f" }), "ConfigMap", "/metadata/annotations")
            .with(monitoring("dashboard")),
        case(
            "protectSecrets.enabled",
            json!(true),
            "ValidatingAdmissionPolicy",
            NAME,
            json!("datakey-system.datakey-operator-protect-secrets"),
        ),
        case(
            "protectSecrets.allowedUsers",
            json!(["velero"]),
            "ValidatingAdmissionPolicy",
            "/spec/matchConditions/1/expression",
            json!(concat!(
                r#"!(request.userInfo.username in ["system:serviceaccount:datakey-system:datakey-operator","#,
                r#""velero"])"#,
            )),
        )
        .with(json!({ "protectSecrets": { "enabled": true } })),
        case(
            "extraObjects",
            json!([{ "apiVersion": "v1", "kind": "LimitRange", "metadata": { "name": "{{ .Release.Name }}" } }]),
            "LimitRange",
            NAME,
            json!("datakey-operator"),
        ),
    ]
}
