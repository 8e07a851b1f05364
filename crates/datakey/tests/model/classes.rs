//! The class that the objects name: how it changes, what an operator sees of it, and what it allows. What it allows is written
//! here once more, apart from the protocol.

use std::collections::BTreeMap;

use datakey::{
    api::{ClassRef, IssuedVersion, KeyKind as _, Rest},
    class::{Class, Identity, Lookup, Role, Tenancy},
    protocol::Answer,
};
use serde_json::{Value, json};

use crate::{
    Model, Violation,
    environment::Successors,
    mutants::Mutant,
    objects::Id,
    operator::Decision,
    requests::{AskAt, DataKeyAt, KmsKey, RequestVariant},
    world::{Action, Operator, Run, State},
};

pub const CLASS_NAME: &str = "c";

const ROLE: &str = "arn:aws:iam::111122223333:role/c";

/// What a class says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Terms {
    /// It allows both KMS keys.
    Open,
    /// It allows the one that is named by its ARN.
    Narrow,
    /// It allows both to a role, and adds the pair that makes the other encryption context.
    Injecting,
    /// It says what `Open` says, and something that this release does not know.
    Invalid,
}

/// The class at one of its states.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClassAt {
    pub terms: Terms,
    /// How often a class of this name was deleted before.
    pub uid: u8,
}

/// Who asks KMS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Caller {
    Operator,
    /// The role of the class, which the operator assumes.
    Role,
}

/// What an operator sees of the class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ClassView {
    /// It has not listed classes yet.
    #[default]
    Unlisted,
    /// It may not list classes.
    Unavailable,
    Absent,
    Found(ClassAt),
}

// === impl Terms ===

impl Terms {
    const ALL: [Self; 4] = [Self::Open, Self::Narrow, Self::Injecting, Self::Invalid];

    /// The spec of the class.
    pub fn spec(self) -> Value {
        let (usual, other) = (KmsKey::Usual.arn(), KmsKey::Other.arn());
        let alias = RequestVariant::First.key_id();
        let entry = match self {
            Self::Narrow => json!({ "keyIds": [other], "keyArns": [other] }),
            Self::Open | Self::Injecting | Self::Invalid => {
                json!({ "keyIds": [alias, other], "keyArns": [usual, other] })
            }
        };
        let mut spec = json!({ "namespaces": ["n"], "allow": [entry] });
        match self {
            Self::Injecting => {
                let pairs = json!([{ "key": "purpose", "value": "other", "mode": "Inject" }]);
                spec["encryptionContext"] = json!({ "pairs": pairs });
                spec["aws"] = json!({ "roleArn": ROLE });
            }
            Self::Invalid => spec["newer"] = json!(true),
            Self::Open | Self::Narrow => {}
        }
        spec
    }

    /// What KMS may be asked for a spec.
    fn request_for(self, written: RequestVariant) -> Option<RequestVariant> {
        match self {
            Self::Open => Some(written),
            Self::Narrow => Some(written).filter(|written| written.key() == KmsKey::Other),
            Self::Injecting => Some(written.with_other_context()),
            Self::Invalid => None,
        }
    }

    /// Who asks KMS.
    fn caller(self) -> Caller {
        if self == Self::Injecting { Caller::Role } else { Caller::Operator }
    }

    /// Whether this KMS key may have wrapped a data key.
    fn allows_key(self, key: KmsKey) -> bool {
        match self {
            Self::Open | Self::Injecting => key != KmsKey::Moved,
            Self::Narrow => key == KmsKey::Other,
            Self::Invalid => false,
        }
    }
}

// === impl ClassAt ===

impl ClassAt {
    pub fn of(reference: &ClassRef) -> Self {
        assert_eq!(reference.name, CLASS_NAME);
        let terms = Terms::ALL.into_iter().find(|terms| *terms as i64 == reference.generation).unwrap();
        Self { terms, uid: reference.uid.strip_prefix("class-").unwrap().parse().unwrap() }
    }

    pub fn reference(self) -> ClassRef {
        let (uid, generation) = self.identity();
        ClassRef { name: CLASS_NAME.to_owned(), uid, generation, rest: Rest::new() }
    }

    /// The class with this spec, as the operator decodes it.
    pub fn with_spec(self, spec: Value) -> Class {
        let (uid, generation) = self.identity();
        Class::new(CLASS_NAME, &uid, generation, serde_json::from_value(spec).map_err(|error| error.to_string()))
    }

    /// The uid and the generation. The generation is a function of the terms and not a count, because states of a class are only
    /// compared for equality.
    fn identity(self) -> (String, i64) {
        (format!("class-{}", self.uid), self.terms as i64)
    }
}

// === impl Caller ===

impl Caller {
    pub fn of(identity: &Identity) -> Self {
        if identity.role().is_some() { Self::Role } else { Self::Operator }
    }

    pub fn identity(self) -> Identity {
        match self {
            Self::Operator => Identity::Operator,
            Self::Role => {
                let at = ClassAt { terms: Terms::Injecting, uid: 0 };
                let role = Role {
                    arn: ROLE.to_owned(),
                    external_id: None,
                    tags: BTreeMap::new(),
                    namespace: "n".to_owned(),
                    class: at.reference(),
                };
                Identity::Role(Box::new(role))
            }
        }
    }
}

// === impl ClassView ===

impl ClassView {
    pub fn found(self) -> Option<ClassAt> {
        if let Self::Found(at) = self { Some(at) } else { None }
    }

    /// The same as the protocol takes it.
    pub fn tenancy(self, class: Option<&Class>) -> Tenancy<'_> {
        let lookup = match self {
            Self::Unlisted => Lookup::Unlisted,
            Self::Unavailable => Lookup::Unavailable("no definition"),
            Self::Absent => Lookup::Absent,
            Self::Found(_) => Lookup::Found(class.unwrap()),
        };
        Tenancy { is_required: false, class: lookup }
    }

    /// What KMS may be asked for a spec.
    pub fn request_for(self, written: RequestVariant) -> Option<RequestVariant> {
        self.found()?.terms.request_for(written)
    }

    pub fn allows_key(self, key: KmsKey) -> bool {
        self.found().is_some_and(|at| at.terms.allows_key(key))
    }

    /// Who asks KMS.
    pub fn caller(self) -> Caller {
        self.found().map_or(Caller::Operator, |at| at.terms.caller())
    }

    /// Whether KMS's answer for a spec may be recorded.
    pub fn allows_answer(self, written: RequestVariant, answer: DataKeyAt) -> bool {
        self.request_for(written) == Some(answer.ask.request) && self.allows_key(answer.key)
    }

    /// Whether a data key of a pin or of a Secret may be recorded. Nothing is filled in for it.
    pub fn allows_claim(self, claim: DataKeyAt) -> bool {
        let has_the_pairs = |at: ClassAt| at.terms != Terms::Injecting || claim.ask.request.has_other_context();
        self.found().is_some_and(has_the_pairs) && self.allows_key(claim.key)
    }
}

impl Model {
    /// Whether the objects name a class.
    pub fn has_class(&self) -> bool {
        self.budget.class > 0 || self.budget.unusable > 0 || self.budget.alias > 0
    }

    /// What an operator with a current cache sees of the class.
    pub fn class_in_view(&self, state: &State) -> ClassView {
        match state.class {
            Some(at) => ClassView::Found(at),
            None if self.has_class() => ClassView::Absent,
            None => ClassView::Unlisted,
        }
    }

    /// Changes, deletes or creates the class, and moves the alias of the KMS key.
    pub fn change_class(state: &State, next: &mut Successors) {
        if let Some(mut moved) = state.spend(|budget| &mut budget.alias).filter(|_| !state.alias_moved) {
            moved.alias_moved = true;
            next.push((Action::MoveAlias, moved));
        }
        let uid = state.class.map_or(state.classes_deleted, |at| at.uid);
        let mut change = |changed: Option<State>, terms: &[Terms]| {
            for (changed, terms) in changed.iter().flat_map(|changed| terms.iter().map(move |terms| (changed, *terms)))
            {
                let class = Some(ClassAt { terms, uid });
                if class != state.class {
                    next.push((Action::ChangeClass, State { class, ..changed.clone() }));
                }
            }
        };
        change(state.spend(|budget| &mut budget.class), &[Terms::Open, Terms::Narrow, Terms::Injecting]);
        let unusable = state.spend(|budget| &mut budget.unusable);
        change(unusable.clone(), &[Terms::Invalid]);
        if let (Some(unusable), Some(at)) = (unusable, state.class) {
            let deleted = State { class: None, classes_deleted: at.uid + 1, ..unusable };
            let again = State { class: Some(ClassAt { uid: at.uid + 1, ..at }), ..deleted.clone() };
            next.extend([(Action::DeleteClass, deleted), (Action::RecreateClass, again)]);
        }
    }

    /// Brings an operator's view of the class up to date: it looks at it before every step.
    pub fn sync_class(&self, state: &State, who: usize, operator: &Operator, next: &mut Successors) {
        let mut see = |mut state: State, class: ClassView, action: Action| {
            state.operators[who].class = class;
            next.push((action, state));
        };
        let current = self.class_in_view(state);
        // Once the class stays as it is, it is enough that the operator sees it when its next step depends on it. A mutant can
        // decide without it.
        let can_change = state.budget.class + state.budget.unusable > 0 || self.mutant != Mutant::None;
        if operator.class != current && (can_change || self.depends_on_class(operator, current)) {
            see(state.clone(), current, Action::SyncClass);
        }
        if operator.class == ClassView::Unlisted
            && let Some(refused) = state.spend(|budget| &mut budget.unusable)
        {
            see(refused, ClassView::Unavailable, Action::RefuseClasses);
        }
    }

    /// Whether the next step of an operator is another one under this class.
    fn depends_on_class(&self, operator: &Operator, class: ClassView) -> bool {
        let Some(run) = operator.run.or_else(|| Self::start(operator)) else { return false };
        let next = |class| match self.decide(&run, class) {
            Decision::AcquirePermit => self.decide(&self.learned(run, Answer::Permit), class),
            decision => decision,
        };
        next(operator.class) != next(class)
    }

    /// Checks what KMS is asked.
    pub fn may_ask(&self, run: &Run, class: ClassView, ask: AskAt) -> Result<(), Violation> {
        let written = self.key_summary(run.object().object).spec.variant;
        let is_allowed = class.request_for(written) == Some(ask.request);
        match self.has_class() {
            true if !is_allowed => Err(format!("KMS is asked for {:?}, which the class does not allow", ask.request)),
            false if ask.request != written => Err("KMS is asked for something else than the spec says".to_owned()),
            _ if ask.written() != written => Err("what KMS is asked does not say what the spec says".to_owned()),
            _ if ask.class != class.found() => Err("KMS is asked by another class".to_owned()),
            _ if ask.caller != class.caller() => {
                Err("KMS is asked by another identity than that of the class".to_owned())
            }
            _ => Ok(()),
        }
    }

    /// Checks the answer of KMS that is recorded.
    pub fn may_record_answer(&self, run: &Run, class: ClassView, to: Id) -> Result<(), Violation> {
        let (spec, answer) = (self.key_summary(run.object().object).spec, run.unrecorded_answer());
        if answer.is_some_and(|answer| answer.ask.caller != class.caller()) {
            return Err("an answer is recorded that another identity asked for".to_owned());
        }
        let is_allowed = |new: DataKeyAt| class.allows_answer(spec.variant, new);
        for new in self.new_versions(run, class, to, is_allowed)? {
            // The class can allow the same in another state by now.
            let asked = |answer: &DataKeyAt| AskAt { request: answer.ask.request, ..new.ask };
            if answer.map(|answer| DataKeyAt { ask: asked(answer), ..*answer }) != Some(new) {
                return Err("the record differs from what KMS was asked and answered".to_owned());
            }
        }
        Ok(())
    }

    /// Checks what is recorded of pins and of the Secret.
    pub fn may_record_claims(&self, run: &Run, class: ClassView, to: Id) -> Result<(), Violation> {
        self.new_versions(run, class, to, |new| class.allows_claim(new)).map(drop)
    }

    /// The versions that the record does not have yet. The class must allow each, and be named by it.
    fn new_versions(
        &self,
        run: &Run,
        class: ClassView,
        to: Id,
        is_allowed: impl Fn(DataKeyAt) -> bool,
    ) -> Result<Vec<DataKeyAt>, Violation> {
        let (before, after) = (self.key(run.object().object), self.key(to));
        let is_new = |issued: &&IssuedVersion| !before.as_object().record().contains(issued);
        let new: Vec<_> = after.as_object().record().iter().filter(is_new).map(DataKeyAt::of).collect();
        if let Some(refused) = new.iter().find(|new| self.has_class() && !is_allowed(**new)) {
            return Err(format!("version {} is recorded, which the class does not allow", refused.version));
        }
        if new.iter().any(|new| new.ask.class != class.found()) {
            return Err("the record names another class than the one that allows it".to_owned());
        }
        Ok(new)
    }
}
