//! Objects by number, and the parts of a `DataKey` that change.

use std::{collections::HashMap, rc::Rc};

use datakey::api::{DeletionPolicy, IssuedVersion, KeyKind, initial_status, truncate_to_seconds};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};

use crate::{
    classes::CLASS_NAME,
    kind::{Key, Modeled as _, Parts},
    operator::now,
    requests::{AskAt, DataKeyAt, RequestVariant},
};

pub const KEY_NAME: &str = "k";

/// The number of an object. Equal objects have the same number, so that states are small and comparable.
pub type Id = u32;

/// The parts of a `DataKey`'s spec that change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Spec {
    pub version: i32,
    pub delete: bool,
    pub variant: RequestVariant,
    pub pins: Pins,
    /// Whether it names the class.
    pub in_class: bool,
}

/// The data keys that the spec pins, by version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pins([Option<DataKeyAt>; 2]);

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
    /// Whether exactly what came from pins is recorded as a rewrap of what they name.
    pub rewraps_are_as_pinned: bool,
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

/// A version that KMS issues for the `DataKey` of this uid.
pub fn issued(uid: u16, answer: DataKeyAt) -> IssuedVersion {
    answer.issued_at(truncate_to_seconds(created(uid)))
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
        in_class: object.spec.class_name.is_some(),
    };
    let record = Pins::of(object.record()).data_keys();
    let agrees = |(version, number)| record.get(version).is_none_or(|recorded| recorded == number);
    let answers = spec.pins.get(spec.version).is_none_or(|pin| pin.ask.written() == spec.variant);
    KeySummary {
        uid: uid_number(key.metadata.uid.as_deref().unwrap()),
        spec,
        record,
        record_answers_spec: object
            .recorded_version(spec.version)
            .is_none_or(|issued| issued.written().is_same_request(request)),
        pins_agree: answers && spec.pins.data_keys().iter().all(agrees),
        rewraps_are_as_pinned: object.record().iter().all(is_rewrap_as_pinned),
    }
}

/// Whether a recorded version is a rewrap of what its pin says, if it came from one: from the spec, or by a Secret that was written
/// for another `DataKey` with that pin. What KMS issued is no rewrap, also if it is pinned as one later.
fn is_rewrap_as_pinned(issued: &IssuedVersion) -> bool {
    let pin = DataKeyAt::of(issued).pin();
    issued.rewrap_of == pin.rewrap_of.filter(|_| issued.issued_at == pin.issued_at)
}

pub fn uid_number(uid: &str) -> u16 {
    uid.strip_prefix("uid-").unwrap().parse().unwrap()
}

// === impl Spec ===

impl Spec {
    pub const FIRST: Self =
        Self { version: 1, delete: false, variant: RequestVariant::First, pins: Pins([None; 2]), in_class: false };

    pub fn whole(self) -> <Key as KeyKind>::Spec {
        Key::whole(Parts {
            key_id: self.variant.key_id().to_owned(),
            class_name: self.in_class.then(|| CLASS_NAME.to_owned()),
            encryption_context: self.variant.context(),
            version: self.version,
            deletion_policy: if self.delete { DeletionPolicy::Delete } else { DeletionPolicy::Retain },
            pins: self.pins.whole(),
        })
    }

    /// The generation. It is a function of the spec and not a count, because generations are only compared for equality.
    pub fn generation(self) -> i64 {
        let [one, two] = self.pins.0.map(|pin| pin.map_or(0, |pin| 1 + Pins::ordinal(pin)));
        let flags = i64::from(self.version) + 4 * i64::from(self.delete) + 8 * self.variant as i64;
        flags + 32 * (one + 4096 * two)
    }
}

// === impl Pins ===

impl Pins {
    /// The pins with all versions of a record.
    pub fn of(issued: &[IssuedVersion]) -> Self {
        let mut pins = Self::default();
        for issued in issued {
            pins.set(DataKeyAt::of(issued));
        }
        pins
    }

    pub fn get(self, version: i32) -> Option<DataKeyAt> {
        self.0[DataKeys::slot(version)]
    }

    /// A pin says nothing of the class: what it says would not be used.
    pub fn set(&mut self, pin: DataKeyAt) {
        self.0[DataKeys::slot(pin.version)] = Some(pin.without_class());
    }

    pub fn iter(self) -> impl Iterator<Item = DataKeyAt> {
        self.0.into_iter().flatten()
    }

    pub fn data_keys(self) -> DataKeys {
        DataKeys(self.0.map(|pin| pin.map(|pin| pin.number)))
    }

    /// The entries of the spec.
    fn whole(self) -> Vec<IssuedVersion> {
        self.iter().map(DataKeyAt::pin).collect()
    }

    /// A number that no other pin of this version has.
    fn ordinal(pin: DataKeyAt) -> i64 {
        let DataKeyAt { number, ask: AskAt { request, as_written, .. }, key, .. } = pin;
        let as_written = as_written.map_or(0, |written| 1 + written as i64);
        ((i64::from(number) * 4 + request as i64) * 5 + as_written) * 3 + key as i64
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
