//! AWS STS, as the KMS server and the proxy before it answer it: `AssumeRole` in the Query protocol, with XML answers.

use std::collections::BTreeMap;

use aws_config::{BehaviorVersion, Region, retry::RetryConfig};
use aws_sdk_sts::{Client, config::Credentials, error::ProvideErrorMetadata, types::Tag};
use hyper::{Response, StatusCode};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::http::{Answer, whole};

/// The operation that the operator calls.
pub const ASSUME_ROLE: &str = "AssumeRole";

/// A session that STS issued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// The access key ID of its credentials.
    pub access_key_id: String,
    /// The ARN of the role.
    pub role_arn: String,
    /// The name of the session.
    pub name: String,
    /// The tags of the session.
    pub tags: BTreeMap<String, String>,
}

// === impl Session ===

impl Session {
    /// What a request asked for, and STS issued; `None` where it is not the answer of a session.
    pub(crate) fn of(request: &Value, answer: &[u8]) -> Option<Self> {
        let answer = std::str::from_utf8(answer).ok()?;
        let (_, rest) = answer.split_once("<AccessKeyId>")?;
        let (access_key_id, _) = rest.split_once("</AccessKeyId>")?;
        let field = |name: &str| request[name].as_str().map(str::to_owned);
        let tag = |number| {
            let part = |name| field(&format!("Tags.member.{number}.{name}"));
            Some((part("Key")?, part("Value").unwrap_or_default()))
        };
        Some(Self {
            access_key_id: access_key_id.to_owned(),
            role_arn: field("RoleArn")?,
            name: field("RoleSessionName")?,
            tags: (1..=50).map_while(tag).collect(),
        })
    }
}

/// A client of the server or the proxy at a URL, in the usual Region, with credentials. It tries nothing again.
pub fn client_at(url: &str, credentials: Credentials) -> Client {
    let config = aws_sdk_sts::Config::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::new(crate::kms::REGION))
        .credentials_provider(credentials)
        .endpoint_url(url)
        .retry_config(RetryConfig::disabled())
        .build();
    Client::from_conf(config)
}

/// Assumes a role, in a session with this name and these tags.
///
/// # Errors
/// The code of the refusal.
pub async fn assume_role(
    client: &Client,
    role_arn: &str,
    name: &str,
    external_id: Option<&str>,
    tags: &[(&str, &str)],
) -> Result<Credentials, String> {
    let tags = tags.iter().map(|(key, value)| Tag::builder().key(*key).value(*value).build().expect("a tag"));
    let call = client.assume_role().role_arn(role_arn).role_session_name(name).set_tags(Some(tags.collect()));
    let answer = call.set_external_id(external_id.map(str::to_owned)).send().await;
    let answer = answer.map_err(|error| error.code().unwrap_or("no code").to_owned())?;
    let issued = answer.credentials.expect("credentials");
    let token = Some(issued.session_token);
    Ok(Credentials::new(issued.access_key_id, issued.secret_access_key, token, None, "testbed"))
}

/// The fields of a form as a JSON object.
pub(crate) fn form(body: &[u8]) -> Value {
    form_urlencoded::parse(body).map(|(name, value)| (name.into_owned(), Value::from(value))).collect()
}

/// An error of STS: HTTP status, code, message.
pub(crate) fn error(status: StatusCode, code: &str, message: &str) -> Answer {
    let error = format!("<Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error>");
    xml(status, &format!("<ErrorResponse>{error}<RequestId>{:032x}</RequestId></ErrorResponse>", fastrand::u128(..)))
}

/// The body of an answer with credentials that no other call is answered with, for an hour.
pub(crate) fn made_up() -> String {
    let id = format!("ASIA{:016X}", fastrand::u64(..));
    let expiration = Timestamp::now() + SignedDuration::from_hours(1);
    format!(
        "<AssumeRoleResponse><AssumeRoleResult><Credentials><AccessKeyId>{id}</AccessKeyId>\
         <SecretAccessKey>test</SecretAccessKey><SessionToken>session-token</SessionToken>\
         <Expiration>{expiration}</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>"
    )
}

/// An answer of STS.
pub(crate) fn xml(status: StatusCode, body: &str) -> Answer {
    let answer = Response::builder().status(status).header("content-type", "text/xml");
    answer.body(whole(body.to_owned())).expect("an answer")
}
