use std::time::Duration;

use api::features::Features;
use api::time::format_seconds;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertificateParams, KeyPair, SanType};
use serde_json::{Value, json};

use crate::strategy::Part;
use crate::validation::Context;
use crate::validation::tests::told_in;

/// The first second of 15 January 2027.
const NOW: i64 = 1_799_971_200;

fn told(part: Part, new: &Value, old: Option<&Value>) -> String {
    let context = Context { features: &Features::default(), now: NOW };
    let old = old.map(Value::to_string);
    let kind = ("certificates.k8s.io/v1beta1", "PodCertificateRequest");
    told_in(context, kind, part, &new.to_string(), old.as_deref())
}

fn key() -> KeyPair {
    KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap()
}

fn request(key: &KeyPair) -> Value {
    let der = CertificateParams::default().serialize_request(key).unwrap();
    json!({"spec": {
        "signerName": "example.com/a", "podName": "p", "podUID": "1", "serviceAccountName": "s",
        "serviceAccountUID": "2", "nodeName": "n", "nodeUID": "3", "maxExpirationSeconds": 86400,
        "stubPKCS10Request": STANDARD.encode(der.der()),
    }})
}

fn with(object: &Value, field: &str, value: impl Into<Value>) -> Value {
    let mut object = object.clone();
    object["spec"][field] = value.into();
    object
}

#[test]
fn a_request_proves_that_it_has_the_key() {
    let object = request(&key());
    assert_eq!(told(Part::Main, &object, None), "");
    let mut forged = STANDARD.decode(object["spec"]["stubPKCS10Request"].as_str().unwrap()).unwrap();
    *forged.last_mut().unwrap() ^= 1;
    let cases = [
        (
            with(&object, "nodeName", ""),
            "spec.nodeName: Invalid value: \"\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
        ),
        (with(&object, "podUID", ""), "spec.podUID: Invalid value: \"\": must not be empty"),
        (
            with(&object, "maxExpirationSeconds", 3599),
            "spec.maxExpirationSeconds: Invalid value: 3599: must be in the range [3600, 7862400]",
        ),
        (
            with(&with(&object, "signerName", "kubernetes.io/a"), "maxExpirationSeconds", 86401),
            "spec.maxExpirationSeconds: Invalid value: 86401: must be in the range [3600, 86400]",
        ),
        (
            with(&object, "pkixPublicKey", "AA=="),
            "spec: Invalid value: exactly one of (stubPKCS10Request) or (pkixPublicKey, proofOfPossession) must be set",
        ),
        (
            with(&object, "stubPKCS10Request", "AA=="),
            "spec.stubPKCS10Request: Invalid value: must be a valid PKCS#10 CSR",
        ),
        (
            with(&object, "stubPKCS10Request", STANDARD.encode(forged)),
            "spec.stubPKCS10Request: Invalid value: invalid signature",
        ),
        (
            with(&object, "unverifiedUserAnnotations", json!({"a": "b"})),
            "spec.unverifiedUserAnnotations: Invalid value: \"a\": must be a domain-prefixed key (such as \"acme.io/foo\")",
        ),
    ];
    for (new, expected) in cases {
        assert_eq!(told(Part::Main, &new, None), expected);
    }
    assert!(told(Part::Main, &with(&object, "podName", "q"), Some(&object)).ends_with("field is immutable"));
    assert_eq!(told(Part::Main, &with(&object, "pkixPublicKey", ""), Some(&object)), "");
}

#[test]
fn the_old_way_signs_the_uid_of_the_pod() {
    use ring::signature::{Ed25519KeyPair, KeyPair as _};
    let pkcs8 = Ed25519KeyPair::generate_pkcs8(&ring::rand::SystemRandom::new()).unwrap();
    let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap();
    let mut spki = b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00".to_vec();
    spki.extend_from_slice(pair.public_key().as_ref());
    let object = with(&request(&key()), "stubPKCS10Request", Value::Null);
    let object = with(&object, "pkixPublicKey", STANDARD.encode(spki));
    let proved = with(&object, "proofOfPossession", STANDARD.encode(pair.sign(b"1")));
    assert_eq!(told(Part::Main, &proved, None), "");
    let why = "spec.proofOfPossession: Invalid value: could not verify proof-of-possession signature";
    assert_eq!(told(Part::Main, &with(&proved, "podUID", "2"), None), why);
}

fn condition(kind: &str) -> Value {
    json!({"type": kind, "status": "True", "reason": "R", "message": "", "lastTransitionTime": format_seconds(NOW)})
}

fn issued(object: &Value, key: &KeyPair, hours: u32, change: impl FnOnce(&mut CertificateParams)) -> Value {
    let begin = rcgen::date_time_ymd(2027, 1, 15);
    let mut params = CertificateParams::default();
    (params.not_before, params.not_after) = (begin, begin + Duration::from_secs(u64::from(hours) * 3600));
    change(&mut params);
    let end = NOW + i64::from(hours) * 3600;
    let mut object = object.clone();
    object["status"] = json!({
        "conditions": [condition("Issued")], "certificateChain": params.self_signed(key).unwrap().pem(),
        "notBefore": format_seconds(NOW), "notAfter": format_seconds(end), "beginRefreshAt": format_seconds(end - 1200),
    });
    object
}

fn last(text: &str) -> &str {
    text.rsplit(": ").next().unwrap_or_default()
}

#[test]
fn a_certificate_is_for_the_key_and_for_as_long_as_it_says() {
    let key = key();
    let object = request(&key);
    let told = |new: &Value| told(Part::Status, new, Some(&object));
    assert_eq!(told(&issued(&object, &key, 2, |_| {})), "");
    let why = "leaf certificate was not issued to the requested public key";
    assert_eq!(last(&told(&issued(&object, &self::key(), 2, |_| {}))), why);
    let long = "status.certificateChain: Invalid value: 90000000000000: leaf certificate lifetime must be <= \
                spec.maxExpirationSeconds (86400)";
    assert_eq!(told(&issued(&object, &key, 25, |_| {})), long);
    let dots = issued(&object, &key, 2, |params| {
        params.subject_alt_names = vec![SanType::DnsName(".a..b".try_into().unwrap())];
    });
    let names = "status.certificateChain: Invalid value: \".a..b\": leaf certificate's DNSName should not contain '..'\n\
                 status.certificateChain: Invalid value: \".a..b\": leaf certificate's DNSName should not start or end with '.'";
    assert_eq!(told(&dots), names);
    let set = |field: &str, value: Value| {
        let mut object = issued(&object, &key, 2, |_| {});
        object["status"][field] = value;
        object
    };
    let cases = [
        ("notBefore", json!(null), "must be present and consistent with the issued certificate"),
        ("notAfter", json!(format_seconds(NOW)), "must be set to the NotAfter time encoded in the leaf certificate"),
        ("beginRefreshAt", json!(format_seconds(NOW)), "must be at least 10 minutes after status.notBefore"),
        ("beginRefreshAt", json!(format_seconds(NOW + 7200)), "must be at least 10 minutes before status.notAfter"),
        ("certificateChain", json!("x"), "issued certificate chain must contain at least one certificate"),
    ];
    for (field, value, expected) in cases {
        assert_eq!(last(&told(&set(field, value))), expected);
    }
}

#[test]
fn a_request_is_decided_once() {
    let key = key();
    let object = request(&key);
    let decided = |conditions: &[Value]| {
        let mut object = object.clone();
        object["status"] = json!({"conditions": conditions});
        object
    };
    let told = |new: &Value, old: &Value| told(Part::Status, new, Some(old));
    let denied = decided(&[condition("Denied")]);
    assert_eq!(told(&denied, &object), "");
    let why = "status: Invalid value: immutable after PodCertificateRequest is issued, denied, or failed";
    assert_eq!(told(&object, &denied), why);
    let mut both = denied.clone();
    both["status"]["notBefore"] = format_seconds(NOW).into();
    let why = "status: Invalid value: non-condition status fields must be empty when denying or failing the \
               PodCertificateRequest";
    assert_eq!(told(&both, &object), why);
    let why = "status.conditions.[1].type: Invalid value: \"Failed\": There may be at most one condition with type \
               \"Issued\", \"Denied\", or \"Failed\"";
    assert_eq!(told(&decided(&[condition("Denied"), condition("Failed")]), &object), why);
    let why =
        "status.conditions.[0].type: Unsupported value: \"A\": supported values: \"Issued\", \"Denied\", \"Failed\"";
    assert_eq!(told(&decided(&[condition("A")]), &object), why);
    let mut other = object.clone();
    other["status"] = json!({"notBefore": format_seconds(NOW)});
    let why =
        "status: Invalid value: status is immutable unless transitioning to \"Issued\", \"Denied\", or \"Failed\"";
    assert_eq!(told(&other, &object), why);
}
