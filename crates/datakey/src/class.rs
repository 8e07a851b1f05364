//! Classes: what an object may ask of KMS, and what is filled in for it. Pure.
//!
//! The protocol asks here right before it calls KMS, before it records the answer, and before it records a pin or what a Secret
//! holds. What is recorded is never judged again.
//!
//! A class is judged by an ordered list of named checks ([`Check`]); the first one that fails is the refusal. A refusal names the
//! check and what the object may do. It never names an ARN that the object does not: the class can be that of other tenants, too.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};

use crate::{
    api::{
        ClassRef, ContextPair, DataKeyClassSpec, DataKeyClassStatus, IssuedVersion, KeyRequest, Mode, Object,
        ROLE_ASSUMED, Rest, ValueFrom, WrittenRequest, a_key_or_a_class,
    },
    decode::Encoded,
    reason::{Failure, Reason},
    text::printable,
};

mod checks;
mod flaws;
mod forms;
mod identity;
mod status;
#[cfg(test)]
mod tests;

pub use checks::Check;
pub use identity::{Identity, Role};
pub use status::{RoleOutcome, wanted_status};

use checks::{Case, Subject};

/// The class of an object without `className`, where classes are required.
pub const DEFAULT_CLASS: &str = "default";

/// The longest name of a class in a message, in characters.
const MAX_NAME: usize = 64;

/// A class as the operator uses it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Class {
    name: String,
    uid: String,
    generation: i64,
    spec: DataKeyClassSpec,
    flaw: Option<String>,
}

/// What an installation, and the class of one object, say about that object.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tenancy<'a> {
    /// Whether each object needs a class: one that names none is of the class `default`.
    pub is_required: bool,
    /// The class of the object.
    pub class: Lookup<'a>,
}

/// What is known of the class of an object.
#[derive(Clone, Copy, Debug, Default)]
pub enum Lookup<'a> {
    /// Classes are not listed yet.
    #[default]
    Unlisted,
    /// Classes cannot be listed, for this reason.
    Unavailable(&'a str),
    /// There is no class of that name.
    Absent,
    /// The class.
    Found(&'a Class),
}

/// Why an object may not have what it asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Its class is not known yet.
    NotYet,
    /// It is refused.
    Failed(Failure),
}

/// What is asked of KMS for one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// The request.
    pub request: KeyRequest,
    /// The request as the spec has it, where the class changed it.
    pub as_written: Option<WrittenRequest>,
    /// The class that allows it.
    pub class: Option<ClassRef>,
    /// With which AWS identity it is asked.
    pub identity: Identity,
}

// === impl Class ===

impl Class {
    /// The class of an object as the API server sends it.
    pub fn of(object: &Encoded) -> Self {
        let ObjectMeta { name, uid, generation, .. } = &object.metadata;
        let class = Self::new(
            name.as_deref().unwrap_or_default(),
            uid.as_deref().unwrap_or_default(),
            generation.unwrap_or_default(),
            object.decode_spec(),
        );
        class.without_a_lost_role(&object.decode_status().unwrap_or_default())
    }

    /// The class with a flaw if its condition says that it had a role, and its spec has none although nothing has changed it since: an
    /// older definition drops the field. The operator must not call KMS as itself then.
    fn without_a_lost_role(mut self, status: &DataKeyClassStatus) -> Self {
        let is_of_a_role = |condition: &Condition| {
            condition.type_ == ROLE_ASSUMED && status::is_of_this_state(condition, self.generation)
        };
        let had_a_role = status.conditions.iter().flatten().any(is_of_a_role);
        if had_a_role && self.spec.aws.is_none() {
            self.flaw.get_or_insert_with(|| {
                "spec.aws is missing, although this state of the class had a role: the installed definition drops it; install the \
                 definition of this release, and apply the class again"
                    .to_owned()
            });
        }
        self
    }

    /// A class from its parts. `spec`: what is decoded, or why it cannot be.
    pub fn new(name: &str, uid: &str, generation: i64, spec: Result<DataKeyClassSpec, String>) -> Self {
        let flaw = match &spec {
            Ok(spec) => flaws::flaw(spec),
            Err(why) => Some(why.clone()),
        };
        Self { name: name.to_owned(), uid: uid.to_owned(), generation, spec: spec.unwrap_or_default(), flaw }
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `metadata.uid` and `metadata.generation`: the state of the class.
    pub fn state(&self) -> (&str, i64) {
        (&self.uid, self.generation)
    }

    /// The spec; empty if it cannot be decoded.
    pub fn spec(&self) -> &DataKeyClassSpec {
        &self.spec
    }

    /// Why the class allows nothing, with the path of the field: it contradicts itself, or this release does not know all of it.
    pub fn flaw(&self) -> Option<&str> {
        self.flaw.as_deref()
    }

    /// Whether objects of a namespace may use the class.
    pub fn admits(&self, namespace: &str) -> bool {
        self.flaw.is_none() && self.lists(namespace)
    }

    /// Whether `namespaces` has a namespace.
    fn lists(&self, namespace: &str) -> bool {
        self.spec.namespaces.iter().any(|pattern| forms::matches(pattern, namespace))
    }

    fn reference(&self) -> ClassRef {
        ClassRef { name: self.name.clone(), uid: self.uid.clone(), generation: self.generation, rest: Rest::new() }
    }

    /// The request of an object with what this class fills in.
    fn fill_in(&self, object: Object<'_>) -> WrittenRequest {
        let spec = object.spec.request;
        let mut request = spec.to_written();
        if let Some(defaults) = &self.spec.defaults {
            if request.key_id.is_none() {
                request.key_id.clone_from(&defaults.key_id);
            }
            // An ARN names its Region.
            let is_arn = request.key_id.as_deref().is_some_and(|key_id| key_id.starts_with("arn:"));
            if request.region.is_none() && !is_arn {
                request.region.clone_from(&defaults.region);
            }
        }
        for pair in self.spec.encryption_context.iter().flat_map(|context| &context.pairs) {
            if pair.mode == Mode::Inject
                && let Some(value) = demanded_value(pair, object.metadata)
            {
                let context = request.encryption_context.get_or_insert_default();
                context.entry(pair.key.clone()).or_insert_with(|| value.to_owned());
            }
        }
        request
    }

    fn refusal(&self, (check, why): (Check, String)) -> Refusal {
        let name = printable(&self.name, MAX_NAME);
        Refusal::Failed(Failure::new(Reason::ClassRefused, format!("class {name}, check {}: {why}", check.name())))
    }
}

/// The value that a class demands of a pair in an object with these metadata; `None` for any value.
pub fn demanded_value<'a>(pair: &'a ContextPair, metadata: &'a ObjectMeta) -> Option<&'a str> {
    match (&pair.value, pair.value_from) {
        (Some(value), _) => Some(value),
        (None, Some(ValueFrom::Namespace)) => metadata.namespace.as_deref(),
        (None, Some(ValueFrom::Name)) => metadata.name.as_deref(),
        (None, None) => None,
    }
}

/// The name of the class of an object; `None` if no class applies.
pub fn class_name<'a>(object: impl Into<Object<'a>>, is_required: bool) -> Option<&'a str> {
    let default = is_required.then_some(DEFAULT_CLASS);
    object.into().spec.class_name.or(default)
}

// === impl Tenancy ===

impl<'a> Tenancy<'a> {
    /// What is asked of KMS for the wanted version of an object. `own_region`: that of the operator.
    ///
    /// # Errors
    /// Why nothing may be asked.
    pub fn ask(&self, object: Object<'_>, own_region: Option<&str>) -> Result<Ask, Refusal> {
        let written = object.spec.request;
        let incomplete = || Failure::new(Reason::SpecInvalid, a_key_or_a_class().message);
        let Some(class) = self.class_of(object)? else {
            let request = written.to_request().ok_or_else(|| Refusal::Failed(incomplete()))?;
            return Ok(Ask { request, as_written: None, class: None, identity: Identity::Operator });
        };
        let filled = class.fill_in(object);
        let judge = |subject| checks::judge(&Case { class, object, request: filled.view(), own_region, subject });
        judge(Subject::Question).map_err(|failed| class.refusal(failed))?;
        // The checks refuse a request without a key.
        let request = filled.view().to_request().ok_or_else(|| Refusal::Failed(incomplete()))?;
        let as_written = (!request.view().is_same_request(written)).then(|| written.to_written());
        let identity = class.identity(object.metadata.namespace.as_deref().unwrap_or_default());
        Ok(Ask { request, as_written, class: Some(class.reference()), identity })
    }

    /// Whether what KMS answered to this question may be recorded.
    ///
    /// # Errors
    /// Why it may not.
    pub fn judge_answer(
        &self,
        object: Object<'_>,
        own_region: Option<&str>,
        issued: &IssuedVersion,
    ) -> Result<(), Refusal> {
        let Some(class) = self.class_of(object)? else { return Ok(()) };
        let subject = Subject::Answer(&issued.key_id);
        let case = Case { class, object, request: issued.request.view(), own_region, subject };
        checks::judge(&case).map_err(|failed| class.refusal(failed))
    }

    /// With which identity KMS is asked about the KMS key of a recorded version.
    ///
    /// # Errors
    /// Why it may not be asked: the class that the object has now does not allow it.
    pub fn identity_for(
        &self,
        object: Object<'_>,
        own_region: Option<&str>,
        issued: &IssuedVersion,
    ) -> Result<Identity, Refusal> {
        let Some(class) = self.class_of(object)? else { return Ok(Identity::Operator) };
        self.judge_answer(object, own_region, issued)?;
        Ok(class.identity(object.metadata.namespace.as_deref().unwrap_or_default()))
    }

    /// Versions of pins or of a Secret as they may be recorded: with the class that allows them. What they say of themselves is a
    /// claim of the tenant, so nothing is filled in.
    ///
    /// # Errors
    /// Why one of them may not be recorded.
    pub fn admit(
        &self,
        object: Object<'_>,
        own_region: Option<&str>,
        versions: Vec<IssuedVersion>,
    ) -> Result<Vec<IssuedVersion>, Refusal> {
        let class = self.class_of(object)?;
        for version in &versions {
            let Some(class) = class else { break };
            let subject = Subject::Claim(&version.key_id);
            let case = Case { class, object, request: version.request.view(), own_region, subject };
            checks::judge(&case).map_err(|(check, why)| {
                class.refusal((check, format!("version {} of the pins or the Secret: {why}", version.version)))
            })?;
        }
        let allowed_by = class.map(Class::reference);
        Ok(versions.into_iter().map(|version| IssuedVersion { class: allowed_by.clone(), ..version }).collect())
    }

    /// The class of an object; `None` if none applies.
    fn class_of(&self, object: Object<'_>) -> Result<Option<&'a Class>, Refusal> {
        let Some(name) = class_name(object, self.is_required) else { return Ok(None) };
        let failed = |reason, detail: String| Err(Refusal::Failed(Failure::new(reason, detail)));
        match self.class {
            Lookup::Found(class) => Ok(Some(class)),
            Lookup::Unlisted => Err(Refusal::NotYet),
            Lookup::Unavailable(why) => failed(Reason::ClassesUnavailable, why.to_owned()),
            Lookup::Absent if object.spec.class_name.is_none() => {
                failed(Reason::ClassMissing, format!("the spec names none, and there is no class {DEFAULT_CLASS}"))
            }
            Lookup::Absent => failed(Reason::ClassNotFound, printable(name, MAX_NAME)),
        }
    }
}
