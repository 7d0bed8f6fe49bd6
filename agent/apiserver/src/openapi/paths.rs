//! Paths, from the rows of kinds.

use api::{Kind, Subresource};
use serde_json::{Map, Value, json};

use super::Style;
use super::operations::{self, Action, DISCOVERY_TYPES, Target, capital, group_name, group_tag};
use super::parameters::{name, parameter, path_item};
use super::schemas::{VERSION_INFO, subresource_message};

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.";

/// Actions at a collection and at one of its objects, with the verb that each needs.
const COLLECTION: [(Action, &str); 3] =
    [(Action::List, "list"), (Action::Post, "create"), (Action::DeleteCollection, "deletecollection")];
const ITEM: [(Action, &str); 4] =
    [(Action::Get, "get"), (Action::Put, "update"), (Action::Patch, "patch"), (Action::Delete, "delete")];
const ALL_METHODS: [&str; 7] = ["get", "put", "post", "delete", "options", "head", "patch"];

/// The path items of these kinds.
pub(super) fn of<'a>(kinds: impl Iterator<Item = &'a Kind>, style: Style) -> Map<String, Value> {
    let mut paths = Map::new();
    for kind in kinds {
        let mut made = Made { kind, style, paths: &mut paths };
        made.objects();
        if kind.has_verb("watch") && !crate::custom::is_custom(kind) {
            made.watches();
        }
        for sub in kind.subresources {
            made.subresource(sub);
        }
        if !crate::custom::is_custom(kind) {
            let path = kind.path(None);
            let root = path.rsplit_once('/').map_or("", |(root, _)| root);
            paths.entry(format!("{root}/")).or_insert_with(|| {
                let id = format!("get{}{}APIResources", group_name(kind.group), capital(kind.version));
                let tag = format!("{}_{}", group_tag(kind.group), kind.version);
                discovery((&tag, &id, "get available resources"), "APIResourceList", style)
            });
        }
    }
    paths
}

/// A path that is about no kind, with the schema of its answer.
fn discovery((tag, id, description): (&str, &str, &str), schema: &str, style: Style) -> Value {
    let types = DISCOVERY_TYPES.as_slice();
    plain((tag, id, description), &style.reference(&format!("{META}{schema}")), (types, types), style)
}

fn plain(
    (tag, id, description): (&str, &str, &str),
    schema: &Value,
    (consumed, produced): (&[&str], &[&str]),
    style: Style,
) -> Value {
    let mut get = json!({
        "tags": [tag], "operationId": id, "description": description,
        "responses": operations::responses(&[("200", "OK")], schema, produced, style),
    });
    if style == Style::V2 {
        if !consumed.is_empty() {
            get["consumes"] = json!(consumed);
        }
        get["produces"] = json!(produced);
        get["schemes"] = json!(["https"]);
    }
    json!({ "get": get })
}

/// The document and path of what belongs to no group version: discovery of groups, version, keys.
pub(super) fn others(groups: &[&str], style: Style) -> Vec<(String, String, Value)> {
    let mut made = Vec::new();
    let mut add = |document: &str, item: Value| made.push((document.to_owned(), format!("/{document}/"), item));
    let versions = "get available API versions";
    add("api", discovery(("core", "getCoreAPIVersions", versions), "APIVersions", style));
    add("apis", discovery(("apis", "getAPIVersions", versions), "APIGroupList", style));
    for group in groups.iter().filter(|group| !group.is_empty()) {
        let id = format!("get{}APIGroup", group_name(group));
        let item = discovery((&group_tag(group), &id, "get information of a group"), "APIGroup", style);
        add(&format!("apis/{group}"), item);
    }
    let json = ["application/json"].as_slice();
    let text = json!({"type": "string"});
    let words = ("version", "getCodeVersion", "get the version information for this server");
    add("version", plain(words, &style.reference(VERSION_INFO), (json, json), style));
    let words = (
        "WellKnown",
        "getServiceAccountIssuerOpenIDConfiguration",
        "get service account issuer OpenID configuration, also known as the 'OIDC discovery doc'",
    );
    add(".well-known/openid-configuration", plain(words, &text, (&[], json), style));
    let words = (
        "openid",
        "getServiceAccountIssuerOpenIDKeyset",
        "get service account issuer OpenID JSON Web Key Set (contains public token verification keys)",
    );
    add("openid/v1/jwks", plain(words, &text, (&[], &["application/jwk-set+json"]), style));
    made
}

/// The paths of one kind in the making.
struct Made<'a, 'p> {
    kind: &'a Kind,
    style: Style,
    paths: &'p mut Map<String, Value>,
}

impl<'a> Made<'a, '_> {
    fn target(&self) -> Target<'a> {
        let kind = self.kind;
        Target {
            kind,
            shown: (kind.group, kind.version, kind.kind),
            message: Some(kind.shown),
            subresource: "",
            everywhere: false,
            goes_on: false,
            style: self.style,
        }
    }

    fn collection(&self) -> String {
        self.kind.path(self.kind.namespaced.then_some("{namespace}"))
    }

    /// What the path itself names.
    fn in_path(&self, of_object: Option<&str>, everywhere: bool) -> Vec<Value> {
        let mut made: Vec<Value> = of_object.map(|kind| name(kind, self.style)).into_iter().collect();
        if self.kind.namespaced && !everywhere {
            made.push(parameter("path", "namespace", "string", self.style));
        }
        made
    }

    fn add(&mut self, path: String, target: Target<'_>, actions: &[Action], in_path: &[Value]) {
        if actions.is_empty() {
            return;
        }
        let operations = actions.iter().map(|action| {
            let (operation, mut own) = target.operation(*action);
            own.extend_from_slice(in_path);
            (action.method(), operation, own)
        });
        self.paths.insert(path, path_item(operations.collect()));
    }

    fn objects(&mut self) {
        let (kind, target) = (self.kind, self.target());
        let allowed = |actions: &[(Action, &str)]| -> Vec<Action> {
            actions.iter().filter(|(_, verb)| kind.has_verb(verb)).map(|(action, _)| *action).collect()
        };
        if kind.namespaced && kind.has_verb("list") {
            let in_path = self.in_path(None, true);
            self.add(kind.path(None), Target { everywhere: true, ..target }, &[Action::List], &in_path);
        }
        let in_path = self.in_path(None, false);
        self.add(self.collection(), target, &allowed(&COLLECTION), &in_path);
        if kind.has_verb("get") {
            let in_path = self.in_path(Some(kind.kind), false);
            self.add(format!("{}/{{name}}", self.collection()), target, &allowed(&ITEM), &in_path);
        }
    }

    /// Watches in the old form.
    fn watches(&mut self) {
        let (kind, target) = (self.kind, self.target());
        let old = |path: &str| {
            let root = kind.path(None);
            let root = root.rsplit_once('/').map_or("", |(root, _)| root);
            format!("{root}/watch{}", &path[root.len()..])
        };
        if kind.namespaced {
            let in_path = self.in_path(None, true);
            let everywhere = Target { everywhere: true, ..target };
            self.add(old(&kind.path(None)), everywhere, &[Action::WatchList], &in_path);
        }
        let collection = old(&self.collection());
        let in_path = self.in_path(None, false);
        self.add(collection.clone(), target, &[Action::WatchList], &in_path);
        if kind.has_verb("get") {
            let in_path = self.in_path(Some(kind.kind), false);
            self.add(format!("{collection}/{{name}}"), target, &[Action::Watch], &in_path);
        }
    }

    fn subresource(&mut self, sub: &'a Subresource) {
        let kind = self.kind;
        let own = !sub.version.is_empty() && !crate::custom::is_custom(kind);
        let shown = if own { (sub.group, sub.version, sub.kind) } else { (kind.group, kind.version, kind.kind) };
        let shown = if sub.version.is_empty() { (shown.0, shown.1, sub.kind) } else { shown };
        let target = Target { shown, message: subresource_message(kind, sub), subresource: sub.name, ..self.target() };
        let path = format!("{}/{{name}}/{}", self.collection(), sub.name);
        let in_path = self.in_path(Some(shown.2), false);
        let connects: &[&'static str] = match sub.name {
            "exec" | "attach" | "portforward" => &["get", "post"],
            "proxy" => &ALL_METHODS,
            _ => &[],
        };
        if connects.is_empty() {
            let actions = ITEM.into_iter().chain([(Action::Post, "create")]);
            let actions: Vec<Action> =
                actions.filter(|(_, verb)| sub.verbs.contains(verb)).map(|(action, _)| action).collect();
            return self.add(path, target, &actions, &in_path);
        }
        let actions: Vec<Action> = connects.iter().map(|method| Action::Connect(method)).collect();
        self.add(path.clone(), target, &actions, &in_path);
        if sub.name == "proxy" {
            let mut in_path = in_path;
            in_path.push(parameter("path", "path", "string", self.style));
            self.add(format!("{path}/{{path}}"), Target { goes_on: true, ..target }, &actions, &in_path);
        }
    }
}
