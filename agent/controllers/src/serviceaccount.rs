//! `serviceaccount-controller` and `root-ca-certificate-publisher-controller`: what every namespace starts with.

use std::collections::BTreeMap;

use api::core::v1::{ConfigMap, Namespace, ServiceAccount};
use reconcile::{Action, Event, Queue};

use crate::caches::{Need, Reflectors, need};
use crate::controller::{Context, Controller, Key, enqueue};
use crate::error::{During, Error};

/// The ConfigMap with the cluster CA in every namespace.
pub(crate) const ROOT_CA_NAME: &str = "kube-root-ca.crt";
const ROOT_CA_KEY: &str = "ca.crt";
const ROOT_CA_NOTE: (&str, &str) = (
    "kubernetes.io/description",
    "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the \
     internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes \
     clusters.",
);
const DEFAULT_ACCOUNT: &str = "default";

/// Makes the account `default` in every namespace.
pub(crate) struct DefaultAccounts {
    context: Context,
}

impl Controller for DefaultAccounts {
    const NAME: &'static str = "serviceaccount-controller";
    const NEEDS: &'static [Need] = &[need::namespaces, need::service_accounts];

    fn watch(&self, queue: &Queue<Key>, reflectors: &mut Reflectors) {
        reflectors.namespaces.handle(enqueue(queue));
        let queue = queue.clone();
        reflectors.service_accounts.handle(move |event| {
            if let Event::Deleted(account) = event {
                queue.add(Key::new("", &account.metadata.namespace));
            }
        });
    }

    fn new(context: Context) -> Self {
        Self { context }
    }

    async fn reconcile(&self, key: Key) -> Result<Action, Error> {
        let caches = &self.context.caches;
        if !is_open(&self.context, &key) || caches.service_accounts.get(&key.name, DEFAULT_ACCOUNT).is_some() {
            return Ok(Action::Done);
        }
        let mut account = ServiceAccount::default();
        account.metadata.namespace.clone_from(&key.name);
        account.metadata.name = DEFAULT_ACCOUNT.to_owned();
        tolerate_existing(self.context.client.create(&account).await, "creating the default service account")
    }
}

/// Keeps `kube-root-ca.crt` in every namespace.
pub(crate) struct RootCertificates {
    context: Context,
}

impl Controller for RootCertificates {
    const NAME: &'static str = "root-ca-certificate-publisher-controller";
    const NEEDS: &'static [Need] = &[need::namespaces, need::root_certificates];

    fn watch(&self, queue: &Queue<Key>, reflectors: &mut Reflectors) {
        reflectors.namespaces.handle(enqueue(queue));
        let queue = queue.clone();
        reflectors.root_certificates.handle(move |event| {
            if let Some(map) = crate::controller::subject(event) {
                queue.add(Key::new("", &map.metadata.namespace));
            }
        });
    }

    fn new(context: Context) -> Self {
        Self { context }
    }

    async fn reconcile(&self, key: Key) -> Result<Action, Error> {
        if !is_open(&self.context, &key) {
            return Ok(Action::Done);
        }
        let data = BTreeMap::from([(ROOT_CA_KEY.to_owned(), self.context.config.root_ca_pem.clone())]);
        let note = (ROOT_CA_NOTE.0.to_owned(), ROOT_CA_NOTE.1.to_owned());
        match self.context.caches.root_certificates.get(&key.name, ROOT_CA_NAME) {
            None => {
                let mut map = ConfigMap { data, ..ConfigMap::default() };
                map.metadata.namespace.clone_from(&key.name);
                map.metadata.name = ROOT_CA_NAME.to_owned();
                map.metadata.annotations.extend([note]);
                tolerate_existing(self.context.client.create(&map).await, "publishing the cluster CA")
            }
            Some(map) if map.data == data && map.metadata.annotations.contains_key(&note.0) => Ok(Action::Done),
            Some(map) => {
                let mut map = (*map).clone();
                map.data = data;
                map.metadata.annotations.extend([note]);
                self.context.client.update(&map).await.during("restoring the cluster CA")?;
                Ok(Action::Done)
            }
        }
    }
}

/// Whether the namespace is there and takes new objects.
fn is_open(context: &Context, key: &Key) -> bool {
    let open = |namespace: &Namespace| namespace.metadata.deletion_timestamp.is_none();
    context.caches.namespaces.get("", &key.name).is_some_and(|namespace| open(&namespace))
}

/// A namespace that is being deleted refuses new objects; that is not a failure of ours.
fn tolerate_existing<T>(result: Result<T, client::Error>, step: &'static str) -> Result<Action, Error> {
    match result {
        Err(error) if !error.is_already_exists() && !error.is_not_found() && !error.is_forbidden() => {
            Err(error).during(step)
        }
        _ => Ok(Action::Done),
    }
}
