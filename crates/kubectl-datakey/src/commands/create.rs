//! `kubectl datakey create`: makes a `DataKey` from the parameters of `aws kms generate-data-key-without-plaintext`, or a
//! `DataKeyPair` from those of `aws kms generate-data-key-pair-without-plaintext`.

use datakey_dry_run::Verdict;
use serde_json::Value;

use super::apply;
use crate::{
    APP,
    aws_cli::cli_input::{JSON_SKELETON, YAML_SKELETON, json_skeleton_of_pair, yaml_skeleton_of_pair},
    cli::create::{Create, DryRun, Skeleton},
    cluster::{Cluster, Connection},
    output::{CommandError, Output, Terminal, yaml},
};

pub mod parameters;

use parameters::Parameters;

/// The field manager of `create --apply`. It is not that of other commands: server-side apply removes what the same manager
/// applied before and does not name any more.
const MANAGER: &str = "kubectl-datakey-create";

/// Prints an object, checks it, or applies it.
pub async fn run(connection: &Connection, terminal: &Terminal, args: &Create) -> Result<Output, CommandError> {
    if let Some(skeleton) = args.generate_cli_skeleton {
        return Ok(Output::text(match (skeleton, args.key_pair_spec) {
            (Skeleton::Input, None) => JSON_SKELETON.to_owned(),
            (Skeleton::YamlInput, None) => YAML_SKELETON.to_owned(),
            (Skeleton::Input, Some(spec)) => json_skeleton_of_pair(spec),
            (Skeleton::YamlInput, Some(spec)) => yaml_skeleton_of_pair(spec),
        }));
    }
    let parameters = Parameters::of(args).map_err(CommandError::Usage)?;
    let manifest = parameters.manifest(connection.namespace.as_deref());
    let Some(dry_run) = parameters.dry_run else {
        if args.apply {
            let cluster = Cluster::connect(connection).await?;
            let applied = apply::run(&cluster, terminal, parameters.kind(), &manifest, MANAGER, args.timeout).await;
            return applied.map_err(|error| error.redacted(&parameters.grant_tokens));
        }
        return printed(&manifest, &parameters);
    };
    let note = match dry_run {
        DryRun::Client => None,
        DryRun::Server => {
            let checked =
                apply::dry_run(&Cluster::connect(connection).await?, parameters.kind(), &manifest, MANAGER).await;
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
        output.notes.push(format!(
            "note: spec.grantTokens is in the manifest: remove it once the {} is issued, and keep it out of Git",
            parameters.kind().noun
        ));
    }
    Ok(output)
}

/// Asks KMS by a dry run under the user's own credentials.
async fn ask_kms(args: &Create, parameters: &Parameters) -> Result<String, CommandError> {
    let tokens = &parameters.grant_tokens;
    // Without a key the parameters are refused.
    let request = parameters.request.view().to_request();
    let request = request.ok_or_else(|| CommandError::Usage("a dry run needs --key-id".to_owned()))?;
    let verdict = datakey_dry_run::dry_run(APP, &args.aws.overrides(), &request, tokens).await;
    match verdict.map_err(CommandError::Usage)? {
        Verdict::WouldIssue => {
            let noun = parameters.kind().noun;
            let by_class = parameters.class_name.as_ref().map_or_else(String::new, |name| {
                format!("; without the class {name}, which can refuse it, or add to its encryption context")
            });
            Ok(format!("AWS KMS would issue this {noun} under your credentials (dry run){by_class}"))
        }
        Verdict::Refused(why) | Verdict::Unknown(why) | Verdict::Unsupported(why) => Err(CommandError::Failed(why)),
    }
}
