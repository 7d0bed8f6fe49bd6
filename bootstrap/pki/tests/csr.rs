//! Requests: made, read, judged, signed.

#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pki::{Authority, Certificate, Csr, CsrDenied, Key, San, Usage, create_csr, node_client, node_serving, os_random};
use proptest::prelude::*;

const LIFE: Duration = Duration::from_secs(24 * 3600);
const CLIENT: [&str; 2] = ["digital signature", "client auth"];
const SERVING: [&str; 2] = ["digital signature", "server auth"];

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_790_000_000)
}

fn request(common_name: &str, organization: Option<&str>, sans: &[San]) -> (Key, String) {
    let key = Key::generate(&mut os_random).unwrap();
    let pem = create_csr(&key, common_name, organization, &sans.iter().cloned().collect()).unwrap();
    (key, pem)
}

fn usages(names: &[&str]) -> BTreeSet<Usage> {
    Usage::parse_all(names.iter().copied()).unwrap()
}

#[test]
fn a_node_gets_the_client_certificate_that_it_asked_for() {
    let authority = Authority::generate("kubernetes", now(), &mut os_random).unwrap();
    let (key, pem) = request("system:node:worker-1", Some("system:nodes"), &[]);
    let csr = Csr::parse(&pem).unwrap();
    assert_eq!(node_client(&csr, &usages(&CLIENT), "system:bootstrap:abcdef"), Ok("worker-1"));
    let signed = authority.sign_csr(&pem, &usages(&CLIENT), (LIFE, now()), &mut os_random).unwrap();
    let certificate = Certificate::from_pem("node", &signed).unwrap();
    assert!(certificate.is_signed_by(authority.certificate()));
    assert_eq!(certificate.common_name, "system:node:worker-1");
    assert_eq!(certificate.organizations, ["system:nodes"]);
    assert_eq!(certificate.public_der, key.public_der());
    assert_eq!(certificate.not_after, now() + LIFE);
    assert!(!certificate.is_ca);
}

#[test]
fn a_serving_certificate_is_bound_to_the_caller_and_its_addresses() {
    let own = San::Ip("192.168.77.11".parse().unwrap());
    let is_own = |node: &str, san: &San| *san == own || *san == San::Dns(node.to_owned());
    let (_, pem) = request("system:node:w1", Some("system:nodes"), &[own.clone(), San::Dns("w1".to_owned())]);
    let csr = Csr::parse(&pem).unwrap();
    assert_eq!(node_serving(&csr, &usages(&SERVING), "system:node:w1", is_own), Ok("w1"));
    let (requester, node) = ("system:node:w2".to_owned(), "w1".to_owned());
    assert_eq!(
        node_serving(&csr, &usages(&SERVING), "system:node:w2", is_own),
        Err(CsrDenied::Requester { requester, node })
    );
    let (_, pem) = request("system:node:w1", Some("system:nodes"), &[own.clone(), San::Dns("api".to_owned())]);
    let csr = Csr::parse(&pem).unwrap();
    let refused = node_serving(&csr, &usages(&SERVING), "system:node:w1", is_own);
    assert_eq!(refused, Err(CsrDenied::ForeignName("api".to_owned())));
    let (_, pem) = request("system:node:w1", Some("system:nodes"), &[]);
    let refused = node_serving(&Csr::parse(&pem).unwrap(), &usages(&SERVING), "system:node:w1", is_own).unwrap_err();
    assert_eq!(refused, CsrDenied::NoNames);
}

#[test]
fn requests_for_more_than_a_node_are_refused() {
    let judge = |name: &str, group: Option<&str>, names: &[&str], requester: &str| {
        let (_, pem) = request(name, group, &[]);
        node_client(&Csr::parse(&pem).unwrap(), &usages(names), requester).map(str::to_owned)
    };
    let nodes = Some("system:nodes");
    assert_eq!(judge("admin", nodes, &CLIENT, "x"), Err(CsrDenied::NotANode));
    assert_eq!(judge("system:node:", nodes, &CLIENT, "x"), Err(CsrDenied::NotANode));
    assert_eq!(judge("system:node:a", Some("system:masters"), &CLIENT, "x"), Err(CsrDenied::NotInNodes));
    assert_eq!(judge("system:node:a", None, &CLIENT, "x"), Err(CsrDenied::NotInNodes));
    assert!(matches!(judge("system:node:a", nodes, &SERVING, "x"), Err(CsrDenied::Usages { .. })));
    assert!(matches!(judge("system:node:a", nodes, &CLIENT, "system:node:b"), Err(CsrDenied::Requester { .. })));
    assert_eq!(judge("system:node:a", nodes, &CLIENT, "system:node:a"), Ok("a".to_owned()));
}

#[test]
fn a_changed_request_is_refused() {
    let (_, pem) = request("system:node:a", Some("system:nodes"), &[]);
    assert_eq!(Csr::parse("x"), Err(CsrDenied::Unreadable));
    assert_eq!(Csr::parse(&format!("{pem}{pem}")), Err(CsrDenied::Unreadable));
    assert_eq!(Csr::parse(&pem.replace("CERTIFICATE REQUEST", "CERTIFICATE")), Err(CsrDenied::Unreadable));
}

#[test]
fn unknown_usages_are_named() {
    assert_eq!(Usage::parse_all(["client auth", "any"]), Err(CsrDenied::UnknownUsage("any".to_owned())));
}

#[test]
fn tokens_have_the_form_that_manifests_take() {
    let token = pki::random_token(&mut os_random).unwrap();
    assert!(token.parse::<manifest::JoinToken>().is_ok(), "{token}");
}

#[test]
fn keys_survive_writing_and_reading() {
    let key = Key::generate(&mut os_random).unwrap();
    let again = Key::from_pem("k", &key.to_pem().unwrap()).unwrap();
    assert_eq!(key.public_der(), again.public_der());
    assert!(Key::from_pem("k", "x").is_err());
}

proptest! {
    #[test]
    fn any_bytes_are_a_request_or_refused(at in 0_usize..300, byte in any::<u8>()) {
        use base64::Engine;
        let (_, pem) = request("system:node:a", Some("system:nodes"), &[]);
        let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        let mut der = base64::engine::general_purpose::STANDARD.decode(body).unwrap();
        let at = at % der.len();
        der[at] = byte;
        let body = base64::engine::general_purpose::STANDARD.encode(der);
        let text = format!("-----BEGIN CERTIFICATE REQUEST-----\n{body}\n-----END CERTIFICATE REQUEST-----\n");
        let authority = Authority::derive("kubernetes", &[7; 32]).unwrap();
        let _any = authority.sign_csr(&text, &usages(&CLIENT), (LIFE, now()), &mut os_random);
    }
}
