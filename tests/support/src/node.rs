//! A node that runs pods: containerd, the kubelet and the scheduler. Only in the namespaces of `tests/e2e/node.sh`, where it
//! has the machine for itself.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::json;
use tokio::process::Command;

use crate::{
    commands::run,
    control_plane::{ControlPlane, Server},
    eventually, tools,
};

/// Address of the service `kubernetes`. The API server itself listens there, so that no kube-proxy is needed.
pub const KUBERNETES: &str = "10.0.0.1";

/// Address of the node.
pub const ADDRESS: &str = "10.1.0.1";

/// What pods get theirs from.
const PODS: &str = "10.2.0.0/24";

const SOCKET: &str = "/run/containerd/containerd.sock";

const START: Duration = Duration::from_mins(1);

/// A node. It ends with process 1 of its namespaces.
pub struct Node {
    kubelet: Server,
    containerd: Server,
    _scheduler: Server,
}

// === impl Node ===

impl Node {
    /// Starts one with the images of these archives; nothing is ever pulled. The pause container's image is one of them.
    pub async fn start(plane: &ControlPlane, archives: &[PathBuf], pause: &str) -> Self {
        let workdir = plane.workdir();
        let file = |name: &str| workdir.file(name).display().to_string();
        let plugins = std::env::var("CNI").expect("only tests/e2e/node.sh has room for a node");

        fs::create_dir_all(workdir.file("cni")).expect("a folder");
        let network = json!({
            "cniVersion": "1.0.0",
            "name": "pods",
            "plugins": [{
                "type": "bridge",
                "bridge": "pods",
                "isGateway": true,
                "ipam": { "type": "host-local", "ranges": [[{ "subnet": PODS }]], "routes": [{ "dst": "0.0.0.0/0" }] },
            }],
        });
        fs::write(workdir.file("cni/pods.conflist"), network.to_string()).expect("write the network");
        let settings = format!(
            r#"
version = 2
[grpc]
address = "{SOCKET}"
[plugins."io.containerd.internal.v1.opt"]
path = "{}"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{pause}"
disable_apparmor = true
# Without CAP_SYS_RESOURCE no process can be made less likely to be killed.
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{plugins}"
conf_dir = "{}"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
"#,
            file("opt"),
            file("cni"),
        );
        fs::write(workdir.file("containerd.toml"), settings).expect("write the settings");
        let arguments = vec![format!("--config={}", file("containerd.toml"))];
        let containerd = Server::start("containerd", "containerd".into(), workdir, arguments);
        is_up(&containerd).await;
        for archive in archives {
            let import = ctr().args(["images", "import"]).arg(archive).output().await.expect("run ctr");
            assert!(import.status.success(), "{}: {}", archive.display(), String::from_utf8_lossy(&import.stderr));
        }

        let scheduler = Server::start(
            "kube-scheduler",
            tools().join("bin/kube-scheduler"),
            workdir,
            vec![
                format!("--kubeconfig={}", file("scheduler.kubeconfig")),
                "--leader-elect=false".to_owned(),
                "--secure-port=0".to_owned(),
            ],
        );
        let settings = json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "containerRuntimeEndpoint": format!("unix://{SOCKET}"),
            "authentication": { "anonymous": { "enabled": false }, "x509": { "clientCAFile": file("ca.crt") } },
            "cgroupDriver": "cgroupfs",
            "failCgroupV1": false,
            "failSwapOn": false,
            "volumePluginDir": file("volume-plugins"),
            "oomScoreAdj": 0,
            // No server answers there, and no client asks: pods get addresses.
            "clusterDNS": ["10.0.0.10"],
            "resolvConf": "",
            // Disk and memory are other people's, too.
            "evictionHard": { "memory.available": "10Mi", "nodefs.available": "1%", "imagefs.available": "1%" },
            "imageGCHighThresholdPercent": 100,
            // A container that fails is started again soon: tests wait for that. The default is 5 minutes.
            "crashLoopBackOff": { "maxContainerRestartPeriod": "5s" },
        });
        fs::write(workdir.file("kubelet.json"), settings.to_string()).expect("write the settings");
        let kubelet = Server::start(
            "kubelet",
            tools().join("bin/kubelet"),
            workdir,
            vec![
                format!("--config={}", file("kubelet.json")),
                format!("--kubeconfig={}", file("node.kubeconfig")),
                "--hostname-override=node".to_owned(),
                format!("--node-ip={ADDRESS}"),
            ],
        );
        let node = Self { kubelet, containerd, _scheduler: scheduler };
        eventually(START, "the node is there", async || {
            node.kubelet.must_run();
            plane.kubectl(&["get", "node", "node"]).await.is_ok()
        })
        .await;
        plane
            .kubectl(&["wait", "--for=condition=Ready", "node/node", "--timeout=60s"])
            .await
            .expect("the node is ready");
        node
    }

    /// Switches it off and on: the kubelet, containerd and every container are killed, and what they had in memory is gone.
    pub async fn restart(&self) {
        self.kubelet.kill();
        self.containerd.kill();
        eventually(START, "no container runs", async || {
            let left = container_processes();
            let _ = Command::new("kill").arg("-KILL").args(&left).output().await;
            left.is_empty()
        })
        .await;
        let mounts = fs::read_to_string("/proc/self/mounts").expect("the mounts");
        let mounts: Vec<_> = mounts.lines().filter_map(|line| line.split(' ').nth(1)).collect();
        for mount in mounts.into_iter().rev() {
            if ["/run/containerd/", "/run/netns/", "/var/lib/kubelet/"].iter().any(|folder| mount.starts_with(folder)) {
                run(Command::new("umount").args(["-l", mount])).await.expect("unmount");
            }
        }
        let cgroups = ["/sys/fs/cgroup", "-depth", "-type", "d", "-path", "*/kubepods*", "-exec", "rmdir", "{}", "+"];
        run(Command::new("find").args(cgroups)).await.expect("remove the containers' cgroups");
        for folder in ["/run/containerd", "/run/netns"] {
            fs::remove_dir_all(folder).expect("remove what does not outlast a start");
        }
        self.containerd.run();
        is_up(&self.containerd).await;
        self.kubelet.run();
    }
}

async fn is_up(containerd: &Server) {
    eventually(START, "containerd is up", async || {
        containerd.must_run();
        ctr().arg("version").output().await.is_ok_and(|output| output.status.success())
    })
    .await;
}

fn ctr() -> Command {
    let mut command = Command::new("ctr");
    command.args(["--address", SOCKET, "--namespace", "k8s.io"]);
    command
}

/// The containers' processes, and containerd's own beside each. In this process namespace there are no others.
fn container_processes() -> Vec<String> {
    let is_one = |process: &Path| {
        let read = |file: &str| fs::read_to_string(process.join(file)).unwrap_or_default();
        let command = read("cmdline");
        // Without a command: it ended, and its exit code has not been read yet.
        !command.is_empty() && (command.contains("containerd-shim") || read("cgroup").contains("/kubepods"))
    };
    let processes = fs::read_dir("/proc").expect("/proc").filter_map(Result::ok);
    let names = processes.filter(|entry| is_one(&entry.path())).map(|entry| entry.file_name());
    names.filter_map(|name| name.into_string().ok()).filter(|name| name.bytes().all(|b| b.is_ascii_digit())).collect()
}
