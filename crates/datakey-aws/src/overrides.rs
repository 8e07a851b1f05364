//! Settings of a command line, by the names of the AWS CLI's options.

use std::{collections::BTreeMap, ffi::OsString};

use aws_config::profile::ProfileSet;

/// Credentials in the environment. A profile of the command line goes before them, as with the AWS CLI.
const CREDENTIALS: [&str; 3] = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"];

/// Settings that go before those of the environment and the profile files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--region`
    pub region: Option<String>,
    /// `--profile`
    pub profile: Option<String>,
    /// `--endpoint-url`: the endpoint of KMS. Other services keep theirs.
    pub endpoint_url: Option<String>,
    /// `--ca-bundle`: the file of trusted certificate authorities.
    pub ca_bundle: Option<String>,
}

// === impl Overrides ===

impl Overrides {
    /// Each setting that is given: its variable, its flag, its value.
    fn given(&self) -> impl Iterator<Item = (&'static str, &'static str, &str)> {
        [
            ("AWS_REGION", "--region", &self.region),
            ("AWS_PROFILE", "--profile", &self.profile),
            ("AWS_ENDPOINT_URL_KMS", "--endpoint-url", &self.endpoint_url),
            ("AWS_CA_BUNDLE", "--ca-bundle", &self.ca_bundle),
        ]
        .into_iter()
        .filter_map(|(variable, flag, value)| Some((variable, flag, value.as_deref()?)))
    }

    /// Sets the variables of the settings, so that they are checked as variables are.
    pub(crate) fn apply(&self, variables: &mut BTreeMap<String, OsString>) {
        if self.profile.is_some() {
            for name in CREDENTIALS {
                variables.remove(name);
            }
        }
        if self.endpoint_url.is_some() {
            variables.remove("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS");
        }
        variables.extend(self.given().map(|(variable, _, value)| (variable.to_owned(), value.into())));
    }

    /// Refuses a profile that no file has.
    pub(crate) fn require_profile(&self, profiles: &ProfileSet) -> Result<(), String> {
        match &self.profile {
            Some(name) if profiles.get_profile(name).is_none() => Err(format!(
                "--profile is {name:?}, and no profile file has it: name another one, or add the profile to the file that \
                 AWS_CONFIG_FILE or AWS_SHARED_CREDENTIALS_FILE names"
            )),
            _ => Ok(()),
        }
    }

    /// A message about a variable, with the name of the flag that set it.
    pub(crate) fn with_flags(&self, message: &str) -> String {
        self.given().fold(message.to_owned(), |message, (variable, flag, _)| message.replace(variable, flag))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_line_goes_before_the_environment() {
        let mut variables: BTreeMap<String, OsString> =
            [("AWS_REGION", "eu-west-1"), ("AWS_ACCESS_KEY_ID", "A"), ("AWS_SECRET_ACCESS_KEY", "S")]
                .map(|(name, value)| (name.to_owned(), value.into()))
                .into();
        Overrides { region: Some("eu-north-1".to_owned()), ..Overrides::default() }.apply(&mut variables);
        assert_eq!((variables["AWS_REGION"].to_str(), variables.len()), (Some("eu-north-1"), 3));
        Overrides { profile: Some("team".to_owned()), ..Overrides::default() }.apply(&mut variables);
        let names: Vec<_> = variables.keys().map(String::as_str).collect();
        assert_eq!(names, ["AWS_PROFILE", "AWS_REGION"], "the profile goes before access keys");
    }

    #[test]
    fn messages_name_the_flag_that_was_given() {
        let overrides = Overrides { ca_bundle: Some("/no/such/file".to_owned()), ..Overrides::default() };
        assert_eq!(overrides.with_flags("AWS_CA_BUNDLE names it"), "--ca-bundle names it");
        assert_eq!(overrides.with_flags("AWS_REGION is odd"), "AWS_REGION is odd");
    }
}
