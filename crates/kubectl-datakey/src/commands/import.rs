//! `kubectl datakey import`: existing wrapped data keys become pins (`spec.wrappedKeys`) of DataKeys for Git.

use std::io::Read;

use datakey::api::{DataKey, KeyKind as _};
use datakey_decrypt::{Caller, Decrypter};
use k8s_openapi::jiff::Timestamp;
use zeroize::Zeroizing;

use super::apply;
use crate::{
    APP,
    aws_cli::param_file,
    cli::import::Import,
    cluster::{Cluster, Connection},
    output::{CommandError, Output, Terminal, yaml},
};

mod batch;
mod candidate;
mod pin;
mod rollout;
mod table;
mod wrapped;

use candidate::Candidate;
use pin::{Found, manifest};
use wrapped::Wrapped;

/// The field manager of `import --apply`. It is not that of `create`: what one of them applied stays when the other one applies
/// less.
const MANAGER: &str = "kubectl-datakey-import";

/// Imports one wrapped data key, or many.
pub async fn run(connection: &Connection, terminal: &Terminal, args: &Import) -> Result<Output, CommandError> {
    let importer = Importer::new(connection, args).await?;
    let cluster = if args.apply { Some(Cluster::connect(connection).await?) } else { None };
    if let Some(folder) = &args.to {
        return batch::run(&importer, cluster.as_ref(), terminal, args, folder).await;
    }
    if source(args) == STDIN && terminal.reads_keyboard() {
        terminal.notes(["reading the wrapped data key from standard input"]);
    }
    let bytes = read(connection, args).await?;
    let wrapped = Wrapped::parse(&bytes, source(args)).map_err(CommandError::Failed)?;
    let name = args.name.as_deref().unwrap_or_default();
    let candidate = Candidate::of(args, name, wrapped);
    let pin = importer.pin(&candidate).await.map_err(CommandError::Failed)?;
    let made = manifest(name, connection.namespace.as_deref(), vec![pin]).map_err(CommandError::Failed)?;
    let mut output = match &cluster {
        None => Output::text(yaml(&made)?),
        Some(cluster) => apply::run(cluster, terminal, DataKey::KIND, &made, MANAGER, args.timeout).await?,
    };
    if args.issued_at.is_none() {
        output.notes.push(TIME_OF_IMPORT.to_owned());
    }
    Ok(output)
}

/// The note where a time is missing.
const TIME_OF_IMPORT: &str =
    "note: issuedAt is the time of the import, because the time of issue is not known; --issued-at names it";

/// What many imports have in common.
struct Importer<'a> {
    namespace: Option<&'a str>,
    /// `None` with `--no-verify`.
    decrypter: Option<Decrypter>,
    now: Timestamp,
}

// === impl Importer ===

impl<'a> Importer<'a> {
    async fn new(connection: &'a Connection, args: &Import) -> Result<Self, CommandError> {
        let decrypter = if args.no_verify {
            None
        } else {
            let caller = Caller::person(APP).with_overrides(args.aws.overrides());
            Some(Decrypter::new(&caller).await.map_err(CommandError::Usage)?)
        };
        Ok(Self { namespace: connection.namespace.as_deref(), decrypter, now: Timestamp::now() })
    }

    /// Returns the pin of a candidate, after KMS unwrapped it.
    async fn pin(&self, candidate: &Candidate) -> Result<datakey::api::IssuedVersion, String> {
        let found = match &self.decrypter {
            None => Found::unverified(candidate)?,
            Some(decrypter) => Found::verified(candidate, decrypter).await?,
        };
        found.pin(candidate, self.now)
    }
}

/// Where a wrapped data key comes from without a flag.
const STDIN: &str = "standard input";

/// What the wrapped data key is called in messages.
fn source(args: &Import) -> &str {
    let named = [&args.ciphertext_blob, &args.from_secret, &args.from_configmap].into_iter().flatten().next();
    match named.map(String::as_str) {
        None | Some("-") => STDIN,
        // A literal blob is not repeated.
        Some(literal) if args.ciphertext_blob.is_some() && !param_file::is_file(literal) => "--ciphertext-blob",
        Some(name) => name,
    }
}

/// Reads the bytes of one source. A plaintext that is among them by mistake is overwritten afterwards.
async fn read(connection: &Connection, args: &Import) -> Result<Zeroizing<Vec<u8>>, CommandError> {
    if let Some(entry) = &args.from_secret {
        let (name, entry) = split(entry, "--from-secret")?;
        return Ok(Zeroizing::new(Cluster::connect(connection).await?.secret_entry(name, entry).await?));
    }
    if let Some(entry) = &args.from_configmap {
        let (name, entry) = split(entry, "--from-configmap")?;
        return Ok(Zeroizing::new(Cluster::connect(connection).await?.config_map_entry(name, entry).await?));
    }
    match args.ciphertext_blob.as_deref() {
        None | Some("-") => {
            let mut bytes = Zeroizing::new(Vec::new());
            match std::io::stdin().lock().take(param_file::LONGEST).read_to_end(&mut bytes) {
                Ok(_) => Ok(bytes),
                Err(error) => Err(CommandError::Failed(format!("can't read standard input: {error}"))),
            }
        }
        Some(parameter) => match param_file::bytes(parameter) {
            Some(bytes) => bytes.map(Zeroizing::new).map_err(CommandError::Failed),
            None => Ok(Zeroizing::new(parameter.as_bytes().to_vec())),
        },
    }
}

fn split<'a>(text: &'a str, flag: &str) -> Result<(&'a str, &'a str), CommandError> {
    match text.split_once('/') {
        Some((name, entry)) if !name.is_empty() && !entry.is_empty() => Ok((name, entry)),
        _ => Err(CommandError::Usage(format!("{flag}: write NAME/ENTRY, for example orders/ciphertextBlob"))),
    }
}
