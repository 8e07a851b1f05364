//! What the kubelet reports of the containers of a pod.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod};

/// The containers of a pod by name, init containers among them.
pub type Containers = BTreeMap<String, Container>;

/// A container.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Container {
    /// What changes when it is started again.
    pub id: Option<String>,
    /// How often it was started again.
    pub restarts: i32,
    /// Whether it runs.
    pub is_running: bool,
    /// Whether its startup probe succeeded.
    pub is_started: bool,
    /// How it ended, at present or the last time.
    pub exit_code: Option<i32>,
}

// === impl Container ===

impl From<&ContainerStatus> for Container {
    fn from(status: &ContainerStatus) -> Self {
        let exit_code = |state: &Option<ContainerState>| Some(state.as_ref()?.terminated.as_ref()?.exit_code);
        Self {
            id: status.container_id.clone(),
            restarts: status.restart_count,
            is_running: status.state.as_ref().is_some_and(|state| state.running.is_some()),
            is_started: status.started == Some(true),
            exit_code: exit_code(&status.state).or_else(|| exit_code(&status.last_state)),
        }
    }
}

/// The containers of a pod.
pub fn containers(pod: &Pod) -> Containers {
    let status = pod.status.clone().unwrap_or_default();
    let statuses = status.init_container_statuses.into_iter().chain(status.container_statuses).flatten();
    statuses.map(|status| (status.name.clone(), Container::from(&status))).collect()
}
