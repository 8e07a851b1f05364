//! Checks which settings of the environment and the profile files are refused. Pure. The AWS SDK panics on some of them; for
//! others it logs a line and continues without the setting.

use std::{collections::BTreeSet, net::IpAddr};

use aws_config::retry::{RetryConfig, RetryMode};
use aws_runtime::env_config::property::PropertiesKey;
use http::Uri;

use super::{
    User,
    credentials::is_usable,
    forms::{self, Form, Found, is_true, wrong},
    sources::{Sources, found_in},
};

#[cfg(test)]
mod tests;

/// What the SDK does not read itself, or not safely.
#[derive(Debug)]
pub struct AwsSettings {
    /// Retries of calls other than those to KMS.
    pub retry: RetryConfig,
    /// The file of trusted certificate authorities.
    pub ca_bundle: Option<Found>,
}

const FIPS: (&str, &str) = ("AWS_USE_FIPS_ENDPOINT", "use_fips_endpoint");
const DUAL_STACK: (&str, &str) = ("AWS_USE_DUALSTACK_ENDPOINT", "use_dualstack_endpoint");
const IGNORE_ENDPOINTS: (&str, &str) = ("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "ignore_configured_endpoint_urls");

/// The variable, the property of a profile where there is one, and what they must look like.
const FORMS: [((&str, &str), Form); 21] = [
    (("AWS_REGION", "region"), forms::region),
    (("AWS_DEFAULT_REGION", ""), forms::region),
    (FIPS, forms::switch),
    (DUAL_STACK, forms::switch),
    (IGNORE_ENDPOINTS, forms::switch),
    (("AWS_EC2_METADATA_DISABLED", ""), forms::switch),
    (("AWS_EC2_METADATA_V1_DISABLED", "ec2_metadata_v1_disabled"), forms::switch),
    (("AWS_DISABLE_REQUEST_COMPRESSION", "disable_request_compression"), forms::switch),
    (("AWS_ENDPOINT_URL", "endpoint_url"), forms::url),
    (("AWS_ENDPOINT_URL_KMS", ""), forms::url),
    (("AWS_ENDPOINT_URL_STS", ""), forms::url),
    (("AWS_EC2_METADATA_SERVICE_ENDPOINT", "ec2_metadata_service_endpoint"), forms::url),
    (("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE", "ec2_metadata_service_endpoint_mode"), forms::address_family),
    (("AWS_CONTAINER_CREDENTIALS_FULL_URI", ""), forms::url_with_query),
    (("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", ""), forms::path),
    // In both spellings, as curl reads them.
    (("HTTPS_PROXY", ""), forms::proxy),
    (("https_proxy", ""), forms::proxy),
    (("HTTP_PROXY", ""), forms::proxy),
    (("http_proxy", ""), forms::proxy),
    (("ALL_PROXY", ""), forms::proxy),
    (("all_proxy", ""), forms::proxy),
];

/// Variables that must not be empty. The SDK does not treat an empty one as unset: it calls the empty address, or stops its
/// search for credentials.
const NEVER_EMPTY: [&str; 6] = [
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_KMS",
    "AWS_ENDPOINT_URL_STS",
    "AWS_EC2_METADATA_SERVICE_ENDPOINT",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
];

/// Parts of credentials: the variable, and the property of a profile. Their values are in no message.
const SECRETS: [(&str, &str); 4] = [
    ("AWS_ACCESS_KEY_ID", "aws_access_key_id"),
    ("AWS_SECRET_ACCESS_KEY", "aws_secret_access_key"),
    ("AWS_SESSION_TOKEN", "aws_session_token"),
    ("AWS_CONTAINER_AUTHORIZATION_TOKEN", ""),
];

/// Properties of a profile that need a person, or run another program.
const FOR_PEOPLE: [&str; 4] = ["sso_session", "sso_start_url", "login_session", "credential_process"];

/// Checks what the SDK is about to read.
///
/// # Errors
/// One line about the first setting that cannot be used.
pub fn check(sources: &Sources<'_>, user: User) -> Result<AwsSettings, String> {
    sources.are_text()?;
    sources.names_a_profile()?;
    for (variable, property) in SECRETS {
        for found in sources.all(variable, property) {
            if !is_usable(&found.value) {
                return Err(format!(
                    "{} has blanks, control characters or characters outside ASCII: copy it again, without a line end",
                    found.name
                ));
            }
        }
    }
    sources.has_whole_credentials()?;
    for variable in NEVER_EMPTY {
        if sources.variables.get(variable).is_some_and(|value| value.is_empty()) {
            return Err(format!("{variable} is empty: remove it, or give it a value"));
        }
    }
    for ((variable, property), form) in FORMS {
        sources.all(variable, property).try_for_each(|found| form(&found))?;
    }
    let retry = sources.retry()?;
    sources.endpoint_goes_with_its_variants()?;
    if user != User::Person {
        sources.need_no_person()?;
    }
    Ok(AwsSettings { retry, ca_bundle: sources.first("AWS_CA_BUNDLE", "ca_bundle") })
}

/// Refuses an endpoint of KMS without TLS, unless it is on this machine: the answers have plaintext keys.
///
/// # Errors
/// One line about the setting.
pub fn refuse_cleartext(sources: &Sources<'_>) -> Result<(), String> {
    let Some(found) = sources.kms_endpoint()? else { return Ok(()) };
    let url = found.value.parse::<Uri>().ok();
    let host = url.as_ref().and_then(Uri::host).map(|host| host.trim_matches(['[', ']']).to_ascii_lowercase());
    let is_loopback = host
        .is_some_and(|host| host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback()));
    let has_tls = url.as_ref().and_then(Uri::scheme_str) == Some("https");
    if has_tls || is_loopback {
        return Ok(());
    }
    Err(wrong(&found, "the key would be readable on the network: use https, or name the endpoint in --endpoint-url"))
}

// === impl Sources ===

impl Sources<'_> {
    fn are_text(&self) -> Result<(), String> {
        let is_of_aws = |name: &str| name.starts_with("AWS_") || FORMS.iter().any(|((own, _), _)| *own == name);
        match self.variables.iter().find(|(name, value)| is_of_aws(name) && value.to_str().is_none()) {
            Some((name, _)) => Err(format!("{name} is not text in UTF-8: remove it, or set it again")),
            None => Ok(()),
        }
    }

    fn names_a_profile(&self) -> Result<(), String> {
        let Some(name) = self.variables.get("AWS_PROFILE") else { return Ok(()) };
        if self.profile().is_some() {
            return Ok(());
        }
        Err(format!(
            "AWS_PROFILE is {:?}, and no profile file has it: remove the variable, or add the profile to the file that \
             AWS_CONFIG_FILE or AWS_SHARED_CREDENTIALS_FILE names",
            name.to_string_lossy()
        ))
    }

    fn has_whole_credentials(&self) -> Result<(), String> {
        let [id, secret] = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"].map(|name| (name, self.variable(name)));
        let (token, role) = (self.variable("AWS_WEB_IDENTITY_TOKEN_FILE"), self.variable("AWS_ROLE_ARN"));
        let (given, missing) = match (id, secret) {
            ((id, Some(_)), (secret, None)) => (id, secret),
            ((id, None), (secret, Some(_))) => (secret, id),
            _ if token.is_some() && role.is_none() => ("AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN"),
            _ => return Ok(()),
        };
        Err(format!("{given} is set and {missing} is not: set both, or remove {given}"))
    }

    fn retry(&self) -> Result<RetryConfig, String> {
        let mut retry = RetryConfig::standard();
        if let Some(found) = self.first("AWS_MAX_ATTEMPTS", "max_attempts") {
            let attempts = found.value.parse().ok().filter(|attempts| *attempts > 0);
            retry = retry.with_max_attempts(attempts.ok_or_else(|| wrong(&found, "write a whole number from 1 on"))?);
        }
        if let Some(found) = self.first("AWS_RETRY_MODE", "retry_mode") {
            let mode = found.value.parse::<RetryMode>().ok();
            retry = retry.with_retry_mode(mode.ok_or_else(|| wrong(&found, "write standard or adaptive"))?);
        }
        Ok(retry)
    }

    /// Refuses a custom KMS endpoint together with FIPS or dual-stack endpoints: only the endpoints of AWS have these variants,
    /// and the SDK would refuse every call.
    fn endpoint_goes_with_its_variants(&self) -> Result<(), String> {
        let Some(endpoint) = self.kms_endpoint()? else { return Ok(()) };
        for (variable, property) in [FIPS, DUAL_STACK] {
            if let Some(found) = self.first(variable, property)
                && is_true(&found)?
            {
                return Err(format!(
                    "{} is true and {} is set: an endpoint of your own has no such variant; remove one of them",
                    found.name, endpoint.name
                ));
            }
        }
        Ok(())
    }

    /// The endpoint of KMS, where it is not AWS's own.
    fn kms_endpoint(&self) -> Result<Option<Found>, String> {
        if let Some(found) = self.first(IGNORE_ENDPOINTS.0, IGNORE_ENDPOINTS.1)
            && is_true(&found)?
        {
            return Ok(None);
        }
        let endpoint = self
            .variable("AWS_ENDPOINT_URL_KMS")
            .or_else(|| self.variable("AWS_ENDPOINT_URL"))
            .or_else(|| self.kms_endpoint_of_services())
            .or_else(|| self.property("endpoint_url"));
        if let Some(found) = &endpoint {
            forms::url(found)?;
        }
        Ok(endpoint)
    }

    /// From the section `services` that the profile names.
    fn kms_endpoint_of_services(&self) -> Option<Found> {
        let services = self.property("services")?.value;
        let key = PropertiesKey::builder()
            .section_key("services")
            .section_name(&services)
            .property_name("kms")
            .sub_property_name("endpoint_url")
            .build()
            .ok()?;
        let value = self.profiles.other_sections().get(&key)?.to_owned();
        Some(Found { name: format!("endpoint_url of kms in the services {services:?}"), value })
    }

    /// Checks that no profile needs a person. Follows the profiles as the SDK does, from a role to its source profile.
    fn need_no_person(&self) -> Result<(), String> {
        // Credentials in the environment go before every profile.
        if self.variable("AWS_ACCESS_KEY_ID").is_some() {
            return Ok(());
        }
        let (mut next, mut seen) = (self.profile(), BTreeSet::new());
        while let Some(profile) = next.filter(|profile| seen.insert(profile.name())) {
            let is_the_first = seen.len() == 1;
            let has_keys = found_in(profile, "aws_access_key_id").is_some();
            if has_keys && !is_the_first {
                return Ok(());
            }
            let source = found_in(profile, "source_profile").filter(|source| source.value != profile.name());
            if found_in(profile, "role_arn").is_some()
                && let Some(source) = source
            {
                next = self.profiles.get_profile(&source.value);
                continue;
            }
            let named_elsewhere = ["credential_source", "web_identity_token_file"];
            if named_elsewhere.iter().any(|name| found_in(profile, name).is_some()) {
                return Ok(());
            }
            return match FOR_PEOPLE.iter().find(|name| found_in(profile, name).is_some()) {
                None => Ok(()),
                Some(property) => Err(format!(
                    "the profile {:?} has {property}, which only people at a terminal can use: give the pod a role (IRSA, \
                     EKS Pod Identity, instance profile), or access keys in the environment or in the profile",
                    profile.name()
                )),
            };
        }
        Ok(())
    }
}
