//! `kubectl datakey create`: makes a `DataKey` from the parameters of `aws kms generate-data-key-without-plaintext`.

use datakey_dry_run::Verdict;
use serde_json::Value;

use super::apply;
use crate::{
    APP,
    aws_cli::cli_input::{JSON_SKELETON, YAML_SKELETON},
    cli::create::{Create, DryRun, Skeleton},
    cluster::{Cluster, Connection},
    output::{CommandError, Output, Terminal, yaml},
};

pub mod parameters;

use parameters::Parameters;

/// The field manager of `create --apply`. It is not that of other commands: server-side apply removes what the same manager
/// applied before and does not name any more.
const MANAGER: &str = "kubectl-datakey-create";

/// Prints a `DataKey`, checks it, or applies it.
pub async fn run(connection: &Connection, terminal: &Terminal, args: &Create) -> Result<Output, CommandError> {
    if let Some(skeleton) = args.generate_cli_skeleton {
        return Ok(Output::text(match skeleton {
            Skeleton::Input => JSON_SKELETON,
            Skeleton::YamlInput => YAML_SKELETON,
        }));
    }
    let parameters = Parameters::of(args).map_err(CommandError::Usage)?;
    let manifest = parameters.manifest(connection.namespace.as_deref());
    let Some(dry_run) = parameters.dry_run else {
        if args.apply {
            let cluster = Cluster::connect(connection).await?;
            let applied = apply::run(&cluster, terminal, &manifest, MANAGER, args.timeout).await;
            return applied.map_err(|error| error.redacted(&parameters.grant_tokens));
        }
        return printed(&manifest, &parameters);
    };
    let note = match dry_run {
        DryRun::Client => None,
        DryRun::Server => {
            let checked = apply::dry_run(&Cluster::connect(connection).await?, &manifest, MANAGER).await;
            Some(checked.map_err(|error| error.redacted(&parameters.grant_tokens))?)
        }
        DryRun::Aws => Some(ask_kms(args, &parameters).await?),
    };
    let mut output = printed(&manifest, &parameters)?;
    output.notes.extend(note);
    if args.apply {
        output.notes.push("note: nothing was applied, because this is a dry run".to_owned());
    }
    Ok(output)
}

fn printed(manifest: &Value, parameters: &Parameters) -> Result<Output, CommandError> {
    let mut output = Output::text(yaml(manifest)?);
    if !parameters.grant_tokens.is_empty() {
        output.notes.push(
            "note: spec.grantTokens is in the manifest: remove it once the data key is issued, and keep it out of Git"
                .to_owned(),
        );
    }
    Ok(output)
}

/// Asks KMS by a dry run under the user's own credentials.
async fn ask_kms(args: &Create, parameters: &Parameters) -> Result<String, CommandError> {
    let (request, tokens) = (&parameters.request, &parameters.grant_tokens);
    let verdict = datakey_dry_run::dry_run(APP, &args.aws.overrides(), request, tokens).await;
    match verdict.map_err(CommandError::Usage)? {
        Verdict::WouldIssue => Ok("AWS KMS would issue this data key under your credentials (dry run)".to_owned()),
        Verdict::Refused(why) | Verdict::Unknown(why) | Verdict::Unsupported(why) => Err(CommandError::Failed(why)),
    }
}
