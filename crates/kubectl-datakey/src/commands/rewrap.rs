//! `kubectl datakey rewrap`: moves data keys and key pairs to another KMS key or encryption context, with the same plaintexts.
//!
//! AWS KMS wraps each of them once more (`ReEncrypt`), under the credentials of the user, and returns no plaintext. The results are
//! pins, so the operator records them as it records others. Each step can be interrupted: a file is written before the cluster is
//! changed, a file that is there is used, and what is there already is not done again.

use datakey::{
    api::RequestFlaw,
    arn::{self, KmsArn},
};

use super::{create::parameters::by_flags, none_found};
use crate::{
    cli::rewrap::Rewrap as Args,
    cluster::{Cluster, FetchedKey, Listing},
    output::{CommandError, Format, Health, Output, Terminal, render},
};

mod change;
mod destination;
mod files;
mod mover;
mod owners;
pub mod plan;
mod rights;
pub mod view;

use mover::Mover;
use owners::Owners;
use plan::{Destination, Move, Obstacle, Plan};
use view::MovePlan;

/// What a user does before a KMS key is disabled: a false claim would lose the data key.
const PROVE: &str = "note: that two versions have the same plaintext is what their pins say (rewrapOf): prove it by kubectl datakey verify \
                     --decrypt before you disable a KMS key";

/// Plans a move, or does it.
pub async fn run(cluster: &Cluster, terminal: &Terminal, args: &Args) -> Result<Output, CommandError> {
    let wanted = wanted(args)?;
    let listing = select(cluster, args).await?;
    let owners = Owners::among(&listing.keys);
    let plans: Vec<_> = listing.keys.iter().map(|fetched| plan_of(fetched, &wanted, &owners)).collect();
    let concerns = |(_, plan): &(_, &Result<Plan, Obstacle>)| match plan {
        Ok(plan) => plan.is_concerned(),
        Err(Obstacle::Blocked(_)) => true,
        // Of several objects, those that have nothing to move are no failures.
        Err(Obstacle::NotIssued | Obstacle::Deleting) => args.name.is_some(),
    };
    let concerned: Vec<_> = listing.keys.iter().zip(&plans).filter(concerns).collect();
    let mut output = if args.output.is_none() && !args.apply {
        show(&wanted, &listing, &concerned, args)?
    } else {
        let keys = concerned.iter().map(|(fetched, _)| *fetched).collect();
        Mover::new(cluster, terminal, args, wanted, owners).await?.run(keys).await?
    };
    let does = args.output.is_some() || args.apply;
    let trusts_claims = |(_, plan): &(&FetchedKey, &Result<Plan, Obstacle>)| {
        plan.as_ref().is_ok_and(|plan| plan.present.iter().any(|(version, there)| version != there))
    };
    if does && !concerned.is_empty() || args.format == Format::Table && concerned.iter().any(trusts_claims) {
        output.notes.push(PROVE.to_owned());
    }
    let alias = args.spec_key_id.as_deref().filter(|key_id| key_id.contains("alias/"));
    if let Some(alias) = alias.filter(|_| !concerned.is_empty() && args.format == Format::Table) {
        output.notes.push(format!(
            "note: the command does not ask AWS KMS which KMS key {alias} names, and the operator issues new versions under that one. Check \
             that it is {}: aws kms describe-key --key-id {alias}",
            args.to_key_id
        ));
    }
    if concerned.is_empty() {
        output.notes.push(match listing.keys.len() {
            0 => none_found(cluster, &listing, args.all_namespaces),
            all => format!("Nothing to move: this move concerns none of {all} {}.", listing.nouns()),
        });
    }
    output.notes.extend(listing.notes());
    output.health = output.health.max(listing.health());
    // What was not looked at is not moved, and the user may disable the old KMS key next.
    if listing.unlisted.iter().any(|unlisted| !unlisted.has_no_definition) {
        output.health = output.health.max(Health::Unknown);
    }
    Ok(output)
}

async fn select(cluster: &Cluster, args: &Args) -> Result<Listing, CommandError> {
    match &args.name {
        Some(name) => cluster.selected(Some(name), false).await,
        None => cluster.selected_by(args.selector.as_deref(), args.all_namespaces).await,
    }
}

/// What the flags ask for.
fn wanted(args: &Args) -> Result<Move, CommandError> {
    let does = args.output.is_some() || args.apply;
    if does && args.name.is_none() && args.from_key_id.is_none() {
        return Err(CommandError::Usage(
            "several objects need --from-key-id, the ARN of the KMS key to move from: users who may write a DataKey can pin data keys that \
             any KMS key wrapped, and you would use your rights for KMS keys that they choose. The plan (without --output and --apply) \
             lists the KMS keys"
                .to_owned(),
        ));
    }
    let key_arn = args.to_key_id.clone();
    let key_id = args.spec_key_id.clone().unwrap_or_else(|| key_arn.clone());
    let region = KmsArn::parse(&key_arn).map(|arn| arn.region).unwrap_or_default();
    if !arn::may_answer(&key_id, region, &key_arn) {
        return Err(CommandError::Usage(format!(
            "--spec-key-id {key_id} does not name the KMS key of --to-key-id, {key_arn}: correct one of them"
        )));
    }
    let flaw = args.to_context.as_ref().and_then(RequestFlaw::of_context);
    if let Some(flaw) = flaw {
        return Err(CommandError::Usage(format!("--to-context: {}", by_flags(flaw))));
    }
    Ok(Move {
        to: Destination { key_arn, key_id, context: args.to_context.clone() },
        versions: args.versions.clone(),
        from: args.from_key_id.clone(),
        rotates: !args.no_rotate,
        includes_adopted: args.include_adopted,
    })
}

/// Plans the move of an object.
fn plan_of(fetched: &FetchedKey, wanted: &Move, owners: &Owners<'_>) -> Result<Plan, Obstacle> {
    let plan = Plan::of(fetched.key.object(), wanted)?;
    owners.check(fetched, &plan).map_err(Obstacle::Blocked)?;
    if !plan.rewraps.is_empty() {
        change::rehearse(fetched, &plan, &wanted.to).map_err(|error| Obstacle::Blocked(error.to_string()))?;
    }
    Ok(plan)
}

/// Prints the plan.
fn show(
    wanted: &Move,
    listing: &Listing,
    concerned: &[(&FetchedKey, &Result<Plan, Obstacle>)],
    args: &Args,
) -> Result<Output, CommandError> {
    let plan = MovePlan::of(wanted, &listing.keys, concerned.iter().copied());
    if let Some((fetched, Err(why))) = concerned.first().filter(|_| args.name.is_some()) {
        return Err(cannot_be_moved(fetched, why));
    }
    let mut output = Output::text(render(args.format, &plan, MovePlan::text)?);
    if args.format == Format::Table && !concerned.is_empty() {
        output.notes.push(
            "This is the plan; nothing was done. --output PATH does it and writes manifests for Git, --apply changes the cluster, and \
             both together do both."
                .to_owned(),
        );
    }
    if plan.items.iter().any(|item| item.error.is_some()) {
        output.health = Health::Unhealthy;
    }
    Ok(output)
}

fn cannot_be_moved(fetched: &FetchedKey, why: &Obstacle) -> CommandError {
    CommandError::NotReady(format!("{} in namespace {} cannot be moved: {why}", fetched.titled(), fetched.namespace()))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use serde_json::json;

    use super::*;
    use crate::fixtures::{edited, ready};

    const ARN: &str = "arn:aws:kms:eu-west-1:999999999999:key/99999999-12ab-34cd-56ef-1234567890ab";

    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn wanted_by(flags: &[&str]) -> Result<Move, CommandError> {
        let flags = ["rewrap", "--to-key-id", ARN].iter().chain(flags);
        wanted(&Cli::try_parse_from(flags).unwrap().args)
    }

    #[test]
    fn what_the_operator_would_refuse_shows_in_the_plan() {
        let wanted = wanted_by(&["orders"]).unwrap();
        let with_contexts_of = |bytes: usize| {
            let fetched = edited(ready(&(1..=30).collect::<Vec<_>>()), |value| {
                for version in value["status"]["versions"].as_array_mut().unwrap() {
                    version["request"]["encryptionContext"] = json!({ "purpose": "\"".repeat(bytes) });
                }
            });
            plan_of(&fetched, &wanted, &Owners::default()).map(|plan| plan.rewraps.len())
        };
        assert_eq!(with_contexts_of(1), Ok(30));
        let Err(Obstacle::Blocked(why)) = with_contexts_of(8000) else { panic!("it does not fit") };
        assert!(why.contains("bytes; at most"), "{why}");
    }

    #[test]
    fn several_objects_are_moved_from_one_kms_key() {
        for several in [&["-A"][..], &["-l", "team=shop"]] {
            assert!(wanted_by(several).is_ok(), "the plan");
            for does in ["--apply", "--output=moved"] {
                let refused = wanted_by(&[several, &[does]].concat()).unwrap_err().to_string();
                assert!(refused.contains("--from-key-id"), "{refused}");
                assert!(wanted_by(&[several, &[does, "--from-key-id", ARN]].concat()).is_ok());
            }
        }
        assert!(wanted_by(&["orders", "--apply"]).is_ok());
    }
}
