//! What of the environment and the profile files is refused. Pure. The AWS SDK panics over some of it, and over other parts it
//! logs a line and goes on without the setting.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
};

use aws_config::{
    profile::{Profile, ProfileSet},
    retry::{RetryConfig, RetryMode},
};
use aws_runtime::env_config::property::PropertiesKey;

use super::{
    User,
    credentials::is_usable,
    forms::{self, Form, Found, is_true, wrong},
};

/// Where settings come from.
pub struct Sources<'a> {
    /// The environment.
    pub variables: &'a BTreeMap<String, OsString>,
    /// The profile files.
    pub profiles: &'a ProfileSet,
}

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

/// Variables that the SDK does not take as unset where they are empty: it calls what they name, or stops its search for
/// credentials.
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
    if user == User::Service {
        sources.need_no_person()?;
    }
    Ok(AwsSettings { retry, ca_bundle: sources.first("AWS_CA_BUNDLE", "ca_bundle") })
}

// === impl Sources ===

impl Sources<'_> {
    /// The value of a variable. One that is empty counts as not set.
    fn variable(&self, name: &str) -> Option<Found> {
        let value = self.variables.get(name)?.to_str().filter(|value| !value.is_empty())?;
        Some(Found { name: name.to_owned(), value: value.to_owned() })
    }

    /// A property of the profile that is used.
    fn property(&self, name: &str) -> Option<Found> {
        found_in(self.profile()?, name)
    }

    fn profile(&self) -> Option<&Profile> {
        self.profiles.get_profile(self.profiles.selected_profile())
    }

    /// A setting wherever it is given.
    fn all(&self, variable: &str, property: &str) -> impl Iterator<Item = Found> {
        self.variable(variable).into_iter().chain(self.property(property))
    }

    /// The setting that counts: the variable goes before the profile.
    fn first(&self, variable: &str, property: &str) -> Option<Found> {
        self.all(variable, property).next()
    }

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

    /// The FIPS and the dual-stack endpoints are those of AWS, so an endpoint of one's own has no such variant, and the SDK
    /// refuses every call.
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

    /// Follows the profiles as the SDK does: from role to source profile.
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
                    "the profile {:?} has {property}, which only people at a terminal can use: give the operator a role (IRSA, \
                     EKS Pod Identity, instance profile), or access keys in the environment or in the profile",
                    profile.name()
                )),
            };
        }
        Ok(())
    }
}

fn found_in(profile: &Profile, name: &str) -> Option<Found> {
    let value = profile.get(name).filter(|value| !value.is_empty())?;
    Some(Found { name: format!("{name} of the profile {:?}", profile.name()), value: value.to_owned() })
}

#[cfg(test)]
mod tests {
    use aws_runtime::env_config::file::EnvConfigFiles;
    use aws_types::os_shim_internal::{Env, Fs};

    use super::*;

    const KEYS: &str = "aws_access_key_id = AKIA\naws_secret_access_key = s\n";

    async fn checked(variables: &[(&str, &str)], config: &str, user: User) -> Result<AwsSettings, String> {
        let files = [("AWS_CONFIG_FILE", "/config"), ("AWS_SHARED_CREDENTIALS_FILE", "/none")];
        let all = [variables, &files].concat();
        let fs = Fs::from_slice(&[("/config", config)]);
        let (env, files) = (Env::from_slice(&all), EnvConfigFiles::default());
        let profiles = aws_config::profile::load(&fs, &env, &files, None).await.unwrap();
        let variables = all.iter().map(|(name, value)| ((*name).to_owned(), OsString::from(*value))).collect();
        check(&Sources { variables: &variables, profiles: &profiles }, user)
    }

    #[tokio::test]
    async fn each_variable_has_values_that_are_taken_and_refused() {
        let table: [(&str, &[&str], &[&str]); 19] = [
            ("AWS_REGION", &["", "eu-west-1", "us-gov-east-1"], &["eu-west-1\n", "EU", "eu west 1", "eu-west-1,"]),
            ("AWS_DEFAULT_REGION", &["", "eu-west-1"], &["eu-west-1 ", "nowhere"]),
            ("AWS_SESSION_TOKEN", &["", "IQoJb3/+=="], &["t\n", "t t", "\u{202e}"]),
            ("AWS_CONTAINER_AUTHORIZATION_TOKEN", &["", "token"], &["token\r\nX: y"]),
            ("AWS_ENDPOINT_URL", &["http://localhost:4566", "https://[::1]:8443/kms"], &["", "localhost:4566", "kms"]),
            (
                "AWS_ENDPOINT_URL_KMS",
                &["http://127.0.0.1:4566/", "https://kms.example.com"],
                &["", "ftp://kms", "https://", "https://u:p@kms", "https://kms?x", "https://kms\n", "https://k ms"],
            ),
            ("AWS_ENDPOINT_URL_STS", &["https://sts.example.com"], &["", "sts"]),
            ("AWS_EC2_METADATA_SERVICE_ENDPOINT", &["http://[fd00:ec2::254]"], &["", "169.254.169.254\n"]),
            (
                "AWS_CONTAINER_CREDENTIALS_FULL_URI",
                &["http://169.254.170.23/v1", "http://localhost/v1?a=b"],
                &["", "/v1"],
            ),
            (
                "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
                &["/v2/credentials/1?a=b"],
                &["", "v2/credentials", "http://x/v2", "x:80", "/a b", "//x/v2\n"],
            ),
            ("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE", &["", "IPv4", "ipv6"], &["6", "IPv5"]),
            ("AWS_USE_FIPS_ENDPOINT", &["", "true", "False"], &["yes", "1", "true "]),
            ("AWS_USE_DUALSTACK_ENDPOINT", &["", "TRUE"], &["on"]),
            ("AWS_EC2_METADATA_DISABLED", &["", "true"], &["1"]),
            ("AWS_MAX_ATTEMPTS", &["", "1", "10"], &["0", "-1", "many", "1.5", "99999999999"]),
            ("AWS_RETRY_MODE", &["", "standard", "adaptive"], &["legacy", "never"]),
            ("AWS_PROFILE", &["default"], &["", "other"]),
            ("HTTPS_PROXY", &["", "http://proxy:3128", "proxy:3128"], &["socks5://proxy", "http://", "pro xy"]),
            ("http_proxy", &["", "https://user:password@proxy"], &["http://\n"]),
        ];
        for (name, taken, refused) in table {
            for value in taken {
                let settings = checked(&[(name, value)], "[default]\n", User::Service).await;
                assert_eq!(settings.err(), None, "{name}={value:?}");
            }
            for value in refused {
                let settings = checked(&[(name, value)], "[default]\n", User::Service).await;
                let line = settings.err().unwrap_or_else(|| panic!("{name}={value:?} was taken"));
                assert!(line.starts_with(name) && !line.contains('\n'), "{line}");
            }
        }
    }

    #[tokio::test]
    async fn credentials_are_whole_and_never_repeated() {
        let (id, secret, marker) = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "marker");
        for (variables, name) in [
            (&[(id, marker), (secret, marker)][..], None),
            (&[(id, ""), (secret, "")], None),
            (&[(id, "marker\n"), (secret, marker)], Some(id)),
            (&[(id, marker), (secret, "mar ker")], Some(secret)),
            (&[(id, marker)], Some(id)),
            (&[(secret, marker), (id, "")], Some(secret)),
            (&[("AWS_WEB_IDENTITY_TOKEN_FILE", "/marker")], Some("AWS_WEB_IDENTITY_TOKEN_FILE")),
            (&[("AWS_WEB_IDENTITY_TOKEN_FILE", "/marker"), ("AWS_ROLE_ARN", "arn:aws:iam::111122223333:role/r")], None),
        ] {
            let line = checked(variables, "", User::Service).await.err();
            assert_eq!(line.as_ref().map(|line| line.split(' ').next().unwrap()), name, "{variables:?}");
            assert!(!line.is_some_and(|line| line.contains("marker") || line.contains("mar ker")));
        }
    }

    #[tokio::test]
    async fn a_profile_is_checked_as_the_environment_is() {
        for (property, name) in [
            ("region = Mars", "region of"),
            ("max_attempts = 0", "max_attempts of"),
            ("retry_mode = legacy", "retry_mode of"),
            ("endpoint_url = kms", "endpoint_url of"),
            ("use_fips_endpoint = perhaps", "use_fips_endpoint of"),
            ("aws_access_key_id = AK IA", "aws_access_key_id of"),
        ] {
            let line = checked(&[], &format!("[default]\n{property}\n"), User::Person).await.unwrap_err();
            assert!(line.starts_with(name) && line.contains("profile \"default\""), "{line}");
        }
    }

    #[tokio::test]
    async fn fips_and_dual_stack_need_the_endpoints_of_aws() {
        let (fips, url) = ("AWS_USE_FIPS_ENDPOINT", "https://kms.example.com");
        let services = "[default]\nservices = here\n[services here]\nkms =\n  endpoint_url = https://kms.example.com\n";
        for (variables, config, is_taken) in [
            (&[(fips, "true")][..], "", true),
            (&[(fips, "false"), ("AWS_ENDPOINT_URL_KMS", url)], "", true),
            (&[(fips, "true"), ("AWS_ENDPOINT_URL_STS", url)], "", true),
            (&[(fips, "true"), ("AWS_ENDPOINT_URL", url), ("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true")], "", true),
            (&[(fips, "true"), ("AWS_ENDPOINT_URL_KMS", url)], "", false),
            (&[(fips, "true"), ("AWS_ENDPOINT_URL", url)], "", false),
            (&[("AWS_USE_DUALSTACK_ENDPOINT", "true"), ("AWS_ENDPOINT_URL_KMS", url)], "", false),
            (&[("AWS_ENDPOINT_URL", url)], "[default]\nuse_fips_endpoint = true\n", false),
            (&[(fips, "true")], services, false),
            (&[(fips, "true")], "[default]\nendpoint_url = https://kms.example.com\n", false),
        ] {
            let line = checked(variables, config, User::Service).await.err();
            assert_eq!(line.is_none(), is_taken, "{variables:?} {config}: {line:?}");
            assert!(line.is_none_or(|line| line.contains("remove one of them")));
        }
    }

    #[tokio::test]
    async fn what_needs_a_person_is_refused_by_name_for_a_service() {
        let role = "role_arn = arn:aws:iam::111122223333:role/r\n";
        let sso = "[sso-session s]\nsso_region = eu-west-1\nsso_start_url = https://x\n";
        for (config, property) in [
            (format!("[default]\n{KEYS}"), None),
            ("[default]\ncredential_process = /bin/x\n".to_owned(), Some("credential_process")),
            (format!("[default]\ncredential_process = /bin/x\n{KEYS}"), Some("credential_process")),
            (format!("[default]\nsso_session = s\n{sso}"), Some("sso_session")),
            ("[default]\nlogin_session = arn:aws:iam::111122223333:user/a\n".to_owned(), Some("login_session")),
            (
                format!("[default]\n{role}source_profile = b\n[profile b]\ncredential_process = x\n"),
                Some("credential_process"),
            ),
            (format!("[default]\n{role}source_profile = b\n[profile b]\ncredential_process = x\n{KEYS}"), None),
            (format!("[default]\n{role}source_profile = default\n{KEYS}"), None),
            (format!("[default]\n{role}source_profile = b\n[profile b]\n{role}source_profile = default\n"), None),
            (format!("[default]\n{role}credential_source = Environment\ncredential_process = x\n"), None),
            (format!("[default]\n{KEYS}[profile b]\ncredential_process = x\n"), None),
        ] {
            let line = checked(&[], &config, User::Service).await.err();
            assert_eq!(line.is_some(), property.is_some(), "{config}: {line:?}");
            if let (Some(line), Some(property)) = (line, property) {
                assert!(line.contains(property) && line.contains("IRSA"), "{line}");
            }
            assert!(checked(&[], &config, User::Person).await.is_ok(), "{config}");
            let keys = [("AWS_ACCESS_KEY_ID", "AKIA"), ("AWS_SECRET_ACCESS_KEY", "s")];
            assert!(checked(&keys, &config, User::Service).await.is_ok(), "{config}");
        }
    }

    #[tokio::test]
    async fn the_environment_goes_before_the_profile() {
        let config = "[default]\nca_bundle = /profile.pem\nmax_attempts = 7\n";
        let settings = checked(&[], config, User::Service).await.unwrap();
        assert_eq!(settings.ca_bundle.unwrap().value, "/profile.pem");
        assert_eq!(settings.retry.max_attempts(), 7);
        let variables = [("AWS_CA_BUNDLE", "/variable.pem"), ("AWS_MAX_ATTEMPTS", "2")];
        let settings = checked(&variables, config, User::Service).await.unwrap();
        assert_eq!(settings.ca_bundle.unwrap().value, "/variable.pem");
        assert_eq!(settings.retry.max_attempts(), 2);
    }
}
