//! Structures as error texts show them: JSON of the types that a server works with inside, which have every field, under
//! the field's name in Go, whether it is set or not.

use api::schema::{self, Field, FieldType, Message, Shape};
use serde_json::Value;

use crate::codec;
use crate::status::Shown;

/// What an error says of a structure; `name` is its message's.
#[must_use]
pub fn structure<M: prost::Message>(name: &str, value: &M) -> Shown {
    let Some(message) = schema::message(name) else { return Shown::spelled("{}") };
    Shown::structure(message, tree(message, value), spell)
}

/// What an error says of a list of structures; none is null.
#[must_use]
pub fn structures<M: prost::Message>(name: &str, values: &[M]) -> Shown {
    if values.is_empty() {
        return Shown::no_list();
    }
    let Some(message) = schema::message(name) else { return Shown::spelled("[]") };
    Shown::structure(message, values.iter().map(|value| tree(message, value)).collect(), spell_all)
}

/// A structure as clients write it, of which errors tell where upstream declares the rule; `name` is its message's.
#[must_use]
pub fn as_written<M: prost::Message>(name: &str, value: &M) -> Shown {
    let json = schema::message(name).map(|message| api::transcode::to_json(message, value, None));
    Shown::spelled(json.and_then(|json| String::from_utf8(json).ok()).unwrap_or_else(|| "{}".to_owned()))
}

/// What an error says of a structure that may be missing.
#[must_use]
pub fn optional<M: prost::Message>(name: &str, value: Option<&M>) -> Shown {
    value.map_or_else(|| Shown::spelled("null"), |value| structure(name, value))
}

/// What an error says of a text that may be missing.
#[must_use]
pub fn optional_text(value: Option<&String>) -> Shown {
    value.map_or_else(|| Shown::spelled("null"), Shown::from)
}

/// What an error says of a list of texts; none is null.
#[must_use]
pub fn texts(values: &[String]) -> Shown {
    if values.is_empty() { Shown::no_list() } else { Shown::from(Value::from(values)) }
}

/// What an error says of bytes.
#[must_use]
pub fn bytes(value: Option<&[u8]>) -> Shown {
    use base64::Engine as _;
    let text = |bytes: &[u8]| format!("\"{}\"", base64::engine::general_purpose::STANDARD.encode(bytes));
    Shown::spelled(value.map_or_else(|| "null".to_owned(), text))
}

/// What an error says of a text that is one of a type's values.
#[must_use]
pub fn word(text: &str) -> Shown {
    Shown::spelled(quoted(text))
}

/// A text as a JSON string, escaped as upstream escapes it.
#[must_use]
pub fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    put_json(&Value::from(text), &mut out);
    out
}

/// The structure's JSON, with what the client gave for it.
#[must_use]
pub fn text<M: prost::Message>(name: &str, value: &M, given: Option<&Value>) -> String {
    let Some(message) = schema::message(name) else { return "{}".to_owned() };
    spell(message, &tree(message, value), given)
}

fn tree<M: prost::Message>(message: &Message, value: &M) -> Value {
    api::transcode::proto_to_value(message, &value.encode_to_vec(), None).unwrap_or_default()
}

fn spell(message: &'static Message, value: &Value, given: Option<&Value>) -> String {
    let mut out = String::new();
    match given {
        None => put_message(message, value, &mut out),
        Some(given) => {
            let mut whole = value.clone();
            codec::keep_blanks(message, &mut whole, given);
            put_message(message, &whole, &mut out);
        }
    }
    out
}

fn spell_all(message: &'static Message, values: &Value, given: Option<&Value>) -> String {
    let values = values.as_array().map_or(&[][..], Vec::as_slice);
    let given = given.and_then(Value::as_array).filter(|given| given.len() == values.len());
    let of = |at: usize| given.and_then(|given| given.get(at));
    let texts: Vec<String> = values.iter().enumerate().map(|(at, value)| spell(message, value, of(at))).collect();
    format!("[{}]", texts.join(","))
}

fn put_message(message: &'static Message, value: &Value, out: &mut String) {
    // These have names for JSON inside, too.
    let public = message.name.starts_with("k8s.io.apimachinery.");
    match message.shape {
        Shape::Struct if !public => {
            out.push('{');
            put_fields(message, (value, &Value::Null), &mut true, out);
            out.push('}');
        }
        Shape::Struct => put_public(message, value, out),
        Shape::Quantity if value.is_null() => out.push_str("\"0\""),
        Shape::IntOrString if value.is_null() => out.push('0'),
        _ => put_json(value, out),
    }
}

/// The JSON of a type that is public.
fn put_public(message: &'static Message, value: &Value, out: &mut String) {
    let Ok(raw) = api::transcode::value_to_proto(message, value, &mut api::transcode::Report::default()) else {
        return;
    };
    let mut bytes = Vec::new();
    if api::transcode::proto_to_json(message, &raw, None, &mut bytes).is_ok() {
        out.push_str(&String::from_utf8_lossy(&bytes));
    }
}

/// Structures whose fields have another order inside; those with a `^` are fields of the spec of a Pod that holds the
/// structure.
const ORDERS: &[(&str, &[&str])] = &[
    (
        "k8s.io.api.core.v1.PodSpec",
        &[
            "volumes",
            "initContainers",
            "containers",
            "ephemeralContainers",
            "restartPolicy",
            "terminationGracePeriodSeconds",
            "activeDeadlineSeconds",
            "dnsPolicy",
            "nodeSelector",
            "serviceAccountName",
            "automountServiceAccountToken",
            "nodeName",
            "securityContext",
            "imagePullSecrets",
            "hostname",
            "subdomain",
            "setHostnameAsFQDN",
            "affinity",
            "schedulerName",
            "tolerations",
            "hostAliases",
            "priorityClassName",
            "priority",
            "preemptionPolicy",
            "dnsConfig",
            "readinessGates",
            "runtimeClassName",
            "overhead",
            "enableServiceLinks",
            "topologySpreadConstraints",
            "os",
            "schedulingGates",
            "resourceClaims",
            "resources",
            "hostnameOverride",
            "schedulingGroup",
        ],
    ),
    (
        "k8s.io.api.core.v1.PodSecurityContext",
        &[
            "^hostNetwork",
            "^hostPID",
            "^hostIPC",
            "^shareProcessNamespace",
            "^hostUsers",
            "seLinuxOptions",
            "windowsOptions",
            "runAsUser",
            "runAsGroup",
            "runAsNonRoot",
            "supplementalGroups",
            "supplementalGroupsPolicy",
            "fsGroup",
            "fsGroupChangePolicy",
            "sysctls",
            "seccompProfile",
            "appArmorProfile",
            "seLinuxChangePolicy",
        ],
    ),
    (
        "k8s.io.api.core.v1.PersistentVolumeSource",
        &[
            "gcePersistentDisk",
            "awsElasticBlockStore",
            "hostPath",
            "glusterfs",
            "nfs",
            "rbd",
            "quobyte",
            "iscsi",
            "flexVolume",
            "cinder",
            "cephfs",
            "fc",
            "flocker",
            "azureFile",
            "vsphereVolume",
            "azureDisk",
            "photonPersistentDisk",
            "portworxVolume",
            "scaleIO",
            "local",
            "storageos",
            "csi",
        ],
    ),
    (
        "k8s.io.api.core.v1.VolumeSource",
        &[
            "hostPath",
            "emptyDir",
            "gcePersistentDisk",
            "awsElasticBlockStore",
            "gitRepo",
            "secret",
            "nfs",
            "iscsi",
            "glusterfs",
            "persistentVolumeClaim",
            "rbd",
            "quobyte",
            "flexVolume",
            "cinder",
            "cephfs",
            "flocker",
            "downwardAPI",
            "fc",
            "azureFile",
            "configMap",
            "vsphereVolume",
            "azureDisk",
            "photonPersistentDisk",
            "projected",
            "portworxVolume",
            "scaleIO",
            "storageos",
            "csi",
            "ephemeral",
            "image",
        ],
    ),
];

/// Where the fields lie that a structure has inside, but not outside.
const HOLDER: &str = "k8s.io.api.core.v1.PodSpec";

/// The fields of a structure, `holder` being what holds it.
fn put_fields(message: &'static Message, (value, holder): (&Value, &Value), first: &mut bool, out: &mut String) {
    if let Some((_, order)) = ORDERS.iter().find(|(name, _)| *name == message.name) {
        for name in *order {
            let (of, value, name) = match name.strip_prefix('^') {
                Some(name) => (schema::message(HOLDER).unwrap_or(message), holder, name),
                None => (message, value, *name),
            };
            if let Some(field) = of.field(name) {
                put_named(of, field, value, first, out);
            }
        }
        return;
    }
    for field in message.fields {
        match field.ty.message() {
            Some(inner) if field.inline => put_fields(inner, (value, holder), first, out),
            // Metadata is no field of its own inside, but its fields are.
            Some(inner) if field.json == "metadata" => {
                let mut own = String::new();
                put_public(inner, &value[field.json], &mut own);
                let own = own.strip_prefix('{').and_then(|own| own.strip_suffix('}')).unwrap_or_default();
                if !own.is_empty() {
                    comma(first, out);
                    out.push_str(own);
                }
            }
            _ => put_named(message, field, value, first, out),
        }
    }
}

fn comma(first: &mut bool, out: &mut String) {
    if !std::mem::take(first) {
        out.push(',');
    }
}

fn put_named(message: &Message, field: &'static Field, value: &Value, first: &mut bool, out: &mut String) {
    comma(first, out);
    out.push('"');
    put_name(message, field.json, out);
    out.push_str("\":");
    let own = &value[field.json];
    match field.ty.message() {
        Some(inner) if ORDERS.iter().any(|(name, _)| *name == inner.name) && own.is_object() => {
            out.push('{');
            put_fields(inner, (own, value), &mut true, out);
            out.push('}');
        }
        _ => put_field(field, own, out),
    }
}

fn put_field(field: &'static Field, value: &Value, out: &mut String) {
    let message = field.ty.message();
    match (value, field.ty) {
        (Value::Object(map), FieldType::Map(inner)) => {
            let mut next = '{';
            for (key, item) in map {
                out.push(std::mem::replace(&mut next, ','));
                put_json(&Value::from(key.as_str()), out);
                out.push(':');
                match inner.message() {
                    Some(inner) => put_message(inner, item, out),
                    None => put_json(item, out),
                }
            }
            if next == '{' { out.push_str("{}") } else { out.push('}') }
        }
        (Value::Array(items), _) if field.repeated => {
            let mut next = '[';
            for item in items {
                out.push(std::mem::replace(&mut next, ','));
                match message {
                    Some(message) => put_message(message, item, out),
                    None => put_json(item, out),
                }
            }
            if next == '[' { out.push_str("[]") } else { out.push(']') }
        }
        (Value::Null, ty) if !field.repeated && !field.pointer && !matches!(ty, FieldType::Map(_)) => match ty {
            FieldType::String => out.push_str("\"\""),
            FieldType::Bool => out.push_str("false"),
            FieldType::Int32 | FieldType::Int64 | FieldType::Uint64 | FieldType::Double => out.push('0'),
            FieldType::Message(_) => {
                if let Some(message) = message {
                    put_message(message, value, out);
                }
            }
            FieldType::Bytes | FieldType::Map(_) => out.push_str("null"),
        },
        _ => match message {
            Some(message) if !value.is_null() => put_message(message, value, out),
            _ => put_json(value, out),
        },
    }
}

/// JSON that is safe within HTML.
fn put_json(value: &Value, out: &mut String) {
    for c in value.to_string().chars() {
        match c {
            '<' => out.push_str("\\u003c"),
            '>' => out.push_str("\\u003e"),
            '&' => out.push_str("\\u0026"),
            '\u{2028}' => out.push_str("\\u2028"),
            '\u{2029}' => out.push_str("\\u2029"),
            c => out.push(c),
        }
    }
}

/// Names in Go that are not those in JSON with a capital; of all messages, or of those that end so.
const NAMES: &[(&str, &str, &str)] = &[
    ("", "storageos", "StorageOS"),
    ("", "cephfs", "CephFS"),
    ("", "wwids", "WWIDs"),
    ("", "cidrs", "CIDRs"),
    ("", "ips", "IPs"),
    ("", "diskURI", "DataDiskURI"),
    ("", "chapAuthDiscovery", "DiscoveryCHAPAuth"),
    ("", "chapAuthSession", "SessionCHAPAuth"),
    ("", "reportingComponent", "ReportingController"),
    ("", "pkixPublicKey", "PKIXPublicKey"),
    ("", "pdID", "PdID"),
    ("", "lastState", "LastTerminationState"),
    ("", "qosClass", "QOSClass"),
    ("", "externalID", "DoNotUseExternalID"),
    ("DeviceAttribute", "int", "IntValue"),
    ("DeviceAttribute", "bool", "BoolValue"),
    ("DeviceAttribute", "string", "StringValue"),
    ("DeviceAttribute", "version", "VersionValue"),
    ("DeviceAttribute", "ints", "IntValues"),
    ("DeviceAttribute", "bools", "BoolValues"),
    ("DeviceAttribute", "strings", "StringValues"),
    ("DeviceAttribute", "versions", "VersionValues"),
    ("RBDPersistentVolumeSource", "monitors", "CephMonitors"),
    ("RBDPersistentVolumeSource", "image", "RBDImage"),
    ("RBDPersistentVolumeSource", "pool", "RBDPool"),
    ("RBDPersistentVolumeSource", "user", "RadosUser"),
    ("RBDVolumeSource", "monitors", "CephMonitors"),
    ("RBDVolumeSource", "image", "RBDImage"),
    ("RBDVolumeSource", "pool", "RBDPool"),
    ("RBDVolumeSource", "user", "RadosUser"),
    ("GlusterfsPersistentVolumeSource", "endpoints", "EndpointsName"),
    ("GlusterfsVolumeSource", "endpoints", "EndpointsName"),
];

/// Abbreviations that names begin with, which Go spells in capitals.
const ABBREVIATIONS: &[&str] = &[
    "api", "aws", "ca", "cel", "cidr", "csi", "dns", "fc", "fs", "gce", "gmsa", "grpc", "http", "id", "ip", "iqn",
    "iscsi", "json", "nfs", "os", "pd", "rbd", "ssl", "tcp", "tls", "ttl", "tty", "uid", "url", "gid",
];

fn put_name(message: &Message, json: &str, out: &mut String) {
    let own = NAMES.iter().find(|(of, name, _)| *name == json && message.name.ends_with(of));
    if let Some((_, _, name)) = own {
        out.push_str(name);
        return;
    }
    if let Some(rest) = json.strip_prefix("seLinux") {
        out.push_str("SELinux");
        out.push_str(rest);
        return;
    }
    let word = json.find(|c: char| c.is_ascii_uppercase()).unwrap_or(json.len());
    // A plural, such as apiGroups, has its `s` at the end of the name.
    let (head, tail) = json.split_at(word);
    if ABBREVIATIONS.contains(&head) {
        out.push_str(&head.to_ascii_uppercase());
    } else {
        let mut chars = head.chars();
        out.extend(chars.next().map(|c| c.to_ascii_uppercase()));
        out.push_str(chars.as_str());
    }
    out.push_str(tail);
}

/// JSON on many lines, one space deeper each time.
#[must_use]
pub fn indented(json: &str) -> String {
    let mut out = String::new();
    let (mut depth, mut quoted, mut escaped) = (0usize, false, false);
    let mut chars = json.chars().peekable();
    let line = |out: &mut String, depth: usize| {
        out.push('\n');
        out.extend(std::iter::repeat_n(' ', depth));
    };
    while let Some(c) = chars.next() {
        if quoted {
            quoted = escaped || c != '"';
            escaped = !escaped && c == '\\';
            out.push(c);
            continue;
        }
        match c {
            '{' | '[' => {
                out.push(c);
                if let Some(close) = chars.next_if(|next| matches!(next, '}' | ']')) {
                    out.push(close);
                } else {
                    depth += 1;
                    line(&mut out, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                line(&mut out, depth);
                out.push(c);
            }
            ',' => {
                out.push(c);
                line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            c => {
                quoted = c == '"';
                out.push(c);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_have_their_names_inside() {
        let reference = api::rbac::v1::RoleRef { kind: "Role".into(), name: "a<b".into(), ..Default::default() };
        let shown = text("k8s.io.api.rbac.v1.RoleRef", &reference, None);
        assert_eq!(shown, r#"{"APIGroup":"","Kind":"Role","Name":"a\u003cb"}"#);
        let port = api::core::v1::ServicePort { port: 80, ..Default::default() };
        assert_eq!(
            text("k8s.io.api.core.v1.ServicePort", &port, None),
            r#"{"Name":"","Protocol":"","AppProtocol":null,"Port":80,"TargetPort":0,"NodePort":0}"#
        );
    }

    #[test]
    fn json_is_indented_by_one() {
        assert_eq!(indented(r#"{"a":[1,"x:{"],"b":{}}"#), "{\n \"a\": [\n  1,\n  \"x:{\"\n ],\n \"b\": {}\n}");
    }
}
