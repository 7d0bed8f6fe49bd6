//! How long admission takes, and what it refuses: all of it, the parts that may wait for others, and each webhook.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::RwLock;

use super::{Histogram, Text};

const SECONDS: &[f64] = &[0.005, 0.025, 0.1, 0.5, 1.0, 2.5];
const HOOK_SECONDS: &[f64] = &[0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 10.0, 25.0];
/// Most series of a metric: webhooks come and go, and their names are anybody's.
const MAX_SERIES: usize = 10_000;
/// Higher codes than this are not told apart.
const MAX_CODE: u16 = 600;

/// What admission is about to do with an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Change it.
    Admit,
    /// Judge it.
    Validate,
}

impl Step {
    fn name(self) -> &'static str {
        match self {
            Self::Admit => "admit",
            Self::Validate => "validate",
        }
    }

    /// Upstream has another word for it where webhooks are counted.
    fn of_hook(self) -> &'static str {
        match self {
            Self::Admit => "admit",
            Self::Validate => "validating",
        }
    }
}

/// How a question to a webhook ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// It has nothing against it.
    Allowed,
    /// It refuses, with this code.
    Refused(u16),
    /// It did not answer, and that is a refusal.
    Failed,
    /// It did not answer, and that does not matter.
    FailedOpen,
}

impl Asked {
    /// The code, whether the request is refused, and in whose name.
    fn told(self) -> (u16, bool, &'static str) {
        const UNAVAILABLE: u16 = 503;
        match self {
            Self::Allowed => (200, false, ""),
            Self::Refused(code) => (code.min(MAX_CODE), true, "no_error"),
            Self::Failed => (UNAVAILABLE, true, "calling_webhook_error"),
            Self::FailedOpen => (UNAVAILABLE, false, ""),
        }
    }
}

/// A question to a webhook.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The webhook.
    pub hook: &'a str,
    /// What it is asked about.
    pub step: Step,
    /// Such as `CREATE`.
    pub operation: &'a str,
}

/// Series of one metric, by the values of their labels. What is counted with every write has labels that need no copies.
pub(super) struct Series<L, T, const N: usize>(RwLock<HashMap<[L; N], Arc<T>>>);

impl<L, T, const N: usize> Default for Series<L, T, N> {
    fn default() -> Self {
        Self(RwLock::default())
    }
}

impl<L: Hash + Ord + Clone + AsRef<str>, T, const N: usize> Series<L, T, N> {
    pub(super) fn at(&self, key: [L; N], make: impl FnOnce() -> T) -> Arc<T> {
        if let Some(known) = self.0.read().get(&key) {
            return known.clone();
        }
        let mut all = self.0.write();
        if all.len() >= MAX_SERIES {
            all.clear();
        }
        all.entry(key).or_insert_with(|| Arc::new(make())).clone()
    }

    pub(super) fn write(&self, names: [&str; N], mut write: impl FnMut(&[(&str, &str)], &T)) {
        let mut all: Vec<_> = self.0.read().iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        all.sort_by(|(a, _), (b, _)| a.cmp(b));
        for (key, value) in &all {
            let labels: Vec<(&str, &str)> = names.into_iter().zip(key.iter().map(AsRef::as_ref)).collect();
            write(&labels, value);
        }
    }
}

/// What PodSecurity looks at, as its metrics name it: the operation, the sort of resource, and the subresource.
#[derive(Clone, Copy, Debug)]
pub struct Looked<'a> {
    /// Such as `create`.
    pub operation: &'static str,
    /// `pod`, or `controller` for what will make pods.
    pub resource: &'static str,
    /// Empty for the object itself.
    pub subresource: &'a str,
}

/// What PodSecurity found: the mode in which the decision counts, and the level and release it was judged by.
#[derive(Clone, Copy, Debug)]
pub struct Judged<'a> {
    /// Whether nothing is wrong.
    pub is_allowed: bool,
    /// Such as `enforce`.
    pub mode: &'static str,
    /// Such as `baseline`.
    pub level: &'static str,
    /// Such as `v1.30`.
    pub version: &'a str,
}

/// Counters of admission.
#[derive(Default)]
pub struct Admission {
    judged: Series<Box<str>, AtomicU64, 7>,
    exempted: Series<Box<str>, AtomicU64, 3>,
    misread: Series<Box<str>, AtomicU64, 4>,
    steps: Series<&'static str, Histogram, 3>,
    plugins: Series<&'static str, Histogram, 4>,
    hooks: Series<Box<str>, Histogram, 4>,
    asked: Series<Box<str>, AtomicU64, 5>,
    refused: Series<Box<str>, AtomicU64, 5>,
    open: Series<Box<str>, AtomicU64, 2>,
}

impl Admission {
    /// Counts one step of a request.
    pub fn step(&self, step: Step, operation: &'static str, is_refused: bool, took: Duration) {
        let labels = [operation, flag(is_refused), step.name()];
        self.steps.at(labels, || Histogram::new(SECONDS)).observe(took.as_secs_f64());
    }

    /// Counts what one plugin did in a step of an operation.
    pub fn plugin(
        &self,
        name: &'static str,
        (step, operation): (Step, &'static str),
        is_refused: bool,
        took: Duration,
    ) {
        let labels = [name, operation, flag(is_refused), step.name()];
        self.plugins.at(labels, || Histogram::new(SECONDS)).observe(took.as_secs_f64());
    }

    /// Counts a question to a webhook.
    pub fn hook(&self, question: Question<'_>, asked: Asked, took: Duration) {
        let Question { hook, step, operation } = question;
        let (step, (code, is_refused, error)) = (step.of_hook(), asked.told());
        let code = code.to_string();
        let labels = [hook, operation, flag(is_refused), step];
        self.hooks.at(labels.map(Box::from), || Histogram::new(HOOK_SECONDS)).observe(took.as_secs_f64());
        count(&self.asked, [code.as_str(), hook, operation, flag(is_refused), step]);
        if is_refused {
            count(&self.refused, [error, hook, operation, code.as_str(), step]);
        }
        if asked == Asked::FailedOpen {
            count(&self.open, [hook, step]);
        }
    }

    /// Counts a pod that PodSecurity judged.
    pub fn judged(&self, looked: Looked<'_>, judged: Judged<'_>) {
        let Judged { is_allowed, mode, level, version } = judged;
        let decision = if is_allowed { "allow" } else { "deny" };
        let Looked { operation, resource, subresource } = looked;
        count(&self.judged, [decision, mode, level, version, operation, resource, subresource]);
    }

    /// Counts a pod of which nothing is demanded.
    pub fn exempted(&self, Looked { operation, resource, subresource }: Looked<'_>) {
        count(&self.exempted, [operation, resource, subresource]);
    }

    /// Counts a namespace whose labels cannot be read, which is no reason to stop.
    pub fn misread(&self, Looked { operation, resource, subresource }: Looked<'_>) {
        count(&self.misread, [flag(false), operation, resource, subresource]);
    }

    pub(super) fn write(&self, out: &mut Text) {
        self.write_pod_security(out);
        let name = "apiserver_admission_step_admission_duration_seconds";
        out.family(name, "histogram", "Seconds that a step of admission took.");
        self.steps.write(["operation", "rejected", "type"], |labels, seconds| out.histogram(name, labels, seconds));
        let labels = ["name", "operation", "rejected", "type"];
        let name = "apiserver_admission_controller_admission_duration_seconds";
        out.family(name, "histogram", "Seconds that a plugin of admission took.");
        self.plugins.write(labels, |labels, seconds| out.histogram(name, labels, seconds));
        let name = "apiserver_admission_webhook_admission_duration_seconds";
        out.family(name, "histogram", "Seconds that a webhook took to answer.");
        self.hooks.write(labels, |labels, seconds| out.histogram(name, labels, seconds));
        let name = "apiserver_admission_webhook_request_total";
        out.family(name, "counter", "Questions to webhooks.");
        let labels = ["code", "name", "operation", "rejected", "type"];
        self.asked.write(labels, |labels, count| out.sample(name, labels, count.load(Relaxed)));
        let name = "apiserver_admission_webhook_rejection_count";
        out.family(name, "counter", "Requests that webhooks refused, or that were refused for want of their answer.");
        let labels = ["error_type", "name", "operation", "rejection_code", "type"];
        self.refused.write(labels, |labels, count| out.sample(name, labels, count.load(Relaxed)));
        let name = "apiserver_admission_webhook_fail_open_count";
        out.family(name, "counter", "Requests that went on although a webhook did not answer.");
        self.open.write(["name", "type"], |labels, count| out.sample(name, labels, count.load(Relaxed)));
    }
}

impl Admission {
    fn write_pod_security(&self, out: &mut Text) {
        let name = "pod_security_evaluations_total";
        out.family(name, "counter", "Pods that PodSecurity judged.");
        let looked = ["request_operation", "resource", "subresource"];
        let labels = ["decision", "mode", "policy_level", "policy_version", looked[0], looked[1], looked[2]];
        self.judged.write(labels, |labels, count| out.sample(name, labels, count.load(Relaxed)));
        let name = "pod_security_exemptions_total";
        // All of them are told from the start.
        for (operation, resource) in
            [("create", "pod"), ("create", "controller"), ("update", "pod"), ("update", "controller")]
        {
            self.exempted.at([operation, resource, ""].map(Box::from), AtomicU64::default);
        }
        out.family(name, "counter", "Pods of which PodSecurity demands nothing.");
        self.exempted.write(looked, |labels, count| out.sample(name, labels, count.load(Relaxed)));
        let name = "pod_security_errors_total";
        out.family(name, "counter", "Pods in namespaces whose labels PodSecurity cannot read.");
        let labels = ["fatal", looked[0], looked[1], looked[2]];
        self.misread.write(labels, |labels, count| out.sample(name, labels, count.load(Relaxed)));
    }
}

fn count<const N: usize>(series: &Series<Box<str>, AtomicU64, N>, labels: [&str; N]) {
    series.at(labels.map(Box::from), AtomicU64::default).fetch_add(1, Relaxed);
}

fn flag(is: bool) -> &'static str {
    if is { "true" } else { "false" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_webhook_s_answers_are_told_apart() {
        let admission = Admission::default();
        let question = Question { hook: "a.b.c", step: Step::Validate, operation: "CREATE" };
        for asked in [Asked::Allowed, Asked::Refused(700), Asked::Failed, Asked::FailedOpen, Asked::FailedOpen] {
            admission.hook(question, asked, Duration::from_secs(7));
        }
        admission.step(Step::Admit, "UPDATE", true, Duration::ZERO);
        let looked = Looked { operation: "create", resource: "pod", subresource: "" };
        let judged = Judged { is_allowed: false, mode: "warn", level: "baseline", version: "v1.30" };
        admission.judged(looked, judged);
        admission.exempted(looked);
        let mut out = Text::default();
        admission.write(&mut out);
        let text = out.finish();
        let (all, webhook) = (r#"name="a.b.c",operation="CREATE""#, "apiserver_admission_webhook");
        for line in [
            format!(r#"{webhook}_request_total{{code="200",{all},rejected="false",type="validating"}} 1"#),
            format!(r#"{webhook}_request_total{{code="503",{all},rejected="false",type="validating"}} 2"#),
            format!(r#"{webhook}_rejection_count{{error_type="no_error",{all},rejection_code="600",type="validating"}} 1"#),
            format!(r#"{webhook}_rejection_count{{error_type="calling_webhook_error",{all},rejection_code="503",type="validating"}} 1"#),
            r#"pod_security_evaluations_total{decision="deny",mode="warn",policy_level="baseline",policy_version="v1.30",request_operation="create",resource="pod",subresource=""} 1"#.to_owned(),
            r#"pod_security_exemptions_total{request_operation="create",resource="pod",subresource=""} 1"#.to_owned(),
            r#"pod_security_exemptions_total{request_operation="update",resource="pod",subresource=""} 0"#.to_owned(),
            format!(r#"{webhook}_fail_open_count{{name="a.b.c",type="validating"}} 2"#),
            format!(r#"{webhook}_admission_duration_seconds_bucket{{{all},rejected="true",type="validating",le="10"}} 2"#),
            r#"apiserver_admission_step_admission_duration_seconds_count{operation="UPDATE",rejected="true",type="admit"} 1"#.to_owned(),
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn names_of_webhooks_do_not_fill_memory() {
        let admission = Admission::default();
        for number in 0..=MAX_SERIES {
            let hook = number.to_string();
            let question = Question { hook: &hook, step: Step::Admit, operation: "CREATE" };
            admission.hook(question, Asked::Allowed, Duration::ZERO);
        }
        assert_eq!(admission.asked.0.read().len(), 1);
    }
}
