use super::*;

fn deployment(replicas: i32, image: &str) -> Deployment {
    let mut deployment = Deployment::default();
    deployment.metadata.name = "d".to_owned();
    deployment.metadata.uid = "du".to_owned();
    deployment.spec.replicas = Some(replicas);
    deployment.spec.selector = Some(api::meta::v1::LabelSelector::default());
    deployment.spec.strategy.r#type = "RollingUpdate".to_owned();
    deployment.spec.template.spec.containers =
        vec![api::core::v1::Container { image: image.to_owned(), ..Default::default() }];
    deployment
}

fn set(of: &Deployment, name: &str, replicas: i32, available: i32, revision: i64) -> Arc<ReplicaSet> {
    let mut set = ReplicaSet::default();
    set.metadata.name = name.to_owned();
    set.metadata.uid = name.to_owned();
    set.metadata.annotations.insert(template::REVISION.to_owned(), revision.to_string());
    let desired = of.spec.replicas.unwrap();
    template::annotate_sizes(&mut set, desired, desired + limits(of, desired).surge);
    set.spec.replicas = Some(replicas);
    set.spec.template = of.spec.template.clone();
    set.status.replicas = replicas;
    set.status.available_replicas = available;
    Arc::new(set)
}

fn sizes(steps: &[Step]) -> Vec<(String, i32)> {
    steps
        .iter()
        .filter_map(|step| match step {
            Step::Create(set) => Some(("new".to_owned(), set.spec.replicas.unwrap())),
            Step::Update { set, scaled_from: Some(_) } => Some((set.metadata.name.clone(), set.spec.replicas.unwrap())),
            Step::Update { .. } | Step::Delete(_) | Step::Annotate(_) => None,
        })
        .collect()
}

fn sized(pairs: &[(&str, i32)]) -> Vec<(String, i32)> {
    pairs.iter().map(|(name, size)| ((*name).to_owned(), *size)).collect()
}

#[test]
fn a_new_deployment_gets_one_full_replica_set() {
    let steps = plan(&deployment(3, "a"), &[], &|| false, 0);
    assert_eq!(sizes(&steps), sized(&[("new", 3)]));
    assert_eq!(steps.last(), Some(&Step::Annotate(1)));
}

#[test]
fn a_new_template_starts_with_the_surge() {
    let (old, new) = (deployment(4, "a"), deployment(4, "b"));
    let sets = [set(&old, "old", 4, 4, 1)];
    // 25 % of 4: one more and one less.
    assert_eq!(sizes(&plan(&new, &sets, &|| true, 0)), sized(&[("new", 1), ("old", 3)]));
}

#[test]
fn pods_that_go_already_are_not_counted_on_twice() {
    let (mut old, mut new) = (deployment(10, "a"), deployment(10, "b"));
    let limits = api::apps::v1::RollingUpdateDeployment {
        max_surge: Some(IntOrString { int_val: 3, ..IntOrString::default() }),
        max_unavailable: Some(IntOrString { int_val: 2, ..IntOrString::default() }),
    };
    old.spec.strategy.rolling_update = Some(limits.clone());
    new.spec.strategy.rolling_update = Some(limits);
    // The old one was told to shrink to 8 a moment ago and still reports 10.
    let sets = [set(&old, "old", 8, 10, 1), set(&new, "now", 3, 0, 2)];
    assert_eq!(sizes(&plan(&new, &sets, &|| true, 0)), sized(&[("now", 5)]));
}

#[test]
fn old_pods_go_as_new_ones_become_available() {
    let (old, new) = (deployment(4, "a"), deployment(4, "b"));
    let waiting = [set(&old, "old", 3, 3, 1), set(&new, "new", 2, 0, 2)];
    assert_eq!(sizes(&plan(&new, &waiting, &|| true, 0)), sized(&[]));
    let moving = [set(&old, "old", 3, 3, 1), set(&new, "new", 2, 2, 2)];
    assert_eq!(sizes(&plan(&new, &moving, &|| true, 0)), sized(&[("old", 1)]));
}

#[test]
fn old_pods_that_do_not_work_go_at_once() {
    let (old, new) = (deployment(4, "a"), deployment(4, "b"));
    let sets = [set(&old, "old", 4, 1, 1), set(&new, "new", 1, 1, 2)];
    let steps = plan(&new, &sets, &|| true, 0);
    assert!(sizes(&steps).contains(&("old".to_owned(), 2)), "{steps:?}");
}

#[test]
fn recreating_waits_for_the_last_old_pod() {
    let mut new = deployment(2, "b");
    new.spec.strategy.r#type = "Recreate".to_owned();
    let old = set(&deployment(2, "a"), "old", 2, 2, 1);
    assert_eq!(sizes(&plan(&new, &[old], &|| true, 0)), sized(&[("old", 0)]));
    let empty = set(&deployment(2, "a"), "old", 0, 0, 1);
    assert_eq!(sizes(&plan(&new, std::slice::from_ref(&empty), &|| true, 0)), sized(&[]));
    assert_eq!(sizes(&plan(&new, &[empty], &|| false, 0)), sized(&[("new", 2)]));
}

#[test]
fn a_new_size_is_spread_by_shares() {
    let (small, large) = (deployment(10, "a"), deployment(20, "b"));
    let old = set(&small, "old", 8, 8, 1);
    let mut current = (*set(&small, "new", 5, 5, 2)).clone();
    current.spec.template = large.spec.template.clone();
    let steps = plan(&large, &[old, Arc::new(current)], &|| true, 0);
    let total: i32 = sizes(&steps).iter().map(|(_, size)| size).sum();
    assert_eq!(total, 25, "{steps:?}");
}

#[test]
fn nothing_is_done_when_all_is_done() {
    let mut complete = deployment(2, "a");
    complete.metadata.annotations.insert(template::REVISION.to_owned(), "1".to_owned());
    let sets = [set(&complete, "new", 2, 2, 1)];
    assert_eq!(plan(&complete, &sets, &|| false, 0), vec![]);
}
