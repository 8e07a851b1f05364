//! The values behind `/metrics`. No label has a value that a user of the cluster can choose freely.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use parking_lot::Mutex;
use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, text::encode},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
        info::Info,
    },
    registry::{Registry, Unit},
};

use crate::kms::DryRun;
use datakey::{
    api::KindId,
    condition::{ReadyState, key_usable::Cause},
};

#[cfg(target_os = "linux")]
mod process;

/// The label value for calls in Regions that have no label value of their own.
pub const OTHER_REGION: &str = "other";

/// Every metric of the operator.
pub struct Metrics {
    registry: Mutex<Registry>,
    kms_calls: Family<KmsCall, Counter>,
    kms_seconds: Family<KmsRegion, Histogram>,
    /// The codes that each Region has label values for.
    kms_codes: Mutex<BTreeMap<String, BTreeSet<&'static str>>>,
    reconciles: Family<Reconcile, Counter>,
    reconcile_seconds: Histogram,
    resyncs: Counter,
    secret_writes: Family<WrittenSecret, Counter>,
    data_keys: Family<DataKeyState, Gauge>,
    data_keys_unreadable: Gauge,
    kms_queue_length: Gauge,
    role_assumptions: Family<RoleAssumption, Counter>,
    role_sessions: Gauge,
    kms_key_checks: Family<CheckedKmsKey, Counter>,
    kms_keys: Family<KmsKeyState, Gauge>,
    data_keys_unusable: Family<UnusableKmsKey, Gauge>,
    namespaces_unusable: Family<UnusableKmsKey, Gauge>,
    leader: Gauge,
}

/// The values that are determined at each scrape.
#[derive(Clone, Debug, Default)]
pub struct Gauges {
    /// The state of every object, with its kind.
    pub states: Vec<(KindId, ReadyState)>,
    /// How many objects cannot be decoded.
    pub unreadable: usize,
    /// How many objects wait for a permit to call KMS.
    pub kms_queue_length: usize,
    /// How many sessions of roles are open.
    pub role_sessions: usize,
    /// The KMS keys that wrapped recorded versions.
    pub kms_keys: KmsKeyStates,
    /// For each object whose condition `KeyUsable` is False: the worst cause, and its namespace.
    pub unusable: Vec<(Cause, String)>,
    /// Whether this replica leads.
    pub leads: bool,
}

/// How many KMS keys are in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KmsKeyStates {
    /// AWS KMS uses them.
    pub usable: usize,
    /// AWS KMS does not use them.
    pub unusable: usize,
    /// They were not asked about yet, or the answer said nothing.
    pub unknown: usize,
}

/// What the answer to a dry run said about a KMS key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum KeyCheck {
    /// AWS KMS uses it.
    Usable,
    /// AWS KMS does not use it.
    Unusable,
    /// Nothing: the call was denied, throttled or not answered.
    Nothing,
    /// The server does not know dry runs.
    NoDryRun,
    /// AWS KMS was not asked: no class allows it, the objects could not be read, or others waited for AWS KMS all the time.
    NotAsked,
}

/// How one reconcile ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum ReconcileOutcome {
    /// The `DataKey` is settled: it is ready, or its failure is in the status.
    Success,
    /// A transient error: the reconcile is repeated soon.
    Error,
}

/// Why a Secret was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum SecretWrite {
    /// It was missing.
    Create,
    /// It was not as the record says, or the record grew.
    Update,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KmsCall {
    region: String,
    code: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KmsRegion {
    region: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RoleAssumption {
    code: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CheckedKmsKey {
    result: KeyCheck,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KmsKeyState {
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct UnusableKmsKey {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reconcile {
    outcome: ReconcileOutcome,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WrittenSecret {
    operation: SecretWrite,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DataKeyState {
    reason: &'static str,
    kind: &'static str,
}

// === impl Metrics ===

impl Default for Metrics {
    fn default() -> Self {
        let mut all = Registry::default();
        #[cfg(target_os = "linux")]
        process::register(&mut all);
        let registry = all.sub_registry_with_prefix("datakey");
        let metrics = Self {
            kms_calls: Family::default(),
            kms_seconds: Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.002, 2.0, 14))),
            kms_codes: Mutex::default(),
            reconciles: Family::default(),
            reconcile_seconds: Histogram::new(exponential_buckets(0.001, 2.0, 16)),
            resyncs: Counter::default(),
            secret_writes: Family::default(),
            data_keys: Family::default(),
            data_keys_unreadable: Gauge::default(),
            kms_queue_length: Gauge::default(),
            role_assumptions: Family::default(),
            role_sessions: Gauge::default(),
            kms_key_checks: Family::default(),
            kms_keys: Family::default(),
            data_keys_unusable: Family::default(),
            namespaces_unusable: Family::default(),
            leader: Gauge::default(),
            registry: Mutex::default(),
        };
        registry.register(
            "kms_requests",
            "Calls of GenerateDataKeyWithoutPlaintext and GenerateDataKeyPairWithoutPlaintext by Region and by the code of the answer",
            metrics.kms_calls.clone(),
        );
        registry.register_with_unit(
            "kms_request_duration",
            "Time until KMS answered",
            Unit::Seconds,
            metrics.kms_seconds.clone(),
        );
        registry.register("reconciles", "Finished reconciles by outcome", metrics.reconciles.clone());
        registry.register_with_unit(
            "reconcile_duration",
            "Time of one reconcile",
            Unit::Seconds,
            metrics.reconcile_seconds.clone(),
        );
        registry.register(
            "resyncs",
            "Times that the DataKeys that are not settled were queued: after each list, and every --resync",
            metrics.resyncs.clone(),
        );
        registry.register("secret_writes", "Secrets written, by operation", metrics.secret_writes.clone());
        registry.register(
            "datakeys",
            "DataKeys and DataKeyPairs by the reason of their Ready condition",
            metrics.data_keys.clone(),
        );
        registry.register(
            "datakeys_unreadable",
            "DataKeys and DataKeyPairs that this operator cannot decode; they are among those with SpecInvalid, too",
            metrics.data_keys_unreadable.clone(),
        );
        registry.register(
            "kms_queue_length",
            "DataKeys and DataKeyPairs that wait for a permit to call KMS",
            metrics.kms_queue_length.clone(),
        );
        registry.register(
            "role_assumptions",
            "Calls of AssumeRole for the roles of DataKeyClasses, by the code of the answer",
            metrics.role_assumptions.clone(),
        );
        registry.register(
            "role_sessions",
            "Open sessions of the roles of DataKeyClasses",
            metrics.role_sessions.clone(),
        );
        registry.register(
            "kms_key_checks",
            "Dry runs by which KMS keys are asked about, by what the answer said",
            metrics.kms_key_checks.clone(),
        );
        registry.register(
            "kms_keys",
            "KMS keys that wrapped recorded versions, by what the last dry runs said",
            metrics.kms_keys.clone(),
        );
        registry.register(
            "datakeys_key_unusable",
            "DataKeys and DataKeyPairs whose condition KeyUsable is False, by its reason",
            metrics.data_keys_unusable.clone(),
        );
        registry.register(
            "namespaces_key_unusable",
            "Namespaces with a DataKey or DataKeyPair whose condition KeyUsable is False, by its reason",
            metrics.namespaces_unusable.clone(),
        );
        registry.register("leader", "1 where this replica does the work, 0 where it stands by", metrics.leader.clone());
        registry.register("build", "Version of the operator", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        *metrics.registry.lock() = all;
        metrics
    }
}

impl Metrics {
    /// Counts a call to KMS.
    pub fn kms_call(&self, region: &str, code: &'static str, took: Duration) {
        let mut codes = self.kms_codes.lock();
        codes.entry(region.to_owned()).or_default().insert(code);
        self.kms_calls.get_or_create(&KmsCall { region: region.to_owned(), code }).inc();
        self.kms_seconds.get_or_create(&KmsRegion { region: region.to_owned() }).observe(took.as_secs_f64());
    }

    /// Drops the label values of a Region.
    pub fn forget_region(&self, region: &str) {
        let mut codes = self.kms_codes.lock();
        for code in codes.remove(region).into_iter().flatten() {
            self.kms_calls.remove(&KmsCall { region: region.to_owned(), code });
        }
        self.kms_seconds.remove(&KmsRegion { region: region.to_owned() });
    }

    /// Counts a call of `AssumeRole`.
    pub fn role_assumption(&self, code: &'static str) {
        self.role_assumptions.get_or_create(&RoleAssumption { code }).inc();
    }

    /// Counts a dry run by which a KMS key was asked about.
    pub fn kms_key_checked(&self, result: KeyCheck) {
        self.kms_key_checks.get_or_create(&CheckedKmsKey { result }).inc();
    }

    /// Counts a reconcile.
    pub fn reconciled(&self, outcome: ReconcileOutcome, took: Duration) {
        self.reconciles.get_or_create(&Reconcile { outcome }).inc();
        self.reconcile_seconds.observe(took.as_secs_f64());
    }

    /// Counts a comparison of all DataKeys with their Secrets.
    pub fn resynced(&self) {
        self.resyncs.inc();
    }

    /// Counts a written Secret.
    pub fn secret_written(&self, operation: SecretWrite) {
        self.secret_writes.get_or_create(&WrittenSecret { operation }).inc();
    }

    /// The metrics in the OpenMetrics text format, with the `DataKey`s as they are counted now.
    ///
    /// # Errors
    /// None in practice: the text is written to memory.
    pub fn render(&self, gauges: Gauges) -> Result<String, std::fmt::Error> {
        let registry = self.registry.lock();
        self.data_keys.clear();
        self.kms_queue_length.set(i64::try_from(gauges.kms_queue_length).unwrap_or(i64::MAX));
        self.data_keys_unreadable.set(i64::try_from(gauges.unreadable).unwrap_or(i64::MAX));
        self.role_sessions.set(i64::try_from(gauges.role_sessions).unwrap_or(i64::MAX));
        self.leader.set(i64::from(gauges.leads));
        for (kind, state) in gauges.states {
            self.data_keys.get_or_create(&DataKeyState { reason: state.reason(), kind: kind.kind().name }).inc();
        }
        let KmsKeyStates { usable, unusable, unknown } = gauges.kms_keys;
        for (state, count) in [("usable", usable), ("unusable", unusable), ("unknown", unknown)] {
            self.kms_keys.get_or_create(&KmsKeyState { state }).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        self.count_unusable(gauges.unusable);
        let mut text = String::new();
        encode(&mut text, &registry)?;
        Ok(text)
    }
}

impl Metrics {
    fn count_unusable(&self, unusable: Vec<(Cause, String)>) {
        self.data_keys_unusable.clear();
        self.namespaces_unusable.clear();
        let reason = |cause: Cause| UnusableKmsKey { reason: cause.reason().as_str() };
        let mut namespaces = BTreeSet::new();
        for (cause, namespace) in unusable {
            self.data_keys_unusable.get_or_create(&reason(cause)).inc();
            if namespaces.insert((cause, namespace)) {
                self.namespaces_unusable.get_or_create(&reason(cause)).inc();
            }
        }
    }
}

// === impl KeyCheck ===

impl KeyCheck {
    /// What this answer said.
    pub fn of(answer: DryRun) -> Self {
        match answer {
            DryRun::Usable => Self::Usable,
            DryRun::Unusable(_) => Self::Unusable,
            DryRun::Denied(_) | DryRun::NoAnswer(_) => Self::Nothing,
            DryRun::NotKnown => Self::NoDryRun,
        }
    }
}

#[cfg(test)]
mod tests {
    use datakey::reason::Reason;

    use super::*;

    #[test]
    fn metrics_have_the_fields_names_and_units() {
        let metrics = Metrics::default();
        metrics.kms_call("eu-west-1", "OK", Duration::from_millis(9));
        metrics.reconciled(ReconcileOutcome::Success, Duration::from_millis(20));
        metrics.secret_written(SecretWrite::Create);
        metrics.resynced();
        metrics.role_assumption("AccessDenied");
        metrics.kms_key_checked(KeyCheck::Unusable);
        let states = vec![
            (KindId::DataKey, ReadyState::Issued),
            (KindId::DataKey, ReadyState::Issued),
            (KindId::DataKeyPair, ReadyState::Failed(Reason::KeyDisabled)),
        ];
        let text = metrics
            .render(Gauges {
                states,
                unreadable: 2,
                kms_queue_length: 3,
                role_sessions: 4,
                kms_keys: KmsKeyStates { usable: 5, unusable: 1, unknown: 2 },
                unusable: [
                    ("a", Cause::DisabledException),
                    ("a", Cause::DisabledException),
                    ("b", Cause::NotFoundException),
                ]
                .map(|(namespace, cause)| (cause, namespace.to_owned()))
                .to_vec(),
                leads: true,
            })
            .unwrap();
        for line in [
            r#"datakey_kms_requests_total{region="eu-west-1",code="OK"} 1"#,
            r#"datakey_kms_request_duration_seconds_count{region="eu-west-1"} 1"#,
            r#"datakey_reconciles_total{outcome="Success"} 1"#,
            "datakey_reconcile_duration_seconds_count 1",
            "datakey_resyncs_total 1",
            r#"datakey_secret_writes_total{operation="Create"} 1"#,
            r#"datakey_datakeys{reason="Issued",kind="DataKey"} 2"#,
            r#"datakey_datakeys{reason="KeyDisabled",kind="DataKeyPair"} 1"#,
            "datakey_datakeys_unreadable 2",
            "datakey_kms_queue_length 3",
            r#"datakey_role_assumptions_total{code="AccessDenied"} 1"#,
            "datakey_role_sessions 4",
            r#"datakey_kms_key_checks_total{result="Unusable"} 1"#,
            r#"datakey_kms_keys{state="usable"} 5"#,
            r#"datakey_kms_keys{state="unusable"} 1"#,
            r#"datakey_datakeys_key_unusable{reason="KeyDisabled"} 2"#,
            r#"datakey_namespaces_key_unusable{reason="KeyDisabled"} 1"#,
            r#"datakey_namespaces_key_unusable{reason="KeyNotFound"} 1"#,
            "datakey_leader 1",
            "datakey_build_info",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn idle_region_has_no_metrics() {
        let metrics = Metrics::default();
        for (region, code) in [("eu-west-1", "OK"), ("us-east-1", "OK"), ("us-east-1", "Timeout")] {
            metrics.kms_call(region, code, Duration::from_millis(9));
        }
        metrics.forget_region("us-east-1");
        let text = metrics.render(Gauges::default()).unwrap();
        assert!(text.contains("eu-west-1") && !text.contains("us-east-1"), "{text}");
    }

    #[test]
    fn reason_without_a_data_key_has_no_metric() {
        let metrics = Metrics::default();
        let shown =
            |state| metrics.render(Gauges { states: vec![(KindId::DataKey, state)], ..Gauges::default() }).unwrap();
        assert!(shown(ReadyState::Failed(Reason::KeyDisabled)).contains("KeyDisabled"));
        assert!(!shown(ReadyState::Issued).contains("KeyDisabled"));
    }
}
