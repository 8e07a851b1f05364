//! `kubectl datakey public-key`: prints the public half of a `DataKeyPair`, from its record. It makes no call to KMS and
//! reads no Secret.

use std::collections::BTreeMap;

use clap::ValueEnum;
use datakey::{
    api::{DataKeyPair, KeyKind as _, Object},
    public_key::{Jwk, PublicKey},
    selection::Versions,
};
use serde::Serialize;
use serde_json::{Value, json};

use super::{Content, deliver, selected::select_version};
use crate::{
    cli::public_key::{PublicKey as Args, PublicKeyFormat},
    cluster::Cluster,
    output::{CommandError, Output, Terminal, json as to_json, yaml},
    reference::titled,
};

/// The entry of a ConfigMap with the JSON Web Key Set.
const JWKS_ENTRY: &str = "jwks.json";

/// The public key of a version.
#[derive(Debug)]
struct Issued {
    version: i32,
    key: PublicKey,
}

/// A JSON Web Key Set (RFC 7517, section 5).
#[derive(Debug, Serialize)]
struct JwkSet {
    keys: Vec<Jwk>,
}

/// Prints public keys.
pub async fn run(cluster: &Cluster, terminal: &Terminal, args: &Args) -> Result<Output, CommandError> {
    let kind = args.name.kind.unwrap_or(DataKeyPair::KIND);
    if kind != DataKeyPair::KIND {
        return Err(CommandError::Usage(format!("a {} has no public key: name a DataKeyPair", kind.name)));
    }
    let pair = cluster.get(kind, &args.name.name).await?;
    let Printed { out, notes } = print(pair.key.object(), args.versions.as_ref(), args.output)?;
    let content = if args.output == PublicKeyFormat::Der { Content::Bytes } else { Content::Text { is_secret: false } };
    deliver(Output { out, notes, ..Output::default() }, args.to.as_deref(), content, terminal)
}

/// What is printed of a key pair, and what to know about it.
#[derive(Debug)]
struct Printed {
    out: Vec<u8>,
    notes: Vec<String>,
}

/// Returns what is printed of a key pair.
fn print(pair: Object<'_>, versions: Option<&Versions>, format: PublicKeyFormat) -> Result<Printed, CommandError> {
    // A set without earlier versions would make their signatures invalid.
    let is_set = matches!(format, PublicKeyFormat::Jwks | PublicKeyFormat::ConfigMap);
    let keys = select(pair, versions.or(is_set.then_some(&Versions::All)))?;
    let mut notes: Vec<_> = keys.iter().filter_map(|issued| note_of_a_pin(pair, issued.version)).collect();
    if format == PublicKeyFormat::ConfigMap {
        let lacks = |issued: &&Issued| issued.key.to_jwk().is_err();
        notes.extend(keys.iter().filter(lacks).map(|issued| {
            format!(
                "{JWKS_ENTRY} leaves out version {}: {} keys have no such form",
                issued.version,
                issued.key.spec().as_str()
            )
        }));
    }
    Ok(Printed { out: encode(pair, &keys, format)?, notes })
}

/// Returns a warning about a version that is pinned. The record does not say of a version whether a pin brought it, so a pin that was
/// removed is not noticed.
fn note_of_a_pin(pair: Object<'_>, version: i32) -> Option<String> {
    let is_pinned = pair.spec.pins.iter().any(|pin| pin.version == version);
    is_pinned.then(|| {
        format!(
            "spec.wrappedKeys pins version {version}, so a user who may write the spec can have chosen its public key: before \
             others trust it, check where it comes from, and that both halves belong together (kubectl datakey verify --decrypt)"
        )
    })
}

/// Returns the public keys of these versions, in the order of their numbers.
fn select(pair: Object<'_>, versions: Option<&Versions>) -> Result<Vec<Issued>, CommandError> {
    let one = |asked| select_version(pair, asked);
    let mut selected = match versions {
        None | Some(Versions::Current) => vec![one(None)?],
        Some(Versions::Only(numbers)) => numbers.iter().map(|number| one(Some(*number))).collect::<Result<_, _>>()?,
        Some(Versions::All) if pair.record().is_empty() => vec![one(None)?],
        Some(Versions::All) => pair.record().iter().collect(),
    };
    selected.sort_by_key(|issued| issued.version);
    let public_key = |version, der: Option<&[u8]>, spec| match (der, spec) {
        (Some(der), Some(spec)) => PublicKey::parse(der, spec).map_err(|flaw| flaw.to_string()),
        _ => Err(format!("status.versions has none for version {version}")),
    };
    let issued = selected.into_iter().map(|issued| {
        let der = issued.public_key.as_ref().map(|der| der.0.as_slice());
        let key = public_key(issued.version, der, issued.request.key_pair_spec).map_err(|why| {
            CommandError::Failed(format!(
                "{}: the recorded public key of version {} can't be used: {why}; install the plugin of the operator's version",
                named(pair),
                issued.version
            ))
        })?;
        Ok(Issued { version: issued.version, key })
    });
    issued.collect()
}

fn encode(pair: Object<'_>, keys: &[Issued], format: PublicKeyFormat) -> Result<Vec<u8>, CommandError> {
    Ok(match format {
        PublicKeyFormat::Pem => keys.iter().map(|issued| issued.key.to_pem()).collect::<String>().into_bytes(),
        PublicKeyFormat::Der => only(pair, keys, "-o pem")?.key.der().to_vec(),
        PublicKeyFormat::Jwk => to_json(&jwk(pair, only(pair, keys, "-o jwks")?)?)?.into_bytes(),
        PublicKeyFormat::Jwks => to_json(&jwk_set(pair, keys)?)?.into_bytes(),
        PublicKeyFormat::Ssh => {
            keys.iter().map(|issued| ssh(pair, issued)).collect::<Result<String, _>>()?.into_bytes()
        }
        PublicKeyFormat::ConfigMap => yaml(&config_map(pair, keys)?)?.into_bytes(),
    })
}

/// Returns the only key. `several` is a format for several keys.
fn only<'a>(pair: Object<'_>, keys: &'a [Issued], several: &str) -> Result<&'a Issued, CommandError> {
    match keys {
        [key] => Ok(key),
        _ => Err(CommandError::Usage(format!(
            "{}: this format holds one key, and {} versions are asked for: name one by --versions, or use {several}",
            named(pair),
            keys.len()
        ))),
    }
}

fn jwk(pair: Object<'_>, issued: &Issued) -> Result<Jwk, CommandError> {
    issued.key.to_jwk().map_err(|error| no_such_form(pair, issued, &error.to_string()))
}

/// Returns the keys without copies: versions can pin one key pair under several numbers, and the ID of a key occurs once in a set.
fn jwk_set<'a>(pair: Object<'_>, keys: impl IntoIterator<Item = &'a Issued>) -> Result<JwkSet, CommandError> {
    let mut set: Vec<Jwk> = Vec::new();
    for issued in keys {
        let jwk = jwk(pair, issued)?;
        if set.iter().all(|other| other.kid() != jwk.kid()) {
            set.push(jwk);
        }
    }
    Ok(JwkSet { keys: set })
}

/// Returns a line of OpenSSH. Its comment names the key pair and the version.
fn ssh(pair: Object<'_>, issued: &Issued) -> Result<String, CommandError> {
    let line = issued.key.to_openssh().map_err(|error| no_such_form(pair, issued, &error.to_string()))?;
    let Object { metadata, .. } = pair;
    let [namespace, name] = [&metadata.namespace, &metadata.name].map(|name| name.as_deref().unwrap_or_default());
    Ok(format!("{line} {namespace}/{name}:v{}\n", issued.version))
}

/// Returns a ConfigMap with the entries that the Secret has for the public keys, by the same names, and with the JSON Web Key Set of
/// those keys that have that form. The plain entries hold the current version, if it is among the keys.
fn config_map(pair: Object<'_>, keys: &[Issued]) -> Result<Value, CommandError> {
    let current = select_version(pair, None).map(|issued| issued.version).ok();
    let mut data = BTreeMap::new();
    for Issued { version, key } in keys {
        let mut entries = |suffix: &str| {
            data.insert(format!("publicKey{suffix}"), key.to_pem());
            data.insert(format!("keyPairSpec{suffix}"), key.spec().as_str().to_owned());
        };
        entries(&format!(".v{version}"));
        if current == Some(*version) {
            entries("");
            data.insert("version".to_owned(), version.to_string());
        }
    }
    let with_a_form = keys.iter().filter(|issued| issued.key.to_jwk().is_ok());
    let set = jwk_set(pair, with_a_form)?;
    if !set.keys.is_empty() {
        data.insert(JWKS_ENTRY.to_owned(), to_json(&set)?);
    }
    Ok(json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        // Not the name of the Secret: a ConfigMap of another program often has that name, and would be changed.
        "metadata": { "name": format!("{}-public-keys", pair.name().unwrap_or_default()), "namespace": pair.metadata.namespace },
        "data": data,
    }))
}

/// Returns the error about a format that a kind of key pair does not have, with those that it has.
fn no_such_form(pair: Object<'_>, issued: &Issued, why: &str) -> CommandError {
    let has = |format: &PublicKeyFormat| match format {
        PublicKeyFormat::Jwk | PublicKeyFormat::Jwks => issued.key.to_jwk().is_ok(),
        PublicKeyFormat::Ssh => issued.key.to_openssh().is_ok(),
        PublicKeyFormat::Pem | PublicKeyFormat::Der | PublicKeyFormat::ConfigMap => true,
    };
    let formats = PublicKeyFormat::value_variants().iter().filter(|format| has(format));
    let formats: Vec<_> = formats.filter_map(ValueEnum::to_possible_value).collect();
    let formats: Vec<_> = formats.iter().map(clap::builder::PossibleValue::get_name).collect();
    CommandError::Usage(format!(
        "{}, version {}: {why}: use one of -o {}",
        named(pair),
        issued.version,
        formats.join(", ")
    ))
}

fn named(pair: Object<'_>) -> String {
    titled(pair.kind, pair.name().unwrap_or_default())
}

#[cfg(test)]
mod tests;
