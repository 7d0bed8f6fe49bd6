//! What can be done at a path.

use api::Kind;
use api::schema::MESSAGES;
use serde_json::{Map, Value, json};

use super::parameters::{self, Query};
use super::{Style, schemas};

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.";

const JSON: &str = "application/json";
const YAML: &str = "application/yaml";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const STREAMS: [&str; 2] = ["application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch"];
const ANY: &str = "*/*";

const PATCH_TYPES: [&str; 4] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];

/// What is done, in upstream's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Get,
    List,
    Post,
    Put,
    Patch,
    Delete,
    DeleteCollection,
    /// A watch of one object, in the old form.
    Watch,
    /// A watch of many, in the old form.
    WatchList,
    /// A connection to what stands behind the object, by this method.
    Connect(&'static str),
}
use Action::{Connect, Delete, DeleteCollection, Get, List, Patch, Post, Put, Watch, WatchList};

impl Action {
    pub(super) fn method(self) -> &'static str {
        match self {
            Get | List | Watch | WatchList => "get",
            Post => "post",
            Put => "put",
            Patch => "patch",
            Delete | DeleteCollection => "delete",
            Connect(method) => method,
        }
    }

    /// As the extension of operations names it.
    fn name(self) -> &'static str {
        match self {
            Get => "get",
            List => "list",
            Post => "post",
            Put => "put",
            Patch => "patch",
            Delete => "delete",
            DeleteCollection => "deletecollection",
            Watch => "watch",
            WatchList => "watchlist",
            Connect(_) => "connect",
        }
    }

    fn streams(self) -> bool {
        matches!(self, List | Watch | WatchList)
    }
}

/// What a path leads to.
#[derive(Clone, Copy)]
pub(super) struct Target<'a> {
    pub(super) kind: &'a Kind,
    /// Group, version and kind of what is sent and answered.
    pub(super) shown: (&'a str, &'a str, &'a str),
    pub(super) message: Option<usize>,
    pub(super) subresource: &'a str,
    /// Whether it is over all namespaces of a kind that is in some.
    pub(super) everywhere: bool,
    /// Whether the path goes on behind the subresource.
    pub(super) goes_on: bool,
    pub(super) style: Style,
}

impl Target<'_> {
    fn is_custom(&self) -> bool {
        crate::custom::is_custom(self.kind)
    }

    /// An operation, and its parameters beside those of the path.
    pub(super) fn operation(&self, action: Action) -> (Map<String, Value>, Vec<Value>) {
        let (group, version, kind) = self.shown;
        let made = json!({
            "tags": [self.tag()],
            "description": self.description(action),
            "operationId": self.operation_id(action),
            "responses": self.responses(action),
            "x-kubernetes-action": action.name(),
            "x-kubernetes-group-version-kind": {"group": group, "version": version, "kind": kind},
        });
        let Value::Object(mut made) = made else { return (Map::new(), Vec::new()) };
        let mut own: Vec<Value> = parameters::query(self.query(action), action == Patch, self.style).collect();
        own.extend(self.options(action));
        if let Some((schema, required)) = self.body(action) {
            match self.style {
                Style::V2 => {
                    let mut body = json!({"name": "body", "in": "body", "schema": self.style.reference(&schema)});
                    if required {
                        body["required"] = json!(true);
                    }
                    own.push(body);
                }
                Style::V3 => {
                    let schema = json!({"schema": self.style.reference(&schema)});
                    let content: Map<String, Value> =
                        self.consumed(action).into_iter().map(|ty| (ty.to_owned(), schema.clone())).collect();
                    let mut body = json!({ "content": content });
                    if required {
                        body["required"] = json!(true);
                    }
                    made.insert("requestBody".to_owned(), body);
                }
            }
        }
        if self.style == Style::V2 {
            made.insert("consumes".to_owned(), json!(self.consumed(action)));
            made.insert("produces".to_owned(), json!(self.produced(action)));
            made.insert("schemes".to_owned(), json!(["https"]));
        }
        if !matches!(action, Connect(_)) {
            own.push(parameters::parameter("query", "pretty", "string", self.style));
        }
        (made, own)
    }

    fn query(&self, action: Action) -> Query {
        match action {
            Get if self.is_custom() => parameters::VERSION,
            Get | Connect(_) => &[],
            List | Watch | WatchList => parameters::LIST,
            Post | Put => parameters::WRITE,
            Patch => parameters::APPLY,
            Delete => parameters::DELETE,
            DeleteCollection if self.is_custom() => parameters::LIST,
            DeleteCollection => parameters::DELETE_COLLECTION,
        }
    }

    /// What else the query of a subresource may say.
    fn options(&self, action: Action) -> Vec<Value> {
        let message = match action {
            Connect(_) => self.message.map(|index| &MESSAGES[index]),
            Get if self.subresource == "log" => MESSAGES.iter().find(|m| m.name == "k8s.io.api.core.v1.PodLogOptions"),
            _ => None,
        };
        message.map_or_else(Vec::new, |message| parameters::of_message(message, self.style))
    }

    /// The schema of the object itself.
    fn own_schema(&self) -> String {
        if self.is_custom() && self.message == Some(self.kind.shown) {
            return crate::custom::schema_name(self.kind);
        }
        self.message.map_or_else(|| format!("{META}Status"), |index| MESSAGES[index].openapi.to_owned())
    }

    fn body(&self, action: Action) -> Option<(String, bool)> {
        match action {
            Post | Put => Some((self.own_schema(), true)),
            Patch => Some((schemas::PATCH.to_owned(), true)),
            Delete => Some((format!("{META}DeleteOptions"), false)),
            DeleteCollection if !self.is_custom() => Some((format!("{META}DeleteOptions"), false)),
            _ => None,
        }
    }

    /// What bodies are written in.
    fn consumed(&self, action: Action) -> Vec<&'static str> {
        let strategic = PATCH_TYPES[2];
        match (action, self.is_custom()) {
            (Patch, custom) => PATCH_TYPES.into_iter().filter(|ty| !custom || *ty != strategic).collect(),
            (_, true) => vec![JSON, YAML],
            _ => vec![ANY],
        }
    }

    /// What answers are written in.
    fn produced(&self, action: Action) -> Vec<&'static str> {
        match action {
            Connect(_) => vec![ANY],
            _ if self.is_custom() => vec![JSON, YAML],
            _ if self.subresource == "log" => vec!["text/plain", JSON, YAML, PROTOBUF],
            _ if action.streams() => vec![JSON, YAML, PROTOBUF, STREAMS[0], STREAMS[1]],
            _ => vec![JSON, YAML, PROTOBUF],
        }
    }

    fn responses(&self, action: Action) -> Value {
        let codes: &[(&str, &str)] = match action {
            Post => &[("200", "OK"), ("201", "Created"), ("202", "Accepted")],
            Patch if self.is_custom() => &[("200", "OK")],
            Put | Patch => &[("200", "OK"), ("201", "Created")],
            Delete => &[("200", "OK"), ("202", "Accepted")],
            _ => &[("200", "OK")],
        };
        responses(codes, &self.answer(action), &self.produced(action), self.style)
    }

    fn answer(&self, action: Action) -> Value {
        let text = json!({"type": "string"});
        let named = |name: &str| self.style.reference(name);
        match action {
            Connect(_) => text,
            Get if self.subresource == "log" => text,
            Watch | WatchList => named(&format!("{META}WatchEvent")),
            List if self.is_custom() => named(&format!("{}List", self.own_schema())),
            List => self.kind.list_message.map_or_else(|| named(&self.own_schema()), |i| named(MESSAGES[i].openapi)),
            Delete if crate::strategy::returns_deleted_object(self.kind) => named(&self.own_schema()),
            Delete | DeleteCollection => named(&format!("{META}Status")),
            _ => named(&self.own_schema()),
        }
    }

    /// `apps_v1`, `rbacAuthorization_v1`.
    fn tag(&self) -> String {
        format!("{}_{}", group_tag(self.kind.group), identifier(self.kind.version, false))
    }

    fn description(&self, action: Action) -> String {
        let (kind, sub) = (self.kind.kind, self.subresource);
        let of = |word: &str, rest: &str| match sub {
            "" => format!("{word} {rest}"),
            sub => format!("{word} {sub} of {rest}"),
        };
        match action {
            Get => of("read", &format!("the specified {kind}")),
            Put => of("replace", &format!("the specified {kind}")),
            Patch => of("partially update", &format!("the specified {kind}")),
            Post => of("create", &with_article(kind)),
            Delete => format!("delete {}", with_article(kind)),
            DeleteCollection => format!("delete collection of {kind}"),
            List if self.kind.has_verb("watch") && !self.is_custom() => format!("list or watch objects of kind {kind}"),
            List => format!("list objects of kind {kind}"),
            Watch => format!(
                "watch changes to an object of kind {kind}. deprecated: use the 'watch' parameter with a list operation \
                 instead, filtered to a single item with the 'fieldSelector' parameter."
            ),
            WatchList => format!(
                "watch individual changes to a list of {kind}. deprecated: use the 'watch' parameter with a list \
                 operation instead."
            ),
            Connect(method) => format!("connect {} requests to {sub} of {kind}", method.to_uppercase()),
        }
    }

    /// `listAppsV1NamespacedDeployment`.
    fn operation_id(&self, action: Action) -> String {
        let word = match action {
            Get => "read",
            List => "list",
            Post => "create",
            Put => "replace",
            Patch => "patch",
            Delete | DeleteCollection => "delete",
            Watch | WatchList => "watch",
            Connect(_) => "connect",
        };
        let before = match action {
            DeleteCollection => "Collection".to_owned(),
            Connect(method) => capital(method),
            _ => String::new(),
        };
        let list = if action == WatchList { "List" } else { "" };
        let namespaced = if self.kind.namespaced && !self.everywhere { "Namespaced" } else { "" };
        let everywhere = if self.everywhere { "ForAllNamespaces" } else { "" };
        let path = if self.goes_on { "WithPath" } else { "" };
        let (group, version) = (group_name(self.kind.group), identifier(self.kind.version, true));
        let (kind, sub) = (identifier(self.kind.kind, true), capital(self.subresource));
        format!("{word}{group}{version}{before}{namespaced}{kind}{sub}{list}{everywhere}{path}")
    }
}

/// Answers by code, and that of somebody who is nobody.
pub(super) fn responses(codes: &[(&str, &str)], schema: &Value, types: &[&str], style: Style) -> Value {
    let mut made = Map::new();
    for (code, description) in codes {
        let response = match style {
            Style::V2 => json!({"description": description, "schema": schema}),
            Style::V3 => {
                let content = types.iter().map(|ty| ((*ty).to_owned(), json!({"schema": schema})));
                json!({"description": description, "content": content.collect::<Map<_, _>>()})
            }
        };
        made.insert((*code).to_owned(), response);
    }
    made.insert("401".to_owned(), json!({"description": "Unauthorized"}));
    Value::Object(made)
}

/// What discovery answers in.
pub(super) const DISCOVERY_TYPES: [&str; 3] = [JSON, YAML, PROTOBUF];

fn with_article(noun: &str) -> String {
    let plural = noun.ends_with('s') && !noun.ends_with("ss");
    let vowel = noun.starts_with(['A', 'E', 'I', 'O', 'U']);
    match (plural, vowel) {
        (true, _) => noun.to_owned(),
        (false, true) => format!("an {noun}"),
        (false, false) => format!("a {noun}"),
    }
}

/// `RbacAuthorization` for `rbac.authorization.k8s.io`.
pub(super) fn group_name(group: &str) -> String {
    identifier(short_name(group), true)
}

/// `rbacAuthorization` for `rbac.authorization.k8s.io`.
pub(super) fn group_tag(group: &str) -> String {
    identifier(short_name(group), false)
}

fn short_name(group: &str) -> &str {
    if group.is_empty() { "core" } else { group.strip_suffix(".k8s.io").unwrap_or(group) }
}

/// What of a name may stand in an identifier: its letters and digits, but no digit at the beginning. Letters behind
/// what is left out are capitals.
fn identifier(name: &str, is_capital: bool) -> String {
    let mut is_capital = is_capital;
    let mut made = String::with_capacity(name.len());
    for (at, letter) in name.char_indices() {
        let fits = letter.is_alphabetic() || letter == '_' || (at > 0 && letter.is_numeric());
        if fits {
            made.push(if is_capital { letter.to_ascii_uppercase() } else { letter });
        }
        is_capital = !fits;
    }
    made
}

pub(super) fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|c| c.to_ascii_uppercase()).into_iter().chain(letters.as_str().chars()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_identifiers_of_their_letters_and_digits() {
        let names = ["", "apps", "rbac.authorization.k8s.io", "cert-manager.io", "cluster.x-k8s.io", "3scale.net"];
        let groups = ["Core", "Apps", "RbacAuthorization", "CertManagerIo", "ClusterXK8sIo", "ScaleNet"];
        assert_eq!(names.map(group_name), groups);
        let tags = ["core", "apps", "rbacAuthorization", "certManagerIo", "clusterXK8sIo", "ScaleNet"];
        assert_eq!(names.map(group_tag), tags);
    }
}
