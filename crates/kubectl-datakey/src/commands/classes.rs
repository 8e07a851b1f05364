//! `kubectl datakey classes`: which classes a namespace, or one object, may use, what they allow, and why not.

use super::{
    Items,
    check::{SeenOperator, seen_operator},
};
use crate::{
    cli::Classes,
    cluster::{Cluster, FetchedClass, FetchedKey},
    output::{CommandError, Health, Output, render_list},
    reference::qualified_class,
    view::class_summary::{ClassSummary, Place, Usable},
};

mod text;

use text::{describe, render_table};

/// What is printed instead of classes where there is no definition of them.
pub(super) const NO_DEFINITION: &str = "This cluster has no DataKeyClasses: their definition is not installed.";

/// Shows classes, as they are for a namespace or for one object.
pub async fn run(cluster: &Cluster, args: &Classes) -> Result<Output, CommandError> {
    let fetched = match &args.object {
        Some(reference) => Some(cluster.resolve(reference).await?),
        None => None,
    };
    let own = fetched.as_ref().and_then(|fetched| fetched.key.object().spec.class_name);
    let Found { classes, is_complete } = match &args.names[..] {
        [] => list(cluster, own).await?,
        names => Found { classes: cluster.named_classes(names).await?, is_complete: false },
    };
    let has_definition = classes.is_some();
    let classes = classes.unwrap_or_default();
    let operator = seen_operator(cluster).await;
    let place = Place {
        namespace: &cluster.namespace,
        object: fetched.as_ref().map(|fetched| fetched.key.object()),
        region: operator.as_ref().and_then(|operator| operator.region.as_deref()),
    };
    let items: Vec<_> = classes.iter().map(|class| ClassSummary::of(class, place)).collect();
    let mut notes = Vec::new();
    if !has_definition {
        notes.push(NO_DEFINITION.to_owned());
    } else if items.is_empty() {
        notes.push("No DataKeyClasses found.".to_owned());
    }
    notes.extend(operator.as_ref().map(|operator| about_the_operator(operator, &items, is_complete)));
    let own = fetched.as_ref().map(|fetched| Own::of(fetched, operator.as_ref()));
    notes.extend(own.iter().flat_map(|own| own.notes(&items, is_complete)));
    let health = own.map_or(Health::Healthy, |own| own.health(&items, is_complete));
    let marks_default = operator.is_none_or(|operator| operator.requires_classes);
    let out = render_list(
        args.output,
        &Items { items },
        |list, is_wide| {
            if is_wide || !args.names.is_empty() {
                let target = fetched.as_ref().map_or_else(String::new, |fetched| format!(" for {}", fetched.shown()));
                let target = format!("{target} in namespace {}", cluster.namespace);
                list.items.iter().map(|item| describe(item, &target, marks_default)).collect::<Vec<_>>().join("\n")
            } else {
                render_table(&list.items, marks_default)
            }
        },
        |list| list.items.iter().map(|item| qualified_class(&item.name)).collect(),
    )?;
    Ok(Output { notes, ..Output::text(out).with(health) })
}

/// The classes that were read.
struct Found {
    /// `None` if the cluster has no definition of them.
    classes: Option<Vec<FetchedClass>>,
    /// Whether these are all.
    is_complete: bool,
}

/// Lists the classes. A user who may not can have the right on the class of the object, which then is the only one.
async fn list(cluster: &Cluster, own: Option<&str>) -> Result<Found, CommandError> {
    match (cluster.classes().await, own) {
        (Err(CommandError::Forbidden(why)), Some(own)) => {
            let named = cluster.named_classes(&[own]).await.map_err(|error| match error {
                CommandError::Forbidden(_) => CommandError::Forbidden(why),
                error => error,
            });
            Ok(Found { classes: named?, is_complete: false })
        }
        (listed, _) => Ok(Found { classes: listed?, is_complete: true }),
    }
}

/// Whether the operator requires a class, and what an object without one is then.
fn about_the_operator(operator: &SeenOperator, items: &[ClassSummary], is_complete: bool) -> String {
    let has_default = items.iter().any(|item| item.default);
    let text = match (operator.requires_classes, has_default, is_complete) {
        (false, ..) => {
            "note: the operator requires no class (--classes=optional): an object without spec.className may use any KMS key of the \
             operator"
        }
        (true, false, true) => {
            "note: the operator requires a class: there is no class default, so each object must name one in spec.className"
        }
        (true, ..) => "note: the operator requires a class: an object without spec.className is of the class default",
    };
    text.to_owned()
}

/// The class of the object that is judged.
struct Own<'a> {
    fetched: &'a FetchedKey,
    /// Its name; `None` if the object names none and needs none, as far as is known.
    name: Option<&'a str>,
}

// === impl Own ===

impl<'a> Own<'a> {
    fn of(fetched: &'a FetchedKey, operator: Option<&SeenOperator>) -> Self {
        let is_required = operator.is_some_and(|operator| operator.requires_classes);
        Self { fetched, name: datakey::class::class_name(fetched.key.object(), is_required) }
    }

    fn notes(&self, items: &[ClassSummary], is_complete: bool) -> Vec<String> {
        let Self { fetched, name } = self;
        let titled = fetched.titled();
        let of_the_class = match (fetched.key.object().spec.class_name, name) {
            (Some(name), _) => format!("note: {titled} is of the class {name}"),
            (None, Some(name)) => format!("note: {titled} names no class, so it is of the class {name}"),
            (None, None) => format!("note: {titled} names no class; the classes are judged as if it named them"),
        };
        let is_gone = is_complete && name.is_some_and(|name| items.iter().all(|item| item.name != name));
        let of_the_class = of_the_class + if is_gone { ", and there is no such class" } else { "" };
        let version = fetched.key.wanted_version();
        let issued = fetched.key.recorded_version(version).map(|_| {
            format!(
                "note: version {version} of {} is issued and not judged again; this is about a further one",
                fetched.shown()
            )
        });
        std::iter::once(of_the_class).chain(issued).collect()
    }

    /// Whether its class allows it.
    fn health(&self, items: &[ClassSummary], is_complete: bool) -> Health {
        let Some(name) = self.name else { return Health::Healthy };
        match items.iter().find(|item| item.name == name).map(|item| item.usable) {
            Some(Usable::Unknown) => Health::Unknown,
            Some(Usable::No) => Health::Unhealthy,
            None if is_complete => Health::Unhealthy,
            Some(Usable::Yes) | None => Health::Healthy,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fixtures::{class, edited, ready, recorded};

    fn summaries(names: &[&str], object: Option<&FetchedKey>) -> Vec<ClassSummary> {
        let place = Place { namespace: "shop", object: object.map(|fetched| fetched.key.object()), region: None };
        names.iter().map(|name| ClassSummary::of(&class(name, |_| {}), place)).collect()
    }

    fn operator(requires_classes: bool) -> SeenOperator {
        SeenOperator { requires_classes, region: None }
    }

    #[test]
    fn note_says_whether_a_class_is_required() {
        let note = |required, names: &[&str], is_complete| {
            about_the_operator(&operator(required), &summaries(names, None), is_complete)
        };
        assert!(note(true, &["default"], true).ends_with("is of the class default"));
        assert!(note(true, &["shop"], true).contains("there is no class default"));
        assert!(note(true, &["shop"], false).ends_with("is of the class default"), "only some were read");
        assert!(note(false, &["shop"], true).contains("requires no class"));
    }

    #[test]
    fn own_class_decides_the_exit_code() {
        let of_class = |name: Option<&str>, key_id: &str| {
            edited(recorded(&[]), |value| {
                value["spec"]["className"] = json!(name);
                value["spec"]["keyId"] = json!(key_id);
            })
        };
        let health = |fetched: &FetchedKey, required, names: &[&str], is_complete| {
            Own::of(fetched, Some(&operator(required))).health(&summaries(names, Some(fetched)), is_complete)
        };
        let (allowed, refused) = (of_class(Some("shop"), "alias/shop"), of_class(Some("shop"), "alias/other"));
        assert_eq!(health(&allowed, false, &["other", "shop"], true), Health::Healthy);
        assert_eq!(health(&refused, false, &["other", "shop"], true), Health::Unhealthy);
        assert_eq!(health(&allowed, false, &["other"], true), Health::Unhealthy, "it is gone");
        assert_eq!(health(&allowed, false, &["other"], false), Health::Healthy, "it was not asked for");
        let unnamed = of_class(None, "alias/other");
        assert_eq!(health(&unnamed, false, &["default"], true), Health::Healthy);
        assert_eq!(health(&unnamed, true, &["default"], true), Health::Unhealthy);
    }

    #[test]
    fn notes_name_the_class_of_the_object() {
        let notes = |fetched: &FetchedKey, required| {
            Own::of(fetched, Some(&operator(required))).notes(&summaries(&["shop"], Some(fetched)), true)
        };
        let named = edited(ready(&[1]), |value| value["spec"]["className"] = json!("shop"));
        assert_eq!(
            notes(&named, true),
            [
                "note: DataKey orders is of the class shop",
                "note: version 1 of orders is issued and not judged again; this is about a further one"
            ]
        );
        let gone = edited(recorded(&[]), |value| value["spec"]["className"] = json!("none"));
        assert_eq!(notes(&gone, true), ["note: DataKey orders is of the class none, and there is no such class"]);
        let unnamed = notes(&recorded(&[]), true);
        assert_eq!(
            unnamed,
            ["note: DataKey orders names no class, so it is of the class default, and there is no such class"]
        );
        assert!(notes(&recorded(&[]), false)[0].ends_with("as if it named them"));
    }

    #[test]
    fn classes_are_printed_as_recorded() {
        let items = summaries(&["default", "shop"], None);
        let list = Items { items };
        insta::assert_snapshot!("classes-json", crate::output::json(&list).unwrap());
        insta::assert_snapshot!("classes-yaml", crate::output::yaml(&list).unwrap());
    }
}
