use proptest::prelude::*;

use super::*;

const VERSION: &str = "apiserver.k8s.io/v1beta1";

/// A file of one version with selections as JSON.
fn written(version: &str, selections: &str) -> String {
    format!("apiVersion: {version}\nkind: EgressSelectorConfiguration\negressSelections: {selections}\n")
}

fn refused(text: &str) -> String {
    parse(text).map(|_| ()).unwrap_err().to_string()
}

#[test]
fn each_fault_is_told_in_upstreams_words() {
    let all = r#"supported values: "cluster", "controlplane", "etcd""#;
    let cases = [
        (r#"[{name: x, connection: {proxyProtocol: Direct}}]"#, format!(r#": Unsupported value: "x": {all}"#)),
        (
            r#"[{name: master, connection: {proxyProtocol: Direct}}]"#,
            format!(r#": Unsupported value: "master": {all}"#),
        ),
        (
            r#"[{name: Cluster, connection: {proxyProtocol: Direct}}, {name: cluster, connection: {proxyProtocol: Direct}}]"#,
            r#"[1]: Duplicate value: "cluster""#.to_owned(),
        ),
        (
            "[{name: etcd}]",
            r#".protocol: Unsupported value: "": supported values: "Direct", "HTTPConnect", "GRPC""#.to_owned(),
        ),
        (
            "[{name: etcd, connection: {proxyProtocol: Direct, transport: {uds: {udsName: /x}}}}]",
            r#".transport: Invalid value: "direct": config must be absent for direct connect"#.to_owned(),
        ),
        (
            "[{name: etcd, connection: {proxyProtocol: HTTPConnect}}]",
            ".transport: Required value: transport must be set for HTTPConnect".to_owned(),
        ),
        (
            "[{name: etcd, connection: {proxyProtocol: GRPC}}]",
            ".transport: Required value: transport must be set for GRPC".to_owned(),
        ),
        (
            "[{name: etcd, connection: {proxyProtocol: GRPC, transport: {tcp: {url: 'https://x'}}}}]",
            ".uds: Required value: UDS must be set with GRPC".to_owned(),
        ),
        (
            "[{name: etcd, connection: {proxyProtocol: HTTPConnect, transport: {}}}]",
            ".tcp: Required value: One of TCP or UDS must be set".to_owned(),
        ),
        (
            "[{name: etcd, connection: {proxyProtocol: GRPC, transport: {uds: {}}}}]",
            r#".udsName: Invalid value: "nil": must be present for UDS connections"#.to_owned(),
        ),
        (
            "[{name: etcd, connection: {proxyProtocol: HTTPConnect, transport: {tcp: {url: 'http://x', tlsConfig: {}}}}}]",
            r#".tlsConfig: Invalid value: "nil": config must not be present when using HTTP"#.to_owned(),
        ),
        (
            "[{name: etcd, connection: {proxyProtocol: HTTPConnect, transport: {tcp: {url: 'https://x'}}}}]",
            ".tlsConfig: Required value: TLSConfig must be present when using HTTPS".to_owned(),
        ),
        (
            "[{name: etcd, connection: {proxyProtocol: HTTPConnect, transport: {tcp: {url: x}}}}]",
            r#".url: Invalid value: "x": supported connection protocols are http:// and https://"#.to_owned(),
        ),
    ];
    for (selections, expected) in cases {
        let expected = format!("failed to validate egress selector configuration: service.connection{expected}");
        assert_eq!(refused(&written(VERSION, selections)), expected, "{selections}");
    }
}

#[test]
fn all_faults_are_told_at_once() {
    let tls = "{caBundle: /no/ca, clientKey: /no/k}";
    let selections = format!(
        "[{{name: a, connection: {{proxyProtocol: HTTPConnect, transport: {{tcp: {{url: 'https://x', tlsConfig: {tls}}}}}}}}}]"
    );
    let expected = "failed to validate egress selector configuration: [\
        service.connection.tlsConfig.caBundle: Invalid value: \"/no/ca\": TLS config ca bundle does not exist, \
        service.connection.tlsConfig.clientCert: Invalid value: \"nil\": Using TLS requires clientCert, \
        service.connection.tlsConfig.clientKey: Invalid value: \"/no/k\": TLS client key does not exist, \
        service.connection: Unsupported value: \"a\": supported values: \"cluster\", \"controlplane\", \"etcd\"]";
    assert_eq!(refused(&written(VERSION, &selections)), expected);
}

#[test]
fn what_is_no_such_document_is_refused() {
    assert!(refused(&written("x/v1", "[]")).contains("apiVersion"));
    assert!(refused("apiVersion: apiserver.k8s.io/v1beta1\nkind: X").contains("kind"));
    let unknown = written(VERSION, "[{name: etcd, connection: {proxyProtocol: Direct, x: 1}}]");
    assert!(refused(&unknown).contains(r#"unknown field "egressSelections[0].connection.x""#));
}

#[test]
fn selections_are_found_by_name_and_the_old_version_has_a_name_of_its_own() {
    let text = "[{name: master, connection: {proxyProtocol: Direct}}, \
        {name: Cluster, connection: {proxyProtocol: GRPC, transport: {uds: {udsName: /x}}}}]";
    let found = parse(&written(OLD_VERSION, text)).unwrap();
    assert!(found[&Selection::ControlPlane].is_none());
    assert!(matches!(&found[&Selection::Cluster], Some(Plan::Grpc { socket }) if socket == "/x"));
    assert!(!found.contains_key(&Selection::Etcd));
}

#[test]
fn files_that_hold_no_certificates_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let own = rcgen::generate_simple_self_signed(["x".to_owned()]).unwrap();
    let other = rcgen::KeyPair::generate().unwrap();
    for (name, text) in [
        ("none", "nothing".to_owned()),
        ("cert", own.cert.pem()),
        ("key", own.signing_key.serialize_pem()),
        ("other", other.serialize_pem()),
    ] {
        std::fs::write(path(name), text).unwrap();
    }
    let with = |bundle: &str, certificate: &str, key: &str| {
        let tls =
            format!("{{caBundle: {}, clientCert: {}, clientKey: {}}}", path(bundle), path(certificate), path(key));
        let tcp = format!("{{tcp: {{url: 'https://x:1', tlsConfig: {tls}}}}}");
        parse(&written(
            VERSION,
            &format!("[{{name: etcd, connection: {{proxyProtocol: HTTPConnect, transport: {tcp}}}}}]"),
        ))
        .map(|_| ())
        .map_err(|error| error.to_string())
    };
    assert_eq!(with("cert", "cert", "key"), Ok(()));
    let begin = "failed to create dialer for egressSelection \"etcd\": ";
    assert_eq!(with("none", "cert", "key").unwrap_err(), format!("{begin}failed to append CA cert to the cert pool"));
    for (certificate, key) in [("none", "key"), ("cert", "none"), ("cert", "other")] {
        let error = with("cert", certificate, key).unwrap_err();
        assert!(error.starts_with(&format!("{begin}failed to read key pair")), "{error}");
    }
}

proptest! {
    #[test]
    fn no_selection_makes_it_panic(selections in "[ -~]{0,120}", url in "[ -~]{0,40}") {
        let _either_way = parse(&written(VERSION, &selections)).is_ok();
        let tcp = Tcp { url: url.clone(), tls: None };
        if tcp_notes(&tcp).is_empty() {
            let _either_way = by_tcp(&tcp).is_ok();
        }
    }
}
