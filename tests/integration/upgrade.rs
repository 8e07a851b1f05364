//! The upgrade from 0.1.0: the current operator takes over objects that a real 0.1.0 left in a real API server. No byte of a
//! Secret changes, and no recorded version is requested from KMS again.

use std::{collections::BTreeMap, path::PathBuf};

use testbed::{api_proxy::ApiProxy, eventually, proxy::FAILING};

use self::loaded::{Loaded, Recorded};
use crate::harness::{SOON, TestNamespace};

mod loaded;
mod recorder;
mod scale;
mod skew;
mod unchanged;

/// Where the recorded objects are; the README there says how to record them.
const FOLDER: &str = "tests/integration/upgrade/0.1.0";

/// The KMS key of what 0.1.0 left unissued.
const PENDING: &str = "alias/upgrade-pending";

/// The path of a 0.1.0 binary.
fn binary_of_0_1_0() -> PathBuf {
    let path = std::env::var_os("DATAKEY_010_BINARY").expect("DATAKEY_010_BINARY, the path of a 0.1.0 binary");
    path.into()
}

/// How often each name was requested this way.
fn by_name(api: &ApiProxy, verb: &str, resource: &str) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for request in api.requests().into_iter().filter(|request| request.is(verb, resource)) {
        *counts.entry(request.name).or_default() += 1;
    }
    counts
}

/// The KMS keys of the calls so far that no recorded version explains.
fn unexplained_calls(test: &TestNamespace) -> Vec<String> {
    let keys = test.proxy.requests().into_iter().map(|call| call.body["KeyId"].as_str().unwrap().to_owned());
    keys.filter(|key| !key.starts_with(FAILING) && key != PENDING).collect()
}

#[tokio::test]
async fn what_0_1_0_left_is_taken_over_byte_for_byte() {
    let test = TestNamespace::with_stub_kms("upgrade-loaded").await;
    let recorded = Recorded::all(FOLDER);
    assert!(recorded.len() >= 20, "{} are recorded", recorded.len());
    let mut loaded = Vec::new();
    for recorded in &recorded {
        loaded.push(recorded.load(&test).await);
    }
    let settled: Vec<_> = loaded.iter().filter(|loaded| loaded.is_settled).collect();
    assert!(settled.len() >= 15, "{} are settled", settled.len());

    let (api, kubeconfig) = test.api_proxy().await;
    for start in ["first", "second"] {
        api.forget();
        let operator = test.operator_by(&kubeconfig, &[]);
        operator.is_ready().await;
        for loaded in &loaded {
            loaded.is_taken_over(&test).await;
        }
        requests_end(&api, &settled).await;
        let (read, written) = (by_name(&api, "get", "secrets"), by_name(&api, "update", "datakeys/status"));
        for loaded in &settled {
            let count = |counts: &BTreeMap<String, usize>, name: &str| counts.get(name).copied().unwrap_or_default();
            let counts = (count(&read, loaded.key.secret_name()), count(&written, &loaded.name));
            // 0.1.0 keeps no revision of the Secret in the status.
            let once = usize::from(start == "first");
            assert_eq!(counts, (once, once), "{}: read and written in the {start} start", loaded.name);
        }
        let touched =
            by_name(&api, "update", "secrets").into_keys().chain(by_name(&api, "patch", "secrets").into_keys());
        let touched: Vec<_> = touched.filter(|name| settled.iter().any(|it| it.key.secret_name() == name)).collect();
        assert!(touched.is_empty(), "written in the {start} start: {touched:?}");
        assert!(unexplained_calls(&test).is_empty(), "{:?}", unexplained_calls(&test));
    }
    assert_eq!(test.proxy.requests().iter().filter(|call| call.body["KeyId"] == PENDING).count(), 2, "once each");
}

/// Waits until the operator sends no more requests about these objects.
async fn requests_end(api: &ApiProxy, settled: &[&Loaded]) {
    let about = || {
        let requests = api.requests();
        requests.into_iter().filter(|it| settled.iter().any(|loaded| loaded.name == it.name)).count()
    };
    eventually(SOON, "nothing more is asked", async || {
        let before = about();
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        about() == before
    })
    .await;
}
