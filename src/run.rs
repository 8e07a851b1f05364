//! The command `run`: puts the parts together, and stops them in order.

use std::{io::ErrorKind, sync::Arc, time::Duration};

use datakey_aws::{Aws, User};
use thiserror::Error;
use tracing::{error, info};

use crate::{
    admin,
    api_server::ApiServer,
    args::{ClassRequirement, RunArgs},
    classes::Classes,
    controller::store::WorkingSet,
    controller::{self, ControllerSettings, Readiness, WatchTarget},
    key_check::KeyChecks,
    kms::{Kms, KmsSettings, TimeLimits, rates::Rates},
    leader::{self, Election},
    metrics::Metrics,
    reconcile::{ConflictWatches, Context, retry::RetryBounds},
    shutdown,
};
use datakey::{names::FIELD_MANAGER, secret::template::Reserved, text::error_chain};

/// Why the operator can't start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The environment or a profile file has a setting that cannot be used.
    #[error("{0}")]
    Settings(String),
    /// Neither a kubeconfig nor a service account.
    #[error(
        "cannot configure the connection to the API server: {0}; set KUBECONFIG, or run in a pod with a service account"
    )]
    Kubeconfig(String),
    /// The configuration of the API server's client can't be used.
    #[error("no client for the API server: {0}")]
    Client(#[from] kube::Error),
    /// The admin address is taken or not ours.
    #[error(
        "--admin-address (DATAKEY_ADMIN_ADDRESS): cannot listen on {0}: {1}; write a free port and an address of this machine"
    )]
    Admin(std::net::SocketAddr, std::io::Error),
    /// Signals can't be received.
    #[error("can't receive signals: {0}")]
    Signals(std::io::Error),
}

/// Why the operator ended.
#[derive(Debug, Error)]
pub enum RunError {
    /// The operator did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// Another replica leads now; a new start stands by.
    #[error("leadership is lost: {0}; the operator ends, and is a standby after its restart")]
    LeadershipLost(&'static str),
}

// === impl RunError ===

impl RunError {
    /// Whether a setting is wrong. A port that another process holds may be free at the next start.
    pub fn is_usage(&self) -> bool {
        match self {
            Self::Start(StartError::Kubeconfig(_) | StartError::Settings(_)) => true,
            Self::Start(StartError::Admin(_, error)) => error.kind() != ErrorKind::AddrInUse,
            Self::Start(StartError::Client(_) | StartError::Signals(_)) | Self::LeadershipLost(_) => false,
        }
    }
}

/// Runs the operator until SIGTERM or SIGINT.
///
/// # Errors
/// Why it can't start. Once it runs, it waits for what is missing, and ends by itself only when it loses the leadership.
pub async fn run(args: RunArgs) -> Result<(), RunError> {
    let RunArgs {
        namespaces,
        concurrency,
        working_set,
        issue,
        key_pairs,
        classes,
        kms_rate,
        kms_pair_rates,
        extra_regions,
        reserved_template_keys,
        kms_timeout,
        kms_rsa_timeout,
        kube_timeout,
        retry_min,
        retry_max,
        resync,
        key_check_interval,
        shutdown_grace,
        leader_elect,
        lease_namespace,
        lease_name,
        lease_duration,
        admin_address,
        log_level: _,
        log_format: _,
    } = args;
    let aws = Aws::from_env(concat!("datakey-operator-", env!("CARGO_PKG_VERSION")), User::Service);
    let aws = aws.await.map_err(StartError::Settings)?;
    log_start(&namespaces, issue);
    let stop = shutdown::on_signal().map_err(StartError::Signals)?;
    let metrics = Arc::new(Metrics::default());
    let readiness = Readiness::default();

    let listener = admin::bind(admin_address).map_err(|error| StartError::Admin(admin_address, error))?;
    let served = admin::serve(listener, Arc::clone(&metrics), readiness.clone(), stop.clone().cancelled_owned());
    let admin = tokio::spawn(async move {
        if let Err(error) = served.await {
            error!(%error, "the server of /livez, /readyz and /metrics has ended");
        }
    });

    let api_server = ApiServer::infer(kube_timeout, readiness.connectivity.clone()).await;
    let api_server = api_server.map_err(|error| StartError::Kubeconfig(error_chain(&error)))?;
    let new_client = || api_server.client().map_err(StartError::Client);
    let client = new_client()?;
    let listable = controller::wait_until_listable(&client, &namespaces, kube_timeout);
    if stop.run_until_cancelled(listable).await.is_none() {
        return Ok(());
    }
    tokio::spawn(readiness.connectivity.clone().run(new_client()?));
    // Load the AWS configuration before the Lease is acquired: an instance metadata service that does not answer delays the
    // operator for longer than a Lease may stay without a renewal.
    let kms_settings = KmsSettings {
        rates: Rates::new(kms_rate.into(), kms_pair_rates),
        time_limits: TimeLimits { usual: kms_timeout, rsa: kms_rsa_timeout },
    };
    let kms = Kms::from_env(aws, kms_settings, extra_regions, Arc::clone(&metrics));
    let Some(kms) = stop.run_until_cancelled(Box::pin(kms)).await else { return Ok(()) };
    let leadership = if leader_elect {
        let settings = leader::LeaseSettings {
            namespace: lease_namespace.unwrap_or_else(|| client.default_namespace().to_owned()),
            name: lease_name,
            duration: lease_duration,
            identity: identity(),
        };
        let election = Election::new(new_client()?, settings, kube_timeout);
        let leadership = stop.run_until_cancelled(election.acquire(|| readiness.stand_by())).await;
        let Some(leadership) = leadership else { return Ok(()) };
        Some(leadership)
    } else {
        None
    };
    let context = Arc::new(Context {
        kube_timeout,
        resync,
        classes: Classes::new(classes == ClassRequirement::Required),
        key_checks: KeyChecks::new(key_check_interval, issue),
        may_issue: issue,
        connectivity: readiness.connectivity.clone(),
        conflicts: ConflictWatches::new(new_client()?),
        working_set: Arc::new(WorkingSet::of_mebibytes(working_set)),
        reserved: Reserved::with(reserved_template_keys),
        ..Context::new(client, kms, metrics, RetryBounds { min: retry_min, max: retry_max })
    });
    let settings = ControllerSettings { concurrency, pairs: key_pairs, grace: shutdown_grace };
    let watched = if namespaces.is_empty() { vec![None] } else { namespaces.into_iter().map(Some).collect() };
    let targets = watched.into_iter().map(|namespace| Ok(WatchTarget { namespace, client: new_client()? }));
    let targets = targets.collect::<Result<_, StartError>>()?;
    let work = controller::run(context, targets, settings, readiness, stop);
    if let Some(mut leadership) = leadership {
        // The Lease is renewed until the last reconcile has ended, and released only then.
        tokio::select! {
            () = work => leadership.release().await,
            why = leadership.until_lost() => return Err(RunError::LeadershipLost(why)),
        }
    } else {
        work.await;
    }
    let _ = tokio::time::timeout(Duration::from_secs(1), admin).await;
    info!("datakey-operator stopped");
    Ok(())
}

fn log_start(namespaces: &[String], issue: bool) {
    info!(version = env!("CARGO_PKG_VERSION"), ?namespaces, "datakey-operator starts");
    if !issue {
        info!("no data key is issued (--issue=false): what is recorded, pinned or in a Secret is published");
    }
}

/// The identity of this process among the replicas. No two processes have the same one, not even in one pod.
fn identity() -> String {
    let pod = ["POD_NAME", "HOSTNAME"].into_iter().find_map(|name| std::env::var(name).ok());
    format!("{}_{:016x}", pod.as_deref().unwrap_or(FIELD_MANAGER), fastrand::u64(..))
}
