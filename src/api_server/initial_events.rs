//! Streamed lists that are as new as paged ones.
//!
//! kube asks for the initial events of a watch at resource version 0: for any state that the API server has in its cache. That can
//! be older than an answer that the operator has, for example where another replica of the API server gave it. Without a version,
//! the API server waits until its cache is up to date with etcd, as for a list
//! (<https://kubernetes.io/docs/reference/using-api/api-concepts/#streaming-lists>).

use http::{Uri, uri::PathAndQuery};

/// Removes the resource version from a request for initial events.
pub fn make_consistent(uri: &mut Uri) {
    let Some((path, query)) = uri.path_and_query().and_then(|whole| whole.as_str().split_once('?')) else { return };
    let has = |pair: &str| query.split('&').any(|own| own == pair);
    if !has("sendInitialEvents=true") || !has(OLDEST) {
        return;
    }
    let query: Vec<_> = query.split('&').filter(|pair| *pair != OLDEST).collect();
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = PathAndQuery::try_from(format!("{path}?{}", query.join("&"))).ok();
    if let Ok(changed) = Uri::from_parts(parts) {
        *uri = changed;
    }
}

const OLDEST: &str = "resourceVersion=0";

#[cfg(test)]
mod tests {
    use kube::{api::WatchParams, core::Request};

    use super::*;

    fn made(params: &WatchParams, version: &str) -> String {
        let mut uri = Request::new("/api/v1/secrets").watch(params, version).unwrap().uri().clone();
        make_consistent(&mut uri);
        uri.to_string()
    }

    #[test]
    fn only_a_request_for_initial_events_loses_its_version() {
        let streamed = WatchParams::default().initial_events();
        let expected = "/api/v1/secrets?&watch=true&timeoutSeconds=290&allowWatchBookmarks=true&sendInitialEvents=true\
                        &resourceVersionMatch=NotOlderThan";
        assert_eq!(made(&streamed, "0"), expected);
        assert!(made(&streamed, "7").ends_with("&resourceVersion=7"));
        assert!(made(&WatchParams::default(), "0").ends_with("&resourceVersion=0"));
    }

    #[test]
    fn other_requests_stay_as_they_are() {
        for text in ["/api", "/api?", "https://localhost:6443/api/v1/pods?limit=5&resourceVersion=0"] {
            let mut uri: Uri = text.parse().unwrap();
            make_consistent(&mut uri);
            assert_eq!(uri.to_string(), text);
        }
    }
}
