//! Objects by number, and the parts of a `DataKey` that change.

use std::{collections::HashMap, rc::Rc};

use datakey::api::{
    DeletionPolicy, EncryptionContext, IssuedVersion, KeyKind, RequestView, Rest, initial_status, truncate_to_seconds,
};
use k8s_openapi::{ByteString, apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};

use crate::{
    kind::{Key, Modeled as _, Parts},
    operator::now,
};

pub const KEY_NAME: &str = "k";

/// The number of an object. Equal objects have the same number, so that states are small and comparable.
pub type Id = u32;

/// The variant of a request to KMS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RequestVariant {
    First,
    OtherContext,
    OtherKey,
}

/// The parts of a `DataKey`'s spec that change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Spec {
    pub version: i32,
    pub delete: bool,
    pub variant: RequestVariant,
    pub pins: Pins,
}

/// The data keys that the spec pins, each with the variant of its request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pins([Option<(u8, RequestVariant)>; 2]);

/// Data keys by version, each as the number of the answer of KMS. The model has at most two versions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DataKeys([Option<u8>; 2]);

/// The properties of a `DataKey` that the model needs often.
#[derive(Clone, Copy)]
pub struct KeySummary {
    pub uid: u16,
    pub spec: Spec,
    pub record: DataKeys,
    /// Whether the rule of the definition holds that the recorded data key of the wanted version matches the spec.
    pub record_answers_spec: bool,
    /// Whether the rules of the definition hold that every pin agrees with the record, and that the pin of the wanted version
    /// matches the spec.
    pub pins_agree: bool,
}

/// Objects by number, each with its summary.
pub struct Interned<T, S> {
    objects: Vec<(Rc<T>, S)>,
    numbers: HashMap<String, Id>,
    summarize: fn(&T) -> S,
}

pub fn new_key(uid: u16, spec: Spec) -> Key {
    let mut key = Key::new(KEY_NAME, spec.whole());
    key.metadata.namespace = Some("n".into());
    key.metadata.uid = Some(format!("uid-{uid}"));
    key.metadata.generation = Some(spec.generation());
    key.metadata.creation_timestamp = Some(Time(created(uid)));
    key.status = Some(initial_status());
    key
}

/// The time when the `DataKey` of this uid is created, and its versions are issued.
fn created(uid: u16) -> Timestamp {
    Timestamp::from_second(now().as_second() + i64::from(uid)).unwrap()
}

fn wrapped(number: u8) -> ByteString {
    ByteString(format!("blob {number}").into_bytes())
}

/// A version that KMS issues for the `DataKey` of this uid, with these variant.
pub fn issued(uid: u16, version: i32, number: u8, variant: RequestVariant) -> IssuedVersion {
    IssuedVersion { issued_at: truncate_to_seconds(created(uid)), ..of_unknown_origin(version, number, variant) }
}

/// A version that is older than every `DataKey`.
fn of_unknown_origin(version: i32, number: u8, variant: RequestVariant) -> IssuedVersion {
    let spec = Spec { version, variant, ..Spec::FIRST };
    let request = Key::view(&spec.whole()).request.to_request().unwrap();
    IssuedVersion {
        version,
        key_id: request.key_id.clone(),
        request,
        ciphertext_blob: wrapped(number),
        public_key: Key::public_key(),
        key_material_id: None,
        issued_at: Time(Timestamp::UNIX_EPOCH),
        request_id: None,
        as_written: None,
        class: None,
        rest: Rest::new(),
    }
}

/// Whether the `DataKey` issued all that it records.
pub fn issued_all(key: &Key) -> bool {
    let uid = uid_number(key.metadata.uid.as_deref().unwrap());
    key.as_object().record().iter().all(|issued| issued.issued_at.0 == created(uid))
}

pub fn summarize_key(key: &Key) -> KeySummary {
    let object = key.as_object();
    let request = object.spec.request;
    let spec = Spec {
        version: object.wanted_version(),
        delete: object.spec.deletion_policy == DeletionPolicy::Delete,
        variant: RequestVariant::of_request(request),
        pins: Pins::of(object.spec.pins),
    };
    let record = Pins::of(object.record()).data_keys();
    let agrees = |(version, number)| record.get(version).is_none_or(|recorded| recorded == number);
    let answers = spec.pins.get(spec.version).is_none_or(|(_, variant)| variant == spec.variant);
    KeySummary {
        uid: uid_number(key.metadata.uid.as_deref().unwrap()),
        spec,
        record,
        record_answers_spec: object
            .recorded_version(spec.version)
            .is_none_or(|issued| issued.written().is_same_request(request)),
        pins_agree: answers && spec.pins.data_keys().iter().all(agrees),
    }
}

pub fn uid_number(uid: &str) -> u16 {
    uid.strip_prefix("uid-").unwrap().parse().unwrap()
}

// === impl RequestVariant ===

impl RequestVariant {
    pub fn key_id(self) -> &'static str {
        match self {
            Self::OtherKey => "arn:aws:kms:eu-west-1:111122223333:key/99999999-12ab-34cd-56ef-1234567890ab",
            _ => "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab",
        }
    }

    pub fn context(self) -> Option<EncryptionContext> {
        (self == Self::OtherContext).then(|| [("purpose".to_owned(), "other".to_owned())].into())
    }

    fn of_request(request: RequestView<'_>) -> Self {
        Self::of(request.key_id.unwrap(), request.encryption_context).unwrap()
    }

    pub fn of(key_id: &str, context: Option<&EncryptionContext>) -> Option<Self> {
        let context = context.filter(|context| !context.is_empty());
        [Self::First, Self::OtherContext, Self::OtherKey]
            .into_iter()
            .find(|known| known.key_id() == key_id && known.context().as_ref() == context)
    }
}

// === impl Spec ===

impl Spec {
    pub const FIRST: Self = Self { version: 1, delete: false, variant: RequestVariant::First, pins: Pins([None; 2]) };

    pub fn whole(self) -> <Key as KeyKind>::Spec {
        Key::whole(Parts {
            key_id: self.variant.key_id().to_owned(),
            encryption_context: self.variant.context(),
            version: self.version,
            deletion_policy: if self.delete { DeletionPolicy::Delete } else { DeletionPolicy::Retain },
            pins: self.pins.whole(),
        })
    }

    /// The generation. It is a function of the spec and not a count, because generations are only compared for equality.
    pub fn generation(self) -> i64 {
        let pinned =
            self.pins.0.map(|pin| pin.map_or(0, |(number, variant)| 1 + 3 * i64::from(number) + variant as i64));
        i64::from(self.version)
            + 4 * i64::from(self.delete)
            + 8 * i64::from(self.variant as u8)
            + 32 * pinned[0]
            + 4096 * pinned[1]
    }
}

// === impl Pins ===

impl Pins {
    /// The pins with all versions of a record.
    pub fn of(issued: &[IssuedVersion]) -> Self {
        let mut pins = Self::default();
        for issued in issued {
            let blob = std::str::from_utf8(&issued.ciphertext_blob.0).unwrap();
            let number = blob.strip_prefix("blob ").unwrap().parse().unwrap();
            pins.set(issued.version, number, RequestVariant::of_request(issued.request.view()));
        }
        pins
    }

    pub fn get(self, version: i32) -> Option<(u8, RequestVariant)> {
        self.0[DataKeys::slot(version)]
    }

    pub fn set(&mut self, version: i32, number: u8, variant: RequestVariant) {
        self.0[DataKeys::slot(version)] = Some((number, variant));
    }

    pub fn data_keys(self) -> DataKeys {
        DataKeys(self.0.map(|pin| pin.map(|(number, _)| number)))
    }

    fn whole(self) -> Vec<IssuedVersion> {
        let pin = |version| self.get(version).map(|(number, variant)| of_unknown_origin(version, number, variant));
        [1, 2].into_iter().filter_map(pin).collect()
    }
}

// === impl DataKeys ===

impl DataKeys {
    pub fn of(number: impl Fn(i32) -> Option<u8>) -> Self {
        Self([1, 2].map(number))
    }

    pub fn slot(version: i32) -> usize {
        usize::try_from(version).unwrap() - 1
    }

    pub fn get(self, version: i32) -> Option<u8> {
        self.0[Self::slot(version)]
    }

    pub fn set(&mut self, version: i32, number: u8) {
        self.0[Self::slot(version)] = Some(number);
    }

    pub fn iter(self) -> impl Iterator<Item = (i32, u8)> {
        [1, 2].into_iter().zip(self.0).filter_map(|(version, number)| Some((version, number?)))
    }

    pub fn is_empty(self) -> bool {
        self == Self::default()
    }

    /// Removes the data keys that none of `others` has.
    pub fn keep_only(&mut self, others: [Self; 2]) {
        for (slot, mine) in self.0.iter_mut().enumerate() {
            *mine = mine.filter(|_| others.iter().any(|other| other.0[slot] == *mine));
        }
    }

    /// The first version that `other` lacks, or has with other bytes.
    pub fn not_in(self, other: Self) -> Option<i32> {
        self.iter().find(|&(version, number)| other.get(version) != Some(number)).map(|(version, _)| version)
    }

    /// The numbers as a set of bits.
    pub fn bits(self) -> u64 {
        self.iter().fold(0, |bits, (_, number)| bits | 1 << number)
    }
}

// === impl Interned ===

impl<T: serde::Serialize, S: Copy> Interned<T, S> {
    pub fn new(summarize: fn(&T) -> S) -> Self {
        Self { objects: Vec::new(), numbers: HashMap::new(), summarize }
    }

    pub fn number(&mut self, object: T) -> Id {
        let text = serde_json::to_string(&object).unwrap();
        *self.numbers.entry(text).or_insert_with(|| {
            let id = Id::try_from(self.objects.len()).unwrap();
            let summary = (self.summarize)(&object);
            self.objects.push((Rc::new(object), summary));
            id
        })
    }

    pub fn object(&self, id: Id) -> Rc<T> {
        Rc::clone(&self.objects[id as usize].0)
    }

    pub fn summary(&self, id: Id) -> S {
        self.objects[id as usize].1
    }
}
