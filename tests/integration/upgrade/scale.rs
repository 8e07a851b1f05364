//! From a real 0.1.0 to this release, back, and forward again, with many `DataKey`s: `make upgrade`.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use k8s_openapi::{ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::OwnerReference};
use kube::{ResourceExt, api::ListParams};
use serde_json::json;
use testbed::{api_proxy::ApiProxy, control_plane::ControlPlane, eventually, proxy::KmsProxy, repository};
use tokio::time::{Instant, sleep};

use super::{binary_of_0_1_0, by_name};
use crate::harness::{Operator, TestNamespace};

/// The most statuses that the first start after the upgrade writes in a second, on average of ten.
const PACE: usize = 250;

/// How many `DataKey`s 0.1.0 rotates after the downgrade.
const ROTATED: usize = 10;

/// The parts of a Secret that must never change.
#[derive(Debug, PartialEq)]
struct Held {
    uid: Option<String>,
    data: Option<BTreeMap<String, ByteString>>,
    owners: Vec<OwnerReference>,
    labels: BTreeMap<String, String>,
}

struct Upgrade {
    test: TestNamespace,
    api: ApiProxy,
    kubeconfig: String,
    count: usize,
}

// === impl Upgrade ===

impl Upgrade {
    /// Installs the definition, roles and service account of a release.
    async fn install(plane: &ControlPlane, deploy: &Path) {
        plane.kubectl(&["apply", "-k", &deploy.display().to_string()]).await.unwrap();
        plane.kubectl(&["wait", "--for=condition=Established", "crd/datakeys.datakey.dev"]).await.unwrap();
    }

    fn start(&self, program: Option<&Path>) -> Operator {
        self.api.forget();
        let environment = [("KUBECONFIG", self.kubeconfig.as_str())];
        match program {
            Some(program) => self.test.operator_of(program, &["--kms-rate=1000"], &environment),
            None => self.test.operator_with(&["--kms-rate=1000"], &environment),
        }
    }

    fn patience(&self) -> Duration {
        Duration::from_mins(2) + Duration::from_millis(200) * u32::try_from(self.count).unwrap()
    }

    /// Waits until the operator leads, all `DataKey`s are ready and it sends no more requests.
    async fn settles(&self, operator: &Operator, what: &str) {
        let begun = Instant::now();
        operator.is_ready().await;
        self.test.all_ready(self.count, self.patience()).await;
        let mut before = usize::MAX;
        eventually(self.patience(), "nothing more is asked", async || {
            sleep(Duration::from_secs(3)).await;
            let now = self.api.requests().len();
            std::mem::replace(&mut before, now) == now
        })
        .await;
        let seconds = begun.elapsed().as_secs();
        let count = |verb, resource| self.api.count(verb, resource);
        eprintln!(
            "{what}: quiet after {seconds} s; {} Secrets read, {} written, {} created; {} statuses written, {} in the busiest second; {} data keys asked of KMS so far",
            count("get", "secrets"),
            count("update", "secrets") + count("patch", "secrets"),
            count("create", "secrets"),
            count("update", "datakeys/status"),
            self.busiest(1),
            self.test.proxy.calls(),
        );
    }

    /// The most statuses that were written within this many seconds.
    fn busiest(&self, seconds: u64) -> usize {
        let written: Vec<_> = self.api.requests().into_iter().filter(|it| it.is("update", "datakeys/status")).collect();
        let within = |begun: Instant| {
            written.iter().filter(|it| it.at >= begun && it.at < begun + Duration::from_secs(seconds)).count()
        };
        written.iter().map(|it| within(it.at)).max().unwrap_or_default()
    }

    async fn held(&self) -> BTreeMap<String, Held> {
        let ours = ListParams::default().fields("type=datakey.dev/wrapped-key");
        let secrets = self.test.secrets().list(&ours).await.unwrap().items;
        let held = |secret: Secret| Held {
            uid: secret.uid(),
            owners: secret.owner_references().to_vec(),
            labels: secret.labels().clone(),
            data: secret.data,
        };
        secrets.into_iter().map(|secret| (secret.name_any(), held(secret))).collect()
    }

    /// Asserts that no Secret was written since the operator started.
    fn wrote_no_secret(&self) {
        for verb in ["create", "update", "patch", "delete"] {
            assert_eq!(self.api.count(verb, "secrets"), 0, "{verb} secrets");
        }
    }
}

#[tokio::test]
#[ignore = "needs a 0.1.0 binary and its manifests: make upgrade"]
async fn many_data_keys_survive_the_upgrade_and_the_way_back() {
    let count = std::env::var("UPGRADE_COUNT").map_or(1000, |count| count.parse().unwrap());
    let old = binary_of_0_1_0();
    let old_deploy = std::env::var_os("DATAKEY_010_DEPLOY").expect("DATAKEY_010_DEPLOY, the folder deploy of 0.1.0");
    let plane = Arc::new(ControlPlane::bare().await);
    Upgrade::install(&plane, Path::new(&old_deploy)).await;
    let operator = plane.operator_kubeconfig().await;
    let test =
        TestNamespace::on_control_plane("upgrade-scale", Arc::clone(&plane), operator, KmsProxy::stub().await).await;
    let (api, kubeconfig) = test.api_proxy().await;
    let upgrade = Upgrade { test, api, kubeconfig: kubeconfig.display().to_string(), count };
    let (test, api) = (&upgrade.test, &upgrade.api);

    let operator = upgrade.start(Some(&old));
    let deleting = count / 10;
    test.create_many("retain", count - deleting, &json!({})).await;
    test.create_many("delete", deleting, &json!({ "deletionPolicy": "Delete" })).await;
    upgrade.settles(&operator, "0.1.0 issues them").await;
    drop(operator);
    let held = upgrade.held().await;
    assert_eq!((held.len(), test.proxy.calls()), (count, count));
    assert_eq!(held.values().filter(|held| held.owners.len() == 1).count(), deleting);

    Upgrade::install(&plane, &repository().join("deploy")).await;
    let operator = upgrade.start(None);
    upgrade.settles(&operator, "this release takes over").await;
    upgrade.wrote_no_secret();
    let (read, written) = (by_name(api, "get", "secrets"), by_name(api, "update", "datakeys/status"));
    for counts in [&read, &written] {
        assert_eq!((counts.len(), counts.values().max()), (count, Some(&1)), "each once");
    }
    assert!(upgrade.busiest(10) <= 10 * PACE, "{} in ten seconds", upgrade.busiest(10));
    drop(operator);
    assert!(upgrade.held().await == held, "the same Secrets");
    assert_eq!(test.proxy.calls(), count);

    // The downgrade: roles and operator of 0.1.0; the definition stays.
    let roles = Path::new(&old_deploy).join("operator.yaml").display().to_string();
    plane.kubectl(&["apply", "-f", &roles]).await.unwrap();
    let operator = upgrade.start(Some(&old));
    upgrade.settles(&operator, "0.1.0 again, under the present definition").await;
    upgrade.wrote_no_secret();
    assert!(upgrade.held().await == held, "the same Secrets");
    assert_eq!(test.proxy.calls(), count);
    let rotated = ROTATED.min(count - deleting);
    for number in 0..rotated {
        test.patch(&format!("retain-{number}"), &json!({ "spec": { "version": 2 } })).await;
    }
    upgrade.settles(&operator, "0.1.0 rotates some").await;
    drop(operator);
    let held = upgrade.held().await;
    assert_eq!(test.proxy.calls(), count + rotated);

    Upgrade::install(&plane, &repository().join("deploy")).await;
    let operator = upgrade.start(None);
    upgrade.settles(&operator, "this release again").await;
    upgrade.wrote_no_secret();
    let read = by_name(api, "get", "secrets").len();
    assert!(read <= rotated, "{read} Secrets were read");
    drop(operator);
    assert!(upgrade.held().await == held, "the same Secrets");
    assert_eq!(test.proxy.calls(), count + rotated);
}
