//! What is asked for by a restart of the operator, and by one of the API server, while all DataKeys are ready.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use testbed::{api_proxy::ApiProxy, eventually};
use tokio::time::sleep;

use crate::{bed::Bed, report::Report};

/// How long requests are counted after each restart.
const WINDOW: Duration = Duration::from_secs(30);

/// On a namespace with so many DataKeys, all ready. Bare connections end with the API server.
pub async fn run(bed: Bed, namespace: &str, count: usize, report: &mut Report) {
    let api = ApiProxy::start(&bed.kubeconfig).await;
    let calls = bed.kms.calls();
    let operator = bed.operator_by(&api.kubeconfig(&bed.kubeconfig), namespace, &[]).await;
    sleep(WINDOW).await;
    let of_the_operator = asked(&api);
    operator.rest().await;

    api.forget();
    let cpu = operator.cpu();
    let begun = Instant::now();
    bed.plane.restart_apiserver();
    bed.plane.is_ready().await;
    let away = begun.elapsed();
    eventually(WINDOW, "it watches again", async || api.count("watch", "*") >= 2).await;
    sleep(WINDOW).await;
    let cpu = operator.cpu() - cpu;
    let of_the_server = asked(&api);
    assert_eq!(bed.kms.calls(), calls, "what is ready needs no KMS");
    report.table(
        &[&format!("within {} s, {count} DataKeys ready", WINDOW.as_secs()), "requests to the API server", "KMS calls"],
        &[
            vec!["the operator started".to_owned(), of_the_operator, "0".to_owned()],
            vec![format!("the API server restarted, {:.1} s away", away.as_secs_f64()), of_the_server, "0".to_owned()],
        ],
    );
    report.paragraph(&format!(
        "The restart of the API server cost the operator {:.2} s of processor time.",
        cpu.as_secs_f64()
    ));
}

/// The requests by verb and resource.
fn asked(api: &ApiProxy) -> String {
    let mut counts = BTreeMap::<_, usize>::new();
    for request in api.requests() {
        *counts.entry(format!("{} {}", request.verb, request.resource)).or_default() += 1;
    }
    for request in counts.keys() {
        assert!(["list ", "watch ", "watchlist "].iter().any(|verb| request.starts_with(verb)), "{counts:?}");
    }
    counts.iter().map(|(request, count)| format!("{count} {request}")).collect::<Vec<_>>().join(", ")
}
