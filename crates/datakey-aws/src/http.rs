//! The HTTP client of the AWS SDK. Proxies are those of the environment, but never for the servers on the node that hand
//! credentials out: a proxy would ask its own node, and would see the credentials.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fmt,
};

use aws_smithy_http_client::{
    Builder, ConnectorBuilder,
    proxy::ProxyConfig,
    tls::{self, TlsContext, TrustStore, rustls_provider::CryptoMode},
};
use aws_smithy_runtime_api::client::{
    http::{
        HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient, SharedHttpConnector,
        http_client_fn,
    },
    orchestrator::{HttpRequest, HttpResponse},
    runtime_components::RuntimeComponents,
};
use aws_smithy_types::body::SdkBody;
use http_body_util::Limited;

/// Instance metadata, task roles of ECS, Pod Identity of EKS (AWS SDKs and Tools Reference Guide, "IMDS credential provider"
/// and "Container credential provider").
const ON_THE_NODE: [&str; 5] = ["169.254.169.254", "fd00:ec2::254", "169.254.170.2", "169.254.170.23", "fd00:ec2::23"];

/// Variables that name other addresses of such servers.
const NAMED_BY: [&str; 2] = ["AWS_EC2_METADATA_SERVICE_ENDPOINT", "AWS_CONTAINER_CREDENTIALS_FULL_URI"];

/// The longest answer that is read, in bytes. Those of AWS KMS and AWS STS have some thousands; an endless one would take all memory.
const LONGEST_ANSWER: usize = 1 << 20;

/// Calls the servers on the node directly, and all others as the environment says.
struct ByHost {
    direct: SharedHttpConnector,
    through_proxy: SharedHttpConnector,
    on_the_node: BTreeSet<String>,
}

/// The client for all calls to AWS.
pub fn client(trust: &TrustStore, variables: &BTreeMap<String, OsString>) -> SharedHttpClient {
    let on_the_node = on_the_node(variables);
    let (direct, through_proxy) = (with_proxy(trust, ProxyConfig::disabled), with_proxy(trust, ProxyConfig::from_env));
    http_client_fn(move |settings: &HttpConnectorSettings, components: &RuntimeComponents| {
        SharedHttpConnector::new(ByHost {
            direct: direct.http_connector(settings, components),
            through_proxy: through_proxy.http_connector(settings, components),
            on_the_node: on_the_node.clone(),
        })
    })
}

fn with_proxy(trust: &TrustStore, proxy: fn() -> ProxyConfig) -> SharedHttpClient {
    let trust = trust.clone();
    Builder::new().build_with_connector_fn(move |settings, components| {
        let mut builder = ConnectorBuilder::default().tls_provider(tls::Provider::Rustls(CryptoMode::AwsLc));
        // No builder of a context fails.
        if let Ok(context) = TlsContext::builder().with_trust_store(trust.clone()).build() {
            builder.set_tls_context(context);
        }
        builder.set_connector_settings(settings.cloned());
        if let Some(components) = components {
            builder.set_sleep_impl(components.sleep_impl());
        }
        builder.set_proxy_config(Some(proxy()));
        builder.build()
    })
}

fn on_the_node(variables: &BTreeMap<String, OsString>) -> BTreeSet<String> {
    let named = NAMED_BY.iter().filter_map(|name| host(variables.get(*name)?.to_str()?));
    ON_THE_NODE.into_iter().map(str::to_owned).chain(named).collect()
}

/// The host of a URL, an IPv6 address without its brackets.
fn host(url: &str) -> Option<String> {
    let url: ::http::Uri = url.parse().ok()?;
    Some(url.host()?.trim_matches(['[', ']']).to_ascii_lowercase())
}

// === impl ByHost ===

impl HttpConnector for ByHost {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let is_on_the_node = host(request.uri()).is_some_and(|host| self.on_the_node.contains(&host));
        let answer = if is_on_the_node { self.direct.call(request) } else { self.through_proxy.call(request) };
        HttpConnectorFuture::new(async move { answer.await.map(bounded) })
    }
}

impl fmt::Debug for ByHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ByHost").field("on_the_node", &self.on_the_node).finish_non_exhaustive()
    }
}

/// The same answer, whose reading fails after [`LONGEST_ANSWER`].
fn bounded(answer: HttpResponse) -> HttpResponse {
    answer.map(|body| SdkBody::from_body_1_x(Limited::new(body, LONGEST_ANSWER)))
}

#[cfg(test)]
mod tests {
    use aws_smithy_runtime_api::http::StatusCode;
    use http_body_util::BodyExt as _;

    use super::*;

    #[tokio::test]
    async fn answer_without_an_end_is_not_read() {
        for (length, is_read) in [(LONGEST_ANSWER, true), (LONGEST_ANSWER + 1, false)] {
            let answer = HttpResponse::new(StatusCode::try_from(200).unwrap(), SdkBody::from(vec![b' '; length]));
            assert_eq!(bounded(answer).into_body().collect().await.is_ok(), is_read, "{length}");
        }
    }

    #[test]
    fn servers_on_the_node_are_recognized_by_their_host() {
        let variables = BTreeMap::from([
            (NAMED_BY[0].to_owned(), OsString::from("http://[FD00:EC2::99]:8080/")),
            (NAMED_BY[1].to_owned(), OsString::from("http://localhost:9911/role")),
        ]);
        let known = on_the_node(&variables);
        for url in [
            "http://169.254.169.254/latest/api/token",
            "http://[fd00:ec2::254]/latest",
            "http://169.254.170.2/v2/credentials/1",
            "http://169.254.170.23/v1/credentials",
            "http://[fd00:ec2::23]/v1/credentials",
            "http://[fd00:ec2::99]:8080/latest",
            "http://localhost:9911/role",
        ] {
            assert!(host(url).is_some_and(|host| known.contains(&host)), "{url}");
        }
        for url in ["https://kms.eu-west-1.amazonaws.com/", "http://169.254.169.25/", "https://localhost.example.com/"]
        {
            assert!(!host(url).is_some_and(|host| known.contains(&host)), "{url}");
        }
    }
}
