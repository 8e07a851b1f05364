//! The forms of settings: what a value must look like. Pure.

use http::Uri;

use datakey::arn;

/// A setting, and what it is called where it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The variable, or the property with its profile.
    pub name: String,
    /// Not empty.
    pub value: String,
}

/// Checks a value; the error is one line.
pub type Form = fn(&Found) -> Result<(), String>;

pub fn wrong(found: &Found, advice: &str) -> String {
    format!("{} is {:?}: {advice}", found.name, found.value)
}

/// Reads a value that is true or false.
pub fn is_true(found: &Found) -> Result<bool, String> {
    match found.value.to_ascii_lowercase().as_str() {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(wrong(found, "write true or false")),
    }
}

pub fn switch(found: &Found) -> Result<(), String> {
    is_true(found).map(|_| ())
}

pub fn region(found: &Found) -> Result<(), String> {
    let advice = "write the code of an AWS Region, for example eu-west-1";
    if arn::is_region_field(&found.value) { Ok(()) } else { Err(wrong(found, advice)) }
}

pub fn address_family(found: &Found) -> Result<(), String> {
    let is_one = ["ipv4", "ipv6"].contains(&found.value.to_ascii_lowercase().as_str());
    if is_one { Ok(()) } else { Err(wrong(found, "write IPv4 or IPv6")) }
}

pub fn url(found: &Found) -> Result<(), String> {
    match found.value.parse::<Uri>() {
        Ok(url) if has_plain_host(&url) && url.query().is_none() => Ok(()),
        Ok(_) => Err(wrong(found, "write a URL with http or https and a host, for example https://kms.example.com")),
        Err(error) => Err(wrong(found, &format!("it is no URL ({error})"))),
    }
}

pub fn url_with_query(found: &Found) -> Result<(), String> {
    match found.value.parse() {
        Ok(url) if has_plain_host(&url) => Ok(()),
        _ => Err(wrong(
            found,
            "write a URL with http or https and a host, for example http://localhost:8080/credentials",
        )),
    }
}

pub fn path(found: &Found) -> Result<(), String> {
    match found.value.parse::<Uri>() {
        Ok(url) if found.value.starts_with('/') && url.authority().is_none() => Ok(()),
        _ => Err(wrong(found, "write a path, for example /v2/credentials/ID")),
    }
}

/// A proxy's URL can have a user and a password, so its value is in no message. Without a scheme it is one of HTTP, as with curl.
pub fn proxy(found: &Found) -> Result<(), String> {
    let value = &found.value;
    let whole = if value.contains("://") { value.clone() } else { format!("http://{value}") };
    match whole.parse() {
        Ok(url) if is_http(&url) && has_host(&url) => Ok(()),
        _ => Err(format!(
            "{} cannot be used: write the URL of an HTTP proxy, for example http://proxy.example.com:3128",
            found.name
        )),
    }
}

fn is_http(url: &Uri) -> bool {
    matches!(url.scheme_str(), Some("http" | "https"))
}

fn has_host(url: &Uri) -> bool {
    url.host().is_some_and(|host| !host.is_empty())
}

/// Whether this is an HTTP URL with a host and without a user and password, which the SDK would sign as a part of the host.
fn has_plain_host(url: &Uri) -> bool {
    is_http(url) && has_host(url) && url.authority().is_some_and(|authority| !authority.as_str().contains('@'))
}
