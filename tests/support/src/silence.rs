//! A way to a server that can die without a sign: no byte gets through any more, and no connection ends.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::{JoinHandle, JoinSet},
};

/// A TCP proxy. It ends with its value.
pub struct SilentProxy {
    address: SocketAddr,
    state: watch::Sender<State>,
    task: JoinHandle<()>,
}

#[derive(Clone, Copy, Default)]
struct State {
    /// Connections of earlier epochs are silent for good.
    epoch: usize,
    /// New connections are silent, too.
    is_silent: bool,
}

// === impl SilentProxy ===

impl SilentProxy {
    /// Starts one before a server, on this port of loopback; 0 is a free one.
    pub async fn start(port: u16, server: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.expect("a free port");
        let address = listener.local_addr().expect("a bound address");
        let (state, changes) = watch::channel(State::default());
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let State { epoch, is_silent } = *changes.borrow();
                let changes = changes.clone();
                connections.spawn(async move {
                    if is_silent {
                        let (reader, _writer) = client.into_split();
                        return swallow(reader).await;
                    }
                    let Ok(server) = TcpStream::connect(server).await else { return };
                    let ((from_client, to_client), (from_server, to_server)) =
                        (client.into_split(), server.into_split());
                    tokio::join!(
                        forward(from_client, to_server, epoch, changes.clone()),
                        forward(from_server, to_client, epoch, changes),
                    );
                });
            }
        });
        Self { address, state, task }
    }

    /// Starts one before the server of a kubeconfig, and writes a kubeconfig that leads through it.
    pub async fn before(kubeconfig: &Path) -> (Self, PathBuf) {
        let proxy = Self::start(0, server_of(kubeconfig)).await;
        let path = redirected(kubeconfig, &proxy.address.to_string());
        (proxy, path)
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The present connections die; new ones go through.
    pub fn silence(&self) {
        self.state.send_modify(|state| state.epoch += 1);
    }

    /// The present connections die, and new ones get no answer.
    pub fn silence_all(&self) {
        self.state.send_modify(|state| *state = State { epoch: state.epoch + 1, is_silent: true });
    }

    /// New connections go through again.
    pub fn open(&self) {
        self.state.send_modify(|state| state.is_silent = false);
    }
}

impl Drop for SilentProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The address of the server of a kubeconfig.
pub fn server_of(kubeconfig: &Path) -> SocketAddr {
    let config = read(kubeconfig);
    let server = config["clusters"][0]["cluster"]["server"].as_str().expect("a server");
    server.split_once("://").expect("a URL").1.parse().expect("an address")
}

/// A kubeconfig like this one, with the server at another address.
pub fn redirected(kubeconfig: &Path, address: &str) -> PathBuf {
    let mut config = read(kubeconfig);
    let server = &mut config["clusters"][0]["cluster"]["server"];
    let scheme = server.as_str().and_then(|server| server.split_once("://")).expect("a URL").0;
    *server = format!("{scheme}://{address}").into();
    let path = kubeconfig.with_extension(format!("at-{}", address.replace(':', "-")));
    std::fs::write(&path, config.to_string()).expect("write a kubeconfig");
    path
}

fn read(kubeconfig: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(kubeconfig).expect("read a kubeconfig")).expect("JSON")
}

/// Forwards bytes in one direction until the connection is silent; from then on nothing, not even its end.
async fn forward(
    mut reader: OwnedReadHalf,
    mut writer: OwnedWriteHalf,
    epoch: usize,
    mut changes: watch::Receiver<State>,
) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let silenced = async { drop(changes.wait_for(|state| state.epoch != epoch).await) };
        tokio::select! {
            biased;
            () = silenced => return swallow(reader).await,
            read = reader.read(&mut buffer) => match read {
                Ok(count) if count > 0 => {
                    if writer.write_all(&buffer[..count]).await.is_err() {
                        return;
                    }
                }
                _ => return,
            },
        }
    }
}

/// What comes is received, so that TCP sees nothing wrong.
async fn swallow(mut reader: OwnedReadHalf) {
    let mut buffer = vec![0; 16 * 1024];
    while reader.read(&mut buffer).await.is_ok_and(|count| count > 0) {}
    std::future::pending::<()>().await;
}
