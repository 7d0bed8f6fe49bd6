//! `validatingadmissionpolicy-status-controller`: says in a policy's status where its expressions do not fit the
//! types of the objects that it is for. That is advice; the policy is in force all the same.

use std::collections::BTreeSet;
use std::time::Duration;

use api::admissionregistration::v1::{
    ExpressionWarning, NamedRuleWithOperations, TypeChecking, ValidatingAdmissionPolicy, Variable,
};
use bytes::Bytes;
use cel::admission::{Scope, Variables, environment, variable_type};
use cel::{Schema, Type, type_of_kind};
use reconcile::{Action, Queue};
use serde_json::Value;

use crate::caches::{Need, Reflectors, need};
use crate::controller::{Context, Controller, Key, enqueue};
use crate::error::{During, Error};

/// Types that one rule is checked against.
const MAX_TYPES: usize = 10;

/// How long reading a definition may take.
const READ_LIMIT: Duration = Duration::from_secs(10);

pub(crate) struct PolicyTypes {
    context: Context,
}

/// A group, a version and a resource.
type Resource = (String, String, String);

/// A type of objects, and what messages call it.
struct Checked {
    name: String,
    ty: Type,
}

impl Controller for PolicyTypes {
    const NAME: &'static str = "validatingadmissionpolicy-status-controller";
    const NEEDS: &'static [Need] = &[need::validating_policies];

    fn watch(&self, queue: &Queue<Key>, reflectors: &mut Reflectors) {
        reflectors.validating_policies.handle(enqueue(queue));
    }

    fn new(context: Context) -> Self {
        Self { context }
    }

    async fn reconcile(&self, key: Key) -> Result<Action, Error> {
        let Some(policy) = self.context.caches.validating_policies.get("", &key.name) else { return Ok(Action::Done) };
        if policy.metadata.generation <= policy.status.observed_generation {
            return Ok(Action::Done);
        }
        let mut types = Vec::new();
        for resource in resources(&policy) {
            types.extend(self.type_of(&resource).await?);
        }
        let params = self.params(&policy);
        let mut changed = (*policy).clone();
        changed.status.observed_generation = policy.metadata.generation;
        changed.status.type_checking =
            Some(TypeChecking { expression_warnings: warnings(&policy, &types, params.as_ref()) });
        self.context.client.update_status(&changed).await.during("writing the status")?;
        Ok(Action::Done)
    }
}

impl PolicyTypes {
    /// The type of a resource's objects, if there is such a resource.
    async fn type_of(&self, (group, version, plural): &Resource) -> Result<Option<Checked>, Error> {
        let version_name = if group.is_empty() { version.clone() } else { format!("{group}/{version}") };
        if let Some(kind) = api::kind_by_resource(group, version, plural) {
            let name = format!("{version_name}, Kind={}", kind.kind);
            return Ok(Some(Checked { name, ty: type_of_kind(kind) }));
        }
        let Some(definition) = self.definition(&format!("{plural}.{group}")).await? else { return Ok(None) };
        let kind = definition["spec"]["names"]["kind"].as_str().unwrap_or_default();
        let versions = definition["spec"]["versions"].as_array();
        let of_version = versions.into_iter().flatten().find(|v| v["name"] == version.as_str());
        let schema = of_version.and_then(|v| Schema::new(&v["schema"]["openAPIV3Schema"], kind, true));
        let name = format!("{version_name}, Kind={kind}");
        Ok(schema.map(|schema| Checked { name, ty: schema.ty().clone() }))
    }

    /// The definition of custom resources of that name.
    async fn definition(&self, name: &str) -> Result<Option<Value>, Error> {
        let path = format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}");
        let request = http::Request::get(path).header("accept", "application/json").body(Bytes::new());
        let Ok(request) = request else { return Ok(None) };
        let answer = async {
            let response = self.context.client.raw(request).await.during("reading a definition")?;
            if !response.status().is_success() {
                return Ok(None);
            }
            let body = http_body_util::BodyExt::collect(response.into_body()).await;
            Ok(body.ok().and_then(|body| serde_json::from_slice(&body.to_bytes()).ok()))
        };
        tokio::time::timeout(READ_LIMIT, answer).await.unwrap_or(Ok(None))
    }

    /// The type of parameters: none where there are none. Those of custom kinds are of any type.
    fn params(&self, policy: &ValidatingAdmissionPolicy) -> Option<Type> {
        let kind = policy.spec.param_kind.as_ref()?;
        Some(api::kind_by_name(&kind.api_version, &kind.kind).map_or(Type::Dyn, type_of_kind))
    }
}

/// The resources that a policy names one by one, in order.
fn resources(policy: &ValidatingAdmissionPolicy) -> BTreeSet<Resource> {
    let mut found = BTreeSet::new();
    let constraints = policy.spec.match_constraints.iter();
    for named in constraints.flat_map(|c| &c.resource_rules) {
        found.extend(of_rule(named).into_iter().take(MAX_TYPES));
    }
    found
}

fn of_rule(named: &NamedRuleWithOperations) -> Vec<Resource> {
    let rule = &named.rule_with_operations.rule;
    let is_open = |list: &[String]| list.iter().any(|item| item.contains('*'));
    if is_open(&rule.api_groups) || is_open(&rule.api_versions) {
        return Vec::new();
    }
    let plain = || rule.resources.iter().filter(|r| !r.contains(['*', '/']));
    let mut found = Vec::new();
    for group in &rule.api_groups {
        for version in &rule.api_versions {
            found.extend(plain().map(|resource| (group.clone(), version.clone(), resource.clone())));
        }
    }
    found.sort();
    found
}

fn warnings(policy: &ValidatingAdmissionPolicy, types: &[Checked], params: Option<&Type>) -> Vec<ExpressionWarning> {
    let mut warnings = Vec::new();
    let mut check = |field_ref: String, expression: &str| {
        let found = types.iter().filter_map(|checked| {
            let problem = problem(expression, (&checked.ty, params), &policy.spec.variables)?;
            Some(format!("{}: {problem}\n", checked.name))
        });
        let found: Vec<String> = found.collect();
        if !found.is_empty() {
            warnings.push(ExpressionWarning { field_ref, warning: found.join("\n") });
        }
    };
    for (i, validation) in policy.spec.validations.iter().enumerate() {
        check(format!("spec.validations[{i}].expression"), &validation.expression);
        if !validation.message_expression.is_empty() {
            check(format!("spec.validations[{i}].messageExpression"), &validation.message_expression);
        }
    }
    warnings
}

/// What is wrong with an expression about objects of a type.
fn problem(expression: &str, (object, params): (&Type, Option<&Type>), variables: &[Variable]) -> Option<String> {
    let scope = Scope { params: params.is_some(), authorizer: true, patches: false };
    let typed = |known: &Variables| {
        let typed = environment(scope, Some(known)).with("object", object.clone()).with("oldObject", object.clone());
        params.map_or(typed.clone(), |params| typed.with("params", params.clone()))
    };
    let mut known = Variables::new();
    for variable in variables {
        let checked = typed(&known).check(&variable.expression);
        let ty = checked.map_or(Type::Dyn, |checked| variable_type(checked.output_type()));
        known.insert(variable.name.clone(), ty);
    }
    typed(&known).check(expression).err().map(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use api::admissionregistration::v1::{MatchResources, Rule, RuleWithOperations, Validation};

    use super::*;

    #[test]
    fn confused_types_are_told() {
        let one = |text: &str| vec![text.to_owned()];
        let rule = Rule {
            api_groups: one("apps"),
            api_versions: one("v1"),
            resources: vec!["deployments".to_owned(), "deployments/scale".to_owned()],
            ..Rule::default()
        };
        let rule = RuleWithOperations { rule, ..RuleWithOperations::default() };
        let rule = NamedRuleWithOperations { rule_with_operations: rule, ..NamedRuleWithOperations::default() };
        let mut policy = ValidatingAdmissionPolicy::default();
        policy.spec.match_constraints =
            Some(MatchResources { resource_rules: vec![rule], ..MatchResources::default() });
        policy.spec.variables = vec![Variable { name: "r".to_owned(), expression: "object.spec.replicas".to_owned() }];
        policy.spec.validations = vec![
            Validation { expression: "variables.r > 1".to_owned(), ..Validation::default() },
            Validation {
                expression: "object.spec.replicas > '1'".to_owned(),
                message_expression: "'got ' + object.spec.replicas".to_owned(),
                ..Validation::default()
            },
        ];
        let found = resources(&policy);
        assert_eq!(found.len(), 1);
        let kind = api::kind_by_resource("apps", "v1", "deployments").unwrap();
        let types = [Checked { name: "apps/v1, Kind=Deployment".to_owned(), ty: type_of_kind(kind) }];
        let told = warnings(&policy, &types, None);
        assert_eq!(told.len(), 2);
        assert_eq!(told[0].field_ref, "spec.validations[1].expression");
        assert!(
            told[0].warning.starts_with("apps/v1, Kind=Deployment: ERROR: <input>:1:22: found no matching overload")
        );
        assert!(told[1].warning.contains("'_+_' applied to '(string, int)'"));
    }
}
