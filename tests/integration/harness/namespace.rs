//! A namespace of its own for each test, on the control plane that all share or on one of the test's own.

use std::{
    marker::PhantomData,
    path::PathBuf,
    sync::{Arc, atomic::AtomicUsize},
};

use datakey::api::DataKey;
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::{Api, Client};
use serde_json::{Value, json};
use testbed::{
    control_plane::ControlPlane,
    eventually,
    kms::{Key, KmsServer},
    proxy::KmsProxy,
};
use tokio::sync::OnceCell;

use super::{SOON, TestKind};

/// The servers that tests share, because each takes seconds to start.
struct Shared {
    plane: Arc<ControlPlane>,
    kms: KmsServer,
    operator: PathBuf,
}

static SHARED: OnceCell<Shared> = OnceCell::const_new();

async fn shared() -> &'static Shared {
    SHARED
        .get_or_init(|| async {
            let plane = Arc::new(ControlPlane::start().await);
            let kms = KmsServer::start(plane.workdir()).await;
            let operator = plane.operator_kubeconfig().await;
            Shared { plane, kms, operator }
        })
        .await
}

/// A namespace with a KMS key `alias/NAMESPACE` and a KMS proxy of its own, so that tests run side by side. `K` is the kind of the
/// objects that the test creates in it.
pub struct TestNamespace<K: TestKind = DataKey> {
    /// The name, which no other test uses.
    pub namespace: String,
    /// A client of a cluster admin.
    pub client: Client,
    /// The KMS key.
    pub key: Key,
    /// Counts the calls to KMS and makes them fail.
    pub proxy: Arc<KmsProxy>,
    pub plane: Arc<ControlPlane>,
    pub kms: &'static KmsServer,
    /// The kubeconfig of its operators.
    pub(super) operator: PathBuf,
    /// How many operators were started.
    pub(super) operators: Arc<AtomicUsize>,
    kind: PhantomData<fn() -> K>,
}

// === impl TestNamespace ===

impl TestNamespace {
    /// A namespace of this name on the shared control plane, before the shared KMS server.
    pub async fn new(name: &str) -> Self {
        let Shared { plane, kms, operator } = shared().await;
        let proxy = KmsProxy::start(kms.address()).await;
        Self::on_control_plane(name, Arc::clone(plane), operator.clone(), proxy).await
    }

    /// The same with a KMS stub in place of the KMS server: for tests that count data keys and decrypt none.
    pub async fn with_stub_kms(name: &str) -> Self {
        let Shared { plane, operator, .. } = shared().await;
        Self::on_control_plane(name, Arc::clone(plane), operator.clone(), KmsProxy::stub().await).await
    }

    /// A control plane that only this test uses, so that it can break it or change its definitions; with a KMS stub.
    pub async fn with_own_control_plane(name: &str) -> Self {
        let plane = Arc::new(ControlPlane::start().await);
        let operator = plane.operator_kubeconfig().await;
        Self::on_control_plane(name, plane, operator, KmsProxy::stub().await).await
    }

    /// Another namespace on the control plane of this test, with a KMS stub.
    pub async fn another_namespace(&self, name: &str) -> Self {
        Self::on_control_plane(name, Arc::clone(&self.plane), self.operator.clone(), KmsProxy::stub().await).await
    }

    /// A control plane without controllers that only this test uses, so that it can destroy it; with the shared KMS
    /// server, which outlives it.
    pub async fn with_disposable_cluster(name: &str) -> Self {
        let plane = Arc::new(ControlPlane::without_controllers().await);
        let operator = plane.operator_kubeconfig().await;
        let proxy = KmsProxy::start(shared().await.kms.address()).await;
        Self::on_control_plane(name, plane, operator, proxy).await
    }

    /// Destroys the control plane with everything that its etcd holds, and starts another one with an empty namespace of
    /// the same name. The KMS proxy is a new one, which has seen no call.
    pub async fn replace_cluster(self) -> Self {
        let Self { namespace, client, key, proxy, plane, kms, .. } = self;
        let files = plane.workdir().path().to_owned();
        drop((client, proxy));
        drop(Arc::into_inner(plane).expect("the only reference"));
        eventually(SOON, "etcd's data are gone", async || !files.exists()).await;

        let plane = Arc::new(ControlPlane::without_controllers().await);
        plane.namespace(&namespace).await;
        Self {
            client: plane.admin().await,
            operator: plane.operator_kubeconfig().await,
            proxy: Arc::new(KmsProxy::start(kms.address()).await),
            operators: Arc::default(),
            namespace,
            key,
            plane,
            kms,
            kind: PhantomData,
        }
    }

    /// The control plane that all share, and the kubeconfig of operators there.
    pub(super) async fn shared_control_plane() -> (Arc<ControlPlane>, PathBuf) {
        let Shared { plane, operator, .. } = shared().await;
        (Arc::clone(plane), operator.clone())
    }

    /// A namespace on this control plane, with this kubeconfig for its operators and this proxy before KMS.
    pub async fn on_control_plane(
        name: &str,
        plane: Arc<ControlPlane>,
        operator: PathBuf,
        proxy: impl Into<Arc<KmsProxy>>,
    ) -> Self {
        let kms = &shared().await.kms;
        plane.namespace(name).await;
        Self {
            namespace: name.to_owned(),
            client: plane.admin().await,
            key: kms.key_with_alias(name).await,
            proxy: proxy.into(),
            plane,
            kms,
            operator,
            operators: Arc::default(),
            kind: PhantomData,
        }
    }

    /// The address of the shared KMS server.
    pub async fn kms_address() -> String {
        shared().await.kms.address()
    }
}

impl<K: TestKind> TestNamespace<K> {
    /// The same namespace, for objects of another kind.
    pub fn of_kind<Other: TestKind>(&self) -> TestNamespace<Other> {
        TestNamespace {
            namespace: self.namespace.clone(),
            client: self.client.clone(),
            key: self.key.clone(),
            proxy: Arc::clone(&self.proxy),
            plane: Arc::clone(&self.plane),
            kms: self.kms,
            operator: self.operator.clone(),
            operators: Arc::clone(&self.operators),
            kind: PhantomData,
        }
    }

    /// The alias of the KMS key of this namespace.
    pub fn alias(&self) -> String {
        format!("alias/{}", self.namespace)
    }

    /// The API for the objects of the kind in this namespace, as a cluster admin.
    pub fn keys(&self) -> Api<K> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// The API for Secrets of this namespace, as a cluster admin.
    pub fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// The uid of the namespace.
    pub async fn namespace_uid(&self) -> String {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        namespaces.get(&self.namespace).await.unwrap().metadata.uid.unwrap()
    }

    /// Applies manifests as a cluster admin.
    pub async fn apply(&self, manifests: &[Value]) {
        let list = json!({ "apiVersion": "v1", "kind": "List", "items": manifests });
        let file = self.plane.workdir().file(&format!("{}.json", self.namespace));
        std::fs::write(&file, list.to_string()).unwrap();
        self.plane.kubectl(&["apply", "-f", &file.display().to_string()]).await.unwrap();
    }
}
