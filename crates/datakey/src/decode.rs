//! Decoding of objects from the API server. Each object is decoded separately, so that one that cannot be decoded does not
//! fail the list that it is in; of such an object the operator keeps the reason.

use std::collections::BTreeMap;

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use kube::core::ObjectMeta;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{DeserializeOwned, IgnoredAny},
};
use serde_json::value::RawValue;

use crate::{
    api::{Conditions, KeyKind, Kind, SpecView},
    condition,
    reason::{Failure, Reason},
    text::printable,
};
use marks::Marks;

mod marks;

/// The largest total of unknown fields in a spec, in bytes: they are kept in memory.
const MAX_UNKNOWN: usize = 64 * 1024;

/// The longest path of a field in a message, in characters: a key of a map can be long.
const MAX_PATH: usize = 200;

/// An object whose spec and status are not decoded yet. They are kept as text: one that is nested too deeply, or has another
/// type, must not fail the whole list. Unused metadata are skipped.
#[derive(Clone, Debug)]
pub struct Encoded {
    /// The metadata that the operator uses.
    pub metadata: ObjectMeta,
    spec: Option<Box<RawValue>>,
    status: Option<Box<RawValue>>,
}

/// An object as the API server sends it.
#[derive(Deserialize)]
struct Wire {
    metadata: Identity,
    #[serde(default)]
    spec: Option<Box<RawValue>>,
    #[serde(default)]
    status: Option<Box<RawValue>>,
}

/// The metadata that the operator uses.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Identity {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    generation: Option<i64>,
    #[serde(default, deserialize_with = "any_time")]
    creation_timestamp: Option<Time>,
    #[serde(default, deserialize_with = "any_time")]
    deletion_timestamp: Option<Time>,
    #[serde(default)]
    labels: Option<Marks>,
    #[serde(default)]
    annotations: Option<Marks>,
}

/// Why an object cannot be decoded, and its status as the API server sent it.
#[derive(Clone, Debug)]
pub struct Unreadable {
    /// The path of the field, and what is expected there. Never its value.
    why: Box<str>,
    status: Option<Box<RawValue>>,
}

/// What can be read of an object that cannot be decoded as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remains {
    /// The name of its Secret, where the spec or the status names one.
    pub secret_name: Option<String>,
    /// Whether its record can hold a data key or a key pair.
    pub may_have_record: bool,
}

/// A spec or status with every field as text.
type RawFields = BTreeMap<String, Box<RawValue>>;

/// A status with every field as text, so that all fields except the conditions and the observed generation are written back
/// byte for byte.
pub type RawStatus = RawFields;

/// Decodes a time of which only the presence matters; one that the Rust type cannot hold becomes the largest one.
fn any_time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Time>, D::Error> {
    let time = Option::<String>::deserialize(deserializer)?;
    Ok(time.map(|time| Time(time.parse().unwrap_or(Timestamp::MAX))))
}

// === impl Encoded ===

impl Encoded {
    /// The decoded object.
    ///
    /// # Errors
    /// Why it cannot be decoded.
    pub fn decode<K: KeyKind>(&self) -> Result<K, Unreadable> {
        let Self { metadata, spec, status } = self;
        let object = part::<K::Spec>("spec", spec.as_deref())
            .and_then(|spec| if knows_enough(K::view(&spec)) { Ok(spec) } else { Err(too_much_unknown()) })
            .and_then(|spec| {
                let status = status.as_deref().map(|raw| part("status", Some(raw))).transpose()?;
                Ok(K::new(metadata.clone(), spec, status))
            });
        object.map_err(|why| Unreadable { why: why.into(), status: status.clone() })
    }

    /// The spec alone.
    ///
    /// # Errors
    /// Why it cannot be decoded.
    pub fn decode_spec<T: DeserializeOwned>(&self) -> Result<T, String> {
        part("spec", self.spec.as_deref())
    }

    /// The status alone; `None` where there is none, or it cannot be decoded.
    pub fn decode_status<T: DeserializeOwned>(&self) -> Option<T> {
        serde_json::from_str(self.status.as_deref()?.get()).ok()
    }

    /// What can be read of it, if it cannot be decoded as a whole. The name of its Secret stays reserved for it then, so the fields
    /// that decide about that are read by themselves.
    pub fn remains(&self) -> Remains {
        let fields =
            |part: &Option<Box<RawValue>>| part.as_deref().map(|raw| serde_json::from_str::<RawFields>(raw.get()));
        let name = |part: &serde_json::Result<RawFields>| -> Option<String> {
            serde_json::from_str(part.as_ref().ok()?.get("secretName")?.get()).ok()
        };
        let (spec, status) = (fields(&self.spec), fields(&self.status));
        let may_have_record = match &status {
            None => false,
            Some(Ok(fields)) => fields.get("versions").is_some_and(|versions| {
                let versions: Result<Option<Vec<IgnoredAny>>, _> = serde_json::from_str(versions.get());
                !versions.is_ok_and(|versions| versions.is_none_or(|versions| versions.is_empty()))
            }),
            Some(Err(_)) => true,
        };
        Remains {
            secret_name: status.as_ref().and_then(name).or_else(|| spec.as_ref().and_then(name)),
            may_have_record,
        }
    }

    /// About how many bytes of memory it takes.
    pub fn size(&self) -> usize {
        let texts = [&self.spec, &self.status].into_iter().flatten().map(|raw| raw.get().len());
        let ObjectMeta { name, namespace, uid, resource_version, annotations, .. } = &self.metadata;
        let names = [name, namespace, uid, resource_version].into_iter().flatten().map(String::len);
        let marks = annotations.iter().map(marks::size);
        size_of::<Self>() + texts.chain(names).chain(marks).sum::<usize>()
    }
}

impl<'de> Deserialize<'de> for Encoded {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Wire { metadata, spec, status } = Wire::deserialize(deserializer)?;
        Ok(Self { metadata: metadata.into(), spec, status })
    }
}

/// Whether the unknown fields of a spec are small enough to keep. The API server accepts any unknown field in pins.
fn knows_enough(spec: SpecView<'_>) -> bool {
    let template = spec.secret_template.into_iter();
    let of_the_template = template.clone().map(|template| &template.rest);
    let of_its_metadata = template.flat_map(|template| &template.metadata).map(|metadata| &metadata.rest);
    let of_pins = spec.pins.iter().flat_map(|pin| pin.rests().map(|(_, rest)| rest));
    let rests = of_pins.chain(of_the_template).chain(of_its_metadata).chain([spec.rest]);
    let rests = rests.filter(|rest| !rest.is_empty());
    let size = |rest| serde_json::to_vec(rest).map_or(usize::MAX, |json| json.len());
    rests.map(size).fold(0, usize::saturating_add) <= MAX_UNKNOWN
}

fn too_much_unknown() -> String {
    format!("spec: fields that this operator does not know take more than {MAX_UNKNOWN} bytes: remove them")
}

fn part<T: DeserializeOwned>(name: &str, raw: Option<&RawValue>) -> Result<T, String> {
    let Some(raw) = raw else {
        return Err(format!("{name} is missing"));
    };
    // Nearly all objects can be decoded. Only the message about another one needs the path, which takes longer to keep.
    if let Ok(decoded) = serde_json::from_str(raw.get()) {
        return Ok(decoded);
    }
    let mut json = serde_json::Deserializer::from_str(raw.get());
    serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = match error.path().to_string() {
            path if path == "." => name.to_owned(),
            path => format!("{name}.{path}"),
        };
        format!("{}: {}", printable(&path, MAX_PATH), expectation(&error.into_inner().to_string()))
    })
}

/// What a decoder's error expects. The value, which it names too, is left out: it can be anything.
fn expectation(error: &str) -> String {
    let error = error.rsplit_once(" at line ").map_or(error, |(error, _)| error);
    if error.starts_with("missing field `") {
        return error.to_owned();
    }
    match error.rsplit_once(", expected ") {
        Some((_, "i32")) => format!("expected a whole number of at most {}", i32::MAX),
        Some((_, expected)) => format!("expected {}", expected.replace("struct ", "an object ")),
        // Other texts may repeat the value.
        None => "it has a value that this operator cannot read".to_owned(),
    }
}

// === impl Identity ===

impl From<Identity> for ObjectMeta {
    /// Converts the metadata. Labels and annotations are reduced to what the operator reads of them.
    fn from(identity: Identity) -> Self {
        let annotations = marks::annotations(identity.labels, identity.annotations);
        Self {
            name: identity.name,
            namespace: identity.namespace,
            uid: identity.uid,
            resource_version: identity.resource_version,
            generation: identity.generation,
            creation_timestamp: identity.creation_timestamp,
            deletion_timestamp: identity.deletion_timestamp,
            annotations,
            ..Self::default()
        }
    }
}

// === impl Unreadable ===

impl Unreadable {
    /// The failure that the status reports.
    pub fn failure(&self) -> Failure {
        Failure::new(Reason::SpecInvalid, &*self.why)
    }

    /// The status that reports the failure: the present one with other conditions. `None` if the present status reports it
    /// already, or cannot be kept.
    pub fn report(&self, kind: &Kind, generation: Option<i64>, now: Timestamp) -> Option<RawStatus> {
        let mut fields = match &self.status {
            Some(status) => serde_json::from_str::<RawStatus>(status.get()).ok()?,
            None => RawStatus::new(),
        };
        let present: Vec<Box<RawValue>> =
            fields.get("conditions").and_then(|list| serde_json::from_str(list.get()).ok()).unwrap_or_default();
        let (own, others): (Vec<_>, Vec<_>) = present.into_iter().partition(|condition| is_own(condition));
        let own: Vec<_> = own.iter().filter_map(|condition| serde_json::from_str(condition.get()).ok()).collect();
        let observed: Option<i64> =
            fields.get("observedGeneration").and_then(|number| serde_json::from_str(number.get()).ok());
        let wanted = condition::failed_conditions(kind, &self.failure(), &own, generation, now);
        if observed == generation && own == wanted {
            return None;
        }
        let mut conditions: Vec<_> = wanted.iter().map(raw).collect::<Option<_>>()?;
        conditions.extend(others);
        fields.insert("conditions".to_owned(), raw(&conditions)?);
        fields.insert("observedGeneration".to_owned(), raw(&generation)?);
        Some(fields)
    }
}

impl PartialEq for Unreadable {
    fn eq(&self, other: &Self) -> bool {
        let text = |unreadable: &Self| unreadable.status.as_ref().map(|status| status.get().to_owned());
        self.why == other.why && text(self) == text(other)
    }
}

fn raw<T: Serialize + ?Sized>(value: &T) -> Option<Box<RawValue>> {
    serde_json::value::to_raw_value(value).ok()
}

fn is_own(condition: &RawValue) -> bool {
    #[derive(Deserialize)]
    struct Typed {
        #[serde(rename = "type")]
        type_: String,
    }
    serde_json::from_str(condition.get()).is_ok_and(|Typed { type_ }| Conditions::is_own(&type_))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        api::DataKey,
        fixtures::{Edit, at, data_key, pinned, recorded},
        names::{RESTORED_ANNOTATION, VELERO_RESTORE_LABEL},
    };

    fn decoded(value: &Value) -> Result<DataKey, Unreadable> {
        serde_json::from_str::<Encoded>(&value.to_string()).unwrap().decode::<DataKey>()
    }

    fn json_of(key: &DataKey) -> Value {
        serde_json::to_value(key).unwrap()
    }

    fn why(value: &Value) -> String {
        decoded(value).unwrap_err().why.into()
    }

    #[test]
    fn unusable_times_in_the_metadata_are_tolerated() {
        let mut key = json_of(&data_key());
        let far = "9999-12-31T23:59:59Z";
        key["metadata"]["creationTimestamp"] = json!(far);
        key["metadata"]["deletionTimestamp"] = json!(far);
        key["metadata"]["managedFields"] = json!([{ "manager": "kubectl", "time": far, "operation": "Update" }]);
        let key = serde_json::from_value::<Encoded>(key).unwrap();
        assert!(key.metadata.deletion_timestamp.is_some() && key.decode::<DataKey>().is_ok());
    }

    #[test]
    fn unused_metadata_is_not_kept() {
        let mut key = data_key();
        key.metadata.annotations = Some([("last-applied".into(), "{}".into())].into());
        key.metadata.labels = Some([("team".into(), "shop".into())].into());
        key.metadata.managed_fields = Some(Vec::new());
        let kept = serde_json::from_value::<Encoded>(json_of(&key)).unwrap().metadata;
        assert_eq!(kept, data_key().metadata);
    }

    #[test]
    fn only_labels_and_annotations_of_a_restore_are_kept() {
        let kept = |marks: &str, name: &str| {
            let mut key = json_of(&data_key());
            key["metadata"][marks] = json!({ name: "x", "team": "shop" });
            serde_json::from_value::<Encoded>(key).unwrap().decode::<DataKey>().unwrap()
        };
        for (marks, name) in [("labels", VELERO_RESTORE_LABEL), ("annotations", RESTORED_ANNOTATION)] {
            let key = kept(marks, name);
            assert!(key.is_restored() && key.metadata.labels.is_none());
            assert_eq!(key.metadata.annotations.unwrap().len(), 1);
            assert!(!kept(marks, "other").is_restored());
        }
    }

    #[test]
    fn size_grows_with_the_texts() {
        let size = |key: &DataKey| serde_json::from_value::<Encoded>(json_of(key)).unwrap().size();
        let mut long = data_key();
        long.spec.secret_name = Some("x".repeat(1000));
        assert!(size(&long) >= size(&data_key()) + 1000);
        assert!(size(&data_key()) > size_of::<Encoded>());
    }

    #[test]
    fn error_names_the_field_and_what_is_expected() {
        let edits: [(Edit<Value>, &str); 12] = [
            (
                |key| key["spec"]["wrappedKeys"][1]["issuedAt"] = json!("9999-12-31T23:59:59Z"),
                "spec.wrappedKeys[1].issuedAt: expected a time such as 2026-11-24T01:02:03Z, before the year 9999",
            ),
            (
                |key| key["spec"]["wrappedKeys"][0]["ciphertextBlob"] = json!("secret!"),
                "spec.wrappedKeys[0].ciphertextBlob: expected base64 with padding",
            ),
            (
                |key| key["spec"]["version"] = json!(3_000_000_000_u64),
                "spec.version: expected a whole number of at most 2147483647",
            ),
            (|key| key["spec"]["keySpec"] = json!("AES_512"), "spec.keySpec: expected `AES_256` or `AES_128`"),
            (
                |key| key["spec"]["deletionPolicy"] = json!("Snapshot"),
                "spec.deletionPolicy: expected `Retain` or `Delete`",
            ),
            (|key| key["spec"]["grantTokens"] = json!([7]), "spec.grantTokens[0]: expected a string"),
            (
                |key| _ = key["spec"]["wrappedKeys"][0]["request"].as_object_mut().unwrap().remove("keyId"),
                "spec.wrappedKeys[0].request: missing field `keyId`",
            ),
            (|key| key["spec"] = Value::Null, "spec is missing"),
            (|key| key["spec"] = json!("text"), "spec: expected an object DataKeySpec"),
            (
                |key| key["status"]["versions"] = json!([{ "version": 1, "request": null }]),
                "status.versions[0].request: expected an object KeyRequest",
            ),
            (|key| key["status"]["secretName"] = json!([]), "status.secretName: expected a string"),
            (
                |key| key["spec"]["encryptionContext"]["a\nb\u{1b}"] = json!(7),
                "spec.encryptionContext.a\\nb\\u{1b}: expected a string",
            ),
        ];
        for (edit, expected) in edits {
            let mut key = json_of(&pinned(&[1, 2]));
            edit(&mut key);
            assert_eq!(why(&key), expected);
        }
    }

    #[test]
    fn name_of_the_secret_and_record_are_read_by_themselves() {
        let remains = |edit: Edit<Value>| {
            let mut key = json_of(&recorded(&[1]));
            key["spec"]["secretName"] = json!("wanted");
            key["status"]["secretName"] = json!("kept");
            edit(&mut key);
            let Remains { secret_name, may_have_record } =
                serde_json::from_str::<Encoded>(&key.to_string()).unwrap().remains();
            (secret_name.unwrap_or_default(), may_have_record)
        };
        let of = |name: &str, may_have_record| (name.to_owned(), may_have_record);
        assert_eq!(remains(|_| {}), of("kept", true));
        assert_eq!(remains(|key| key["spec"] = Value::Null), of("kept", true));
        assert_eq!(remains(|key| key["spec"]["version"] = json!("text")), of("kept", true));
        assert_eq!(remains(|key| key["status"]["versions"][0]["request"] = json!(7)), of("kept", true));
        assert_eq!(remains(|key| key["status"]["secretName"] = json!([])), of("wanted", true));
        assert_eq!(remains(|key| key["status"] = json!("text")), of("wanted", true));
        assert_eq!(remains(|key| key["status"]["versions"] = json!([])), of("kept", false));
        assert_eq!(remains(|key| key["status"]["versions"] = Value::Null), of("kept", false));
        assert_eq!(remains(|key| key["status"]["versions"] = json!({})), of("kept", true));
        assert_eq!(remains(|key| key["status"] = json!({})), of("wanted", false));
        assert_eq!(remains(|key| key["status"] = Value::Null), of("wanted", false));
        assert_eq!(
            remains(|key| {
                key["status"] = Value::Null;
                key["spec"]["secretName"] = Value::Null;
            }),
            of("", false)
        );
    }

    #[test]
    fn error_does_not_repeat_a_value_of_the_spec() {
        let hidden = "hidden, expected nothing at line 1";
        for (field, value) in [
            ("grantTokens", json!({ "a": hidden })),
            ("grantTokens", json!(hidden)),
            ("keySpec", json!(hidden)),
            ("version", json!(hidden)),
            ("wrappedKeys", json!([{ "version": 1, "request": {}, "ciphertextBlob": hidden }])),
            ("wrappedKeys", json!([{ "issuedAt": hidden }])),
        ] {
            let mut key = json_of(&data_key());
            key["spec"][field] = value;
            assert!(!why(&key).contains("hidden"), "{}", why(&key));
        }
    }

    #[test]
    fn oversized_unknown_fields_of_pins_are_rejected() {
        let with = |bytes: usize| {
            let mut key = json_of(&pinned(&[1]));
            key["spec"]["wrappedKeys"][0]["more"] = json!("x".repeat(bytes));
            key
        };
        assert!(decoded(&with(MAX_UNKNOWN / 2)).is_ok());
        assert!(why(&with(MAX_UNKNOWN)).contains("remove them"));
    }

    #[test]
    fn long_map_key_is_cut_in_the_error() {
        let mut key = json_of(&data_key());
        key["spec"]["encryptionContext"]["ä".repeat(1_000_000)] = json!(7);
        let why = why(&key);
        assert!(why.chars().count() < 300 && why.contains("ä: expected"), "{why}");
    }

    #[test]
    fn deep_nesting_fails_only_its_own_object() {
        let mut key = json_of(&data_key());
        key["spec"]["encryptionContext"] = json!("DEEP");
        let deep = format!("{}{}", r#"{"a":"#.repeat(5000), "1".to_owned() + &"}".repeat(5000));
        let list = format!("[{}, {}]", key.to_string().replace(r#""DEEP""#, &deep), json_of(&data_key()));
        let mut read =
            serde_json::from_str::<Vec<Encoded>>(&list).unwrap().into_iter().map(|key| key.decode::<DataKey>());
        assert!(read.next().unwrap().is_err() && read.next().unwrap().is_ok());
    }

    #[test]
    fn invalid_derived_status_fields_are_ignored() {
        let mut key = json_of(&recorded(&[1]));
        let far = json!({
            "issuedAt": "9999-12-31T23:59:59Z", "version": 5_000_000_000_u64, "keyId": 7, "observedGeneration": "x",
            "conditions": [{ "type": "Ready", "lastTransitionTime": "9999-12-31T23:59:59Z" }],
        });
        for (field, value) in far.as_object().unwrap() {
            key["status"][field] = value.clone();
        }
        let status = decoded(&key).unwrap().status.unwrap();
        assert_eq!((status.issued_at, status.version, status.conditions.len()), (None, None, 0));
        assert_eq!(status.versions, recorded(&[1]).record());
    }

    #[test]
    fn report_keeps_the_rest_of_the_status_byte_for_byte() {
        let mut key = json_of(&recorded(&[1]));
        key["spec"]["version"] = json!("two");
        key["status"]["foo"] = json!({ "b": 1.10, "a": null });
        key["status"]["conditions"].as_array_mut().unwrap().push(json!({ "type": "Other" }));
        let unreadable = decoded(&key).unwrap_err();
        let report = unreadable.report(DataKey::KIND, Some(7), at(5)).unwrap();
        let mut written = serde_json::to_value(&report).unwrap();
        assert_eq!(written["versions"], key["status"]["versions"]);
        assert_eq!(written["foo"], key["status"]["foo"]);
        assert_eq!(written["observedGeneration"], json!(7));
        let reasons: Vec<_> = written["conditions"]
            .as_array()
            .unwrap()
            .iter()
            .map(|condition| format!("{}={} {}", condition["type"], condition["status"], condition["reason"]))
            .collect();
        assert_eq!(
            reasons,
            [r#""Ready"="False" "SpecInvalid""#, r#""Stalled"="True" "SpecInvalid""#, r#""Other"=null null"#]
        );

        key["status"] = written.take();
        assert!(decoded(&key).unwrap_err().report(DataKey::KIND, Some(7), at(9)).is_none(), "it is reported");
        assert!(decoded(&key).unwrap_err().report(DataKey::KIND, Some(8), at(9)).is_some(), "of an earlier spec");
    }
}
