//! The tests run on the Kubernetes version that they claim.

use serde_json::Value;
use testbed::{
    asset,
    kubernetes::{Built, Release},
};

use crate::harness::TestNamespace;

#[tokio::test]
async fn the_servers_have_the_version_of_their_go_mod() {
    let test = TestNamespace::new("kubernetes-version").await;
    let Some(built) = Built::chosen() else {
        eprintln!("KUBEBUILDER_ASSETS is set: {} is not the version of a go.mod here", test.plane.release());
        return;
    };
    let expected = built.release();
    // The Makefile passes the version as a flag of the linker; Go reports what it built.
    for program in ["kube-apiserver", "kube-controller-manager", "kubectl"] {
        assert_eq!(Release::linked(&asset(program).unwrap()), Some(expected), "{program}");
    }
    let versions: Value =
        serde_json::from_str(&test.plane.kubectl(&["version", "--output=json"]).await.unwrap()).unwrap();
    for side in ["serverVersion", "clientVersion"] {
        assert_eq!(versions[side]["gitVersion"], expected.to_string(), "{side}");
    }
    let (major, minor) = (&versions["serverVersion"]["major"], &versions["serverVersion"]["minor"]);
    assert_eq!(format!("{}.{}", major.as_str().unwrap(), minor.as_str().unwrap()), expected.minor());
}
