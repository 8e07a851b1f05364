//! What KMS is asked, in parts that are compared, and the data keys that it answers with.

use datakey::{
    api::{EncryptionContext, IssuedVersion, KeyKind as _, RequestView, Rest, RewrapOf},
    class::{Ask, Identity},
    protocol::{Record, Source, Unrecorded},
};
use k8s_openapi::{ByteString, apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};

use crate::{
    Model,
    classes::{Caller, ClassAt},
    kind::{Key, Modeled as _},
    objects::{self, Id, Spec},
    world::State,
};

/// The alias by which the first two variants name their KMS key.
const ALIAS: &str = "alias/k";

/// The variant of a request to KMS: one of two KMS keys, in one of two encryption contexts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RequestVariant {
    First,
    OtherContext,
    OtherKey,
    OtherKeyAndContext,
}

/// A KMS key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KmsKey {
    /// The one that the alias names.
    Usual,
    /// The one that the alias names after it was moved.
    Moved,
    /// The one that is named by its ARN.
    Other,
}

/// What KMS is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AskAt {
    pub request: RequestVariant,
    /// The variant of the spec, where the class changed it.
    pub as_written: Option<RequestVariant>,
    /// The class that allowed it.
    pub class: Option<ClassAt>,
    /// Who asks.
    pub caller: Caller,
}

/// A data key: the number of the answer of KMS, its version, what was asked, and the KMS key that wrapped it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DataKeyAt {
    pub number: u8,
    pub version: i32,
    pub ask: AskAt,
    pub key: KmsKey,
}

// === impl RequestVariant ===

impl RequestVariant {
    const ALL: [Self; 4] = [Self::First, Self::OtherContext, Self::OtherKey, Self::OtherKeyAndContext];

    pub fn key_id(self) -> &'static str {
        match self {
            Self::First | Self::OtherContext => ALIAS,
            Self::OtherKey | Self::OtherKeyAndContext => KmsKey::Other.arn(),
        }
    }

    /// The KMS key that it names, as long as the alias is not moved.
    pub fn key(self) -> KmsKey {
        self.key_now(false)
    }

    /// The KMS key that it names now.
    pub fn key_now(self, alias_moved: bool) -> KmsKey {
        match self.key_id() {
            ALIAS if alias_moved => KmsKey::Moved,
            ALIAS => KmsKey::Usual,
            _ => KmsKey::Other,
        }
    }

    pub fn has_other_context(self) -> bool {
        matches!(self, Self::OtherContext | Self::OtherKeyAndContext)
    }

    pub fn with_other_context(self) -> Self {
        match self {
            Self::First | Self::OtherContext => Self::OtherContext,
            Self::OtherKey | Self::OtherKeyAndContext => Self::OtherKeyAndContext,
        }
    }

    pub fn context(self) -> Option<EncryptionContext> {
        self.has_other_context().then(|| [("purpose".to_owned(), "other".to_owned())].into())
    }

    pub fn of_request(request: RequestView<'_>) -> Self {
        let same = |known: &Self| known.key_id() == request.key_id.unwrap();
        Self::ALL.into_iter().filter(same).find(|known| known.has_context(request.encryption_context)).unwrap()
    }

    /// The variant of a data key that this KMS key wrapped in this encryption context.
    pub fn of_answer(key: KmsKey, context: &EncryptionContext) -> Option<Self> {
        let same = |known: &Self| (known.key() == KmsKey::Other) == (key == KmsKey::Other);
        Self::ALL.into_iter().filter(same).find(|known| known.has_context(Some(context)))
    }

    fn has_context(self, context: Option<&EncryptionContext>) -> bool {
        self.context().as_ref() == context.filter(|context| !context.is_empty())
    }
}

// === impl KmsKey ===

impl KmsKey {
    pub fn arn(self) -> &'static str {
        match self {
            Self::Usual => "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab",
            Self::Moved => "arn:aws:kms:eu-west-1:111122223333:key/55555555-12ab-34cd-56ef-1234567890ab",
            Self::Other => "arn:aws:kms:eu-west-1:111122223333:key/99999999-12ab-34cd-56ef-1234567890ab",
        }
    }

    pub fn of(arn: &str) -> Option<Self> {
        [Self::Usual, Self::Moved, Self::Other].into_iter().find(|known| known.arn() == arn)
    }
}

// === impl AskAt ===

impl AskAt {
    pub fn of(ask: &Ask) -> Self {
        let Ask { request, as_written, class, identity } = ask;
        Self {
            request: RequestVariant::of_request(request.view()),
            as_written: as_written.as_ref().map(|written| RequestVariant::of_request(written.view())),
            class: class.as_ref().map(ClassAt::of),
            caller: Caller::of(identity),
        }
    }

    /// What is asked for a spec where no class applies.
    pub fn without_class(request: RequestVariant) -> Self {
        Self { request, as_written: None, class: None, caller: Caller::Operator }
    }

    /// The variant of the spec.
    pub fn written(self) -> RequestVariant {
        self.as_written.unwrap_or(self.request)
    }
}

// === impl DataKeyAt ===

impl DataKeyAt {
    pub fn of(issued: &IssuedVersion) -> Self {
        let blob = std::str::from_utf8(&issued.ciphertext_blob.0).unwrap();
        let IssuedVersion { version, request, as_written, class, .. } = issued;
        let (request, as_written, class) = (request.clone(), as_written.clone(), class.clone());
        Self {
            number: blob.strip_prefix("blob ").unwrap().parse().unwrap(),
            version: *version,
            // The record does not say who asked.
            ask: AskAt::of(&Ask { request, as_written, class, identity: Identity::Operator }),
            key: KmsKey::of(&issued.key_id).unwrap(),
        }
    }

    /// The same data key as a pin has it, which may say anything of the class.
    pub fn without_class(self) -> Self {
        Self { ask: AskAt { class: None, ..self.ask }, ..self }
    }

    /// The entry of the spec. Its time is older than every `DataKey`. Each pin of the second version says that it is a rewrap of the
    /// first one, also if KMS issued it, whatever the record says.
    pub fn pin(self) -> IssuedVersion {
        let rewrap_of = (self.version == 2).then(|| RewrapOf { version: 1, request_id: None, rest: Rest::new() });
        IssuedVersion { rewrap_of, ..self.issued_at(Time(Timestamp::UNIX_EPOCH)) }
    }

    /// The entry of a record.
    pub fn issued_at(self, issued_at: Time) -> IssuedVersion {
        let Self { number, version, ask: AskAt { request, as_written, class, .. }, key } = self;
        let spec = |variant| Spec { variant, ..Spec::FIRST }.whole();
        IssuedVersion {
            version,
            key_id: key.arn().to_owned(),
            request: Key::view(&spec(request)).request.to_request().unwrap(),
            ciphertext_blob: ByteString(format!("blob {number}").into_bytes()),
            public_key: Key::public_key(),
            key_material_id: None,
            issued_at,
            request_id: None,
            rewrap_of: None,
            as_written: as_written.map(|written| Key::view(&spec(written)).request.to_written()),
            class: class.map(ClassAt::reference),
            rest: Rest::new(),
        }
    }
}

impl Model {
    /// The answer of KMS to what it is asked for the `DataKey`.
    pub fn answer(&self, state: &State, id: Id, ask: AskAt) -> DataKeyAt {
        let (number, version) = (self.fresh(state), self.key_summary(id).spec.version);
        DataKeyAt { number, version, ask, key: ask.request.key_now(state.alias_moved) }
    }

    pub fn issued(&self, id: Id, answer: DataKeyAt) -> IssuedVersion {
        objects::issued(self.key_summary(id).uid, answer)
    }

    /// The same with who asked, as the operator keeps it until it is recorded.
    pub fn unrecorded(&self, id: Id, answer: DataKeyAt) -> Unrecorded {
        Unrecorded { version: self.issued(id, answer), identity: answer.ask.caller.identity() }
    }

    /// The `DataKey` with the answer of KMS in its record.
    pub fn recorded(&self, id: Id, answer: DataKeyAt) -> Id {
        let record = Record { versions: vec![self.issued(id, answer)], source: Source::Kms };
        self.with_status(id, Some(record.status(&*self.key(id))))
    }
}
