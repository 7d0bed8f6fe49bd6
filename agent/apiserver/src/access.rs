//! Who asks and whether they may, for the pipeline: authenticators and authorizers with what feeds them.

mod attempts;
mod reloads;
mod selection;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use api::rbac::v1::{PolicyRule, RoleRef};
use egress::Egress;
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use lifecycle::Shutdown;

use self::attempts::Attempts;
use self::reloads::Reloads;
pub use self::selection::Selection;

use crate::app::now;
use crate::auth::authn::{AuthRequest, Authenticators, AuthnError, Config as AuthnConfig, Found, Lookup, TokenUser};
use crate::auth::authn::{FrontProxy, SecretToken, ServiceAccounts, Settings};
use crate::auth::authz::abac::Policies;
use crate::auth::authz::node::NodeAuthorizer;
use crate::auth::authz::rbac::{Held, RbacAuthorizer};
use crate::auth::authz::settings::{self, Mode};
use crate::auth::authz::webhook::Webhook;
use crate::auth::authz::{AlwaysAllow, AlwaysDeny, Attributes, Authorizer, Chain, Decision, Rules, forbidden_message};
use crate::auth::impersonate::{Impersonated, ImpersonationError, Successes, extra_of, impersonate};
use crate::auth::keys::{SigningKey, VerifyKey};
use crate::auth::token::TokenSigner;
use crate::auth::{bootstrap, token};
use crate::cache::{Cache, Change, Object, Storage};
use crate::config::{Authorization, Config};
use crate::error::Error;
use crate::pipeline::PeerCertificates;
use crate::request::{Query, RequestInfo};
use crate::status::{Failure, Result, Subject};
use crate::used_tokens::Uses;
use crate::user::User;
use crate::wire;

/// Events taken in one turn.
const BATCH: usize = 512;

/// Authentication and authorization of one server.
pub struct Access {
    authenticators: Authenticators,
    authorizer: Chain,
    rbac: Arc<RbacAuthorizer>,
    nodes: Arc<NodeAuthorizer>,
    abac: Option<Arc<Policies>>,
    impersonations: Successes,
    /// How often files were read again.
    pub reloads: Reloads,
    /// How often it was asked who and whether.
    pub attempts: Attempts,
    /// Uses of tokens in Secrets, to be noted there.
    pub uses: Uses,
    /// Signs service account tokens.
    pub signer: Option<TokenSigner>,
    /// Verify service account tokens; published for others to do so too.
    pub keys: Vec<VerifyKey>,
}

/// Objects that credentials refer to, from the cache.
struct FromCache(Arc<Cache>);

impl FromCache {
    fn find(&self, plural: &str, namespace: &str, name: &str) -> Option<Found> {
        let object = self.0.known("", plural).get(namespace, name)?;
        let meta: api::meta::v1::ObjectMeta = prost::Message::decode(wire::bytes_field(object.message()?, 1)?).ok()?;
        Some(Found { uid: meta.uid, deleted_at: meta.deletion_timestamp.and_then(|t| t.unix()) })
    }
}

impl Lookup for FromCache {
    fn service_account(&self, namespace: &str, name: &str) -> Option<Found> {
        self.find("serviceaccounts", namespace, name)
    }

    fn pod(&self, namespace: &str, name: &str) -> Option<Found> {
        self.find("pods", namespace, name)
    }

    fn node(&self, name: &str) -> Option<Found> {
        self.find("nodes", "", name)
    }

    fn secret(&self, namespace: &str, name: &str) -> Option<Arc<api::core::v1::Secret>> {
        let object = self.0.known("", "secrets").get(namespace, name)?;
        api::envelope::decode_message(&object.data).ok().map(Arc::new)
    }

    fn is_of_account(&self, namespace: &str, account: &str, secret: &str) -> bool {
        let object = self.0.known("", "serviceaccounts").get(namespace, account);
        let account: Option<api::core::v1::ServiceAccount> =
            object.and_then(|object| api::envelope::decode_message(&object.data).ok());
        account.is_some_and(|account| account.secrets.iter().any(|own| own.name == secret))
    }
}

fn read(path: &PathBuf) -> std::result::Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|source| Error::ReadFile { path: path.clone(), source })
}

/// What signs tokens of service accounts, if anything does, and all keys that theirs may be signed by.
fn token_keys(config: &Config) -> std::result::Result<(Option<TokenSigner>, Vec<VerifyKey>), Error> {
    let refused = |reason: String| Error::Authentication { reason };
    let mut keys: Vec<VerifyKey> = Vec::new();
    let mut signer = None;
    if let Some(path) = &config.token_signing_key {
        let key = SigningKey::from_pem(&read(path)?).map_err(|e| refused(e.to_string()))?;
        keys.push(key.public().clone());
        signer = Some(TokenSigner::new(config.token_issuer.clone(), key, config.token_rules.clone()));
    }
    for path in &config.token_verify_keys {
        let found = VerifyKey::all_from_pem(&read(path)?).map_err(|e| refused(e.to_string()))?;
        for key in found {
            if !keys.iter().any(|k| k.id == key.id) {
                keys.push(key);
            }
        }
    }
    Ok((signer, keys))
}

/// What is said of other issuers of tokens, and of whoever has none. The error is for people.
fn authentication(config: &Config, own: &[String]) -> std::result::Result<Settings, String> {
    let settings = match (&config.authentication, &config.oidc) {
        (None, None) => Settings::default(),
        (Some(path), None) => Settings::load(path, own)?,
        (None, Some(oidc)) => oidc.clone().settings()?,
        (Some(_), Some(_)) => {
            return Err("a configuration file and the flags for OIDC cannot be given together".to_owned());
        }
    };
    if settings.anonymous.is_some() && config.anonymous_is_given {
        let why = "anonymous: Forbidden: --anonymous-auth flag cannot be set when anonymous field is configured in \
                   authentication configuration file";
        return Err(why.to_owned());
    }
    Ok(settings)
}

impl Access {
    /// Reads the files of the configuration.
    pub fn new(config: &Config, cache: &Arc<Cache>) -> std::result::Result<Self, Error> {
        let refused = |reason: String| Error::Authentication { reason };
        let (signer, keys) = token_keys(config)?;
        let issuers = config.token_rules.issuers(&config.token_issuer);
        let audiences = config.token_rules.api_audiences(&config.token_issuer);
        let accounts = ServiceAccounts { issuers: issuers.clone(), audiences, keys: keys.clone() };
        let front_proxy = config.front_proxy.as_ref().map(|proxy| {
            Ok::<_, Error>(FrontProxy {
                ca_pem: read(&proxy.ca)?,
                allowed_names: proxy.allowed_names.clone(),
                headers: proxy.headers.clone(),
            })
        });
        let token_file = config.token_file.as_ref().map(read).transpose()?;
        let client_ca = config.tls.as_ref().and_then(|tls| tls.client_ca.as_ref()).map(read).transpose()?;
        let settings = authentication(config, &issuers).map_err(refused)?;
        let authenticators = Authenticators::new(AuthnConfig {
            client_ca_pem: client_ca,
            front_proxy: front_proxy.transpose()?,
            token_file: token_file.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
            service_accounts: (!keys.is_empty()).then_some(accounts),
            bootstrap_tokens: config.bootstrap_tokens,
            anonymous: config.anonymous,
            settings,
            webhook: config.token_webhook.clone(),
            egress: config.egress.clone(),
            lookup: Arc::new(FromCache(cache.clone())),
            clock: Arc::new(now),
        })
        .map_err(|e| refused(e.to_string()))?;
        let denied = |reason: String| Error::Authorization { reason };
        let policies = config.abac_policies.as_deref().map(Policies::load).transpose();
        let abac = policies.map_err(|e| denied(e.to_string()))?.map(Arc::new);
        let nodes = Arc::new(NodeAuthorizer::new(bootstrap::node_rules(&config.features), config.features.clone()));
        let local = (nodes, Arc::new(RbacAuthorizer::new()), abac);
        let modes = modes(&config.authorization).map_err(denied)?;
        let authorizer = Chain::new(authorizers(&modes, &local, &config.egress).map_err(denied)?);
        let (nodes, rbac, abac) = local;
        let impersonations = Successes::default();
        Ok(Self {
            authenticators,
            authorizer,
            rbac,
            nodes,
            abac,
            impersonations,
            reloads: Reloads::default(),
            attempts: Attempts::default(),
            uses: Uses::default(),
            signer,
            keys,
        })
    }

    /// Takes changes of the configuration's files into force until shutdown; what is broken never is.
    pub async fn reload(&self, config: &Config, shutdown: &Shutdown) {
        let authorization = match &config.authorization {
            Authorization::File(path) => Some(path.clone()),
            Authorization::AlwaysAllow | Authorization::NodeRbac | Authorization::Modes(_) => None,
        };
        let mut authorization = authorization.map(Watched::new);
        let mut authentication = config.authentication.clone().map(Watched::new);
        if authorization.is_none() && authentication.is_none() {
            return;
        }
        loop {
            tokio::select! {
                () = tokio::time::sleep(RELOAD_EVERY) => {}
                () = shutdown.wait() => return,
            }
            if let Some(path) = authentication.as_mut().and_then(Watched::changed) {
                let settings = Settings::load(&path, &config.token_rules.issuers(&config.token_issuer));
                let result = settings.and_then(|settings| self.authenticators.reconfigure(settings));
                self.tell("authentication", &path, result);
            }
            if let Some(path) = authorization.as_mut().and_then(Watched::changed) {
                let local = (self.nodes.clone(), self.rbac.clone(), self.abac.clone());
                let chain = settings::load(&path).and_then(|modes| authorizers(&modes, &local, &config.egress));
                self.tell("authorization", &path, chain.map(|chain| self.authorizer.replace(chain)));
            }
        }
    }

    fn tell(&self, file: &str, path: &std::path::Path, result: std::result::Result<(), String>) {
        self.reloads.count(file, result.is_ok(), now());
        match result {
            Ok(()) => tracing::info!(path = %path.display(), "a changed configuration is in force"),
            Err(error) => {
                tracing::error!(error, "a changed configuration cannot be used; the one before stays in force")
            }
        }
    }

    /// Who asks.
    pub async fn authenticate(&self, parts: &Parts) -> Result<TokenUser> {
        let peer = parts.extensions.get::<PeerCertificates>();
        let request = AuthRequest {
            headers: &parts.headers,
            peer_certificates: peer.map_or(&[], |p| p.0.as_slice()),
            path: parts.uri.path(),
        };
        let started = Instant::now();
        let found = self.authenticators.authenticate(&request).await;
        let name = found.as_ref().map(|found| found.as_ref().map(|found| found.user.name.as_str()));
        self.attempts.recognized(name.map_err(|_why| ()), started.elapsed());
        match found {
            Ok(Some(found)) => Ok(found),
            Ok(None) => Err(Failure::unauthorized()),
            Err(error) => {
                tracing::debug!(%error, "credentials were refused");
                Err(Failure::unauthorized())
            }
        }
    }

    /// As whom the request goes on, where that is somebody else.
    pub fn impersonated(
        &self,
        headers: &HeaderMap,
        user: &User,
        (info, query): (&RequestInfo, &Query),
    ) -> Result<Option<Impersonated>> {
        let selection = Selection::of(info, query);
        match impersonate(headers, &attributes_of(user, info, &selection), &self.authorizer, &self.impersonations) {
            Ok(other) => Ok(other),
            Err(ImpersonationError::NoUser(_)) => {
                Err(Failure::bad_request(format!("requested {} without impersonating a user name", nameless(headers))))
            }
            Err(ImpersonationError::Forbidden(refusal)) => {
                let [group, resource, name] = &refusal.about;
                let failure = Failure::new(http::StatusCode::FORBIDDEN, "Forbidden", refusal.text.as_str());
                Err(failure.with_subject(Subject { group, resource }, name))
            }
        }
    }

    /// The holder of a token.
    pub async fn review_token(
        &self,
        token: &str,
        audiences: Option<&[String]>,
    ) -> std::result::Result<TokenUser, AuthnError> {
        self.authenticators.authenticate_token(token, audiences).await
    }

    /// Notes that the token of a Secret was used; a warning for who used it, if there is one.
    pub fn note_use(&self, secret: &SecretToken, record: &audit::Record) -> Option<&'static str> {
        self.uses.tell(secret);
        let how = if secret.is_generated { "autogenerated" } else { "manual" };
        record.annotate(&format!("authentication.k8s.io/legacy-token-{how}-secret"), secret.name.as_str());
        secret.is_generated.then_some(
            "Use tokens from the TokenRequest API or manually created secret-based tokens instead of auto-generated \
             secret-based tokens.",
        )
    }

    /// What the authorizers think.
    pub fn decide(&self, attributes: &Attributes<'_>) -> Decision {
        self.authorizer.authorize(attributes)
    }

    /// All rules that apply to a user in a namespace.
    pub fn rules_for(&self, user: &User, namespace: &str) -> Held {
        self.rbac.rules_for(user, namespace)
    }

    /// Everything that a user may do in a namespace, by all authorizers.
    pub fn rules_of(&self, user: &User, namespace: &str) -> Rules {
        self.authorizer.rules_of(user, namespace)
    }

    /// The rules of the role that a binding refers to.
    pub fn role_rules(&self, reference: &RoleRef, namespace: &str) -> Option<Arc<[PolicyRule]>> {
        self.rbac.role_rules(reference, namespace)
    }

    /// Refuses what the user may not do.
    pub async fn authorize(
        &self,
        user: &User,
        info: &RequestInfo,
        query: &Query,
        record: &audit::Record,
    ) -> Result<()> {
        let selection = Selection::of(info, query);
        let attributes = attributes_of(user, info, &selection);
        let started = Instant::now();
        let decision = self.authorizer.decide(&attributes).await;
        self.attempts.decided(&decision, started.elapsed());
        if let Decision::Failed { why, .. } = decision {
            record.annotate("authorization.k8s.io/reason", "internal error");
            let mark = if query.raw().is_empty() { "" } else { "?" };
            let target = format!("{}{mark}{}", info.path, query.raw());
            return Err(Failure::page(StatusCode::INTERNAL_SERVER_ERROR, &target, &why));
        }
        record.annotate("authorization.k8s.io/decision", if decision.is_allow() { "allow" } else { "forbid" });
        record.annotate("authorization.k8s.io/reason", decision.reason());
        if decision.is_allow() {
            return Ok(());
        }
        let text = forbidden_message(&attributes, decision.reason());
        let failure = Failure::new(http::StatusCode::FORBIDDEN, "Forbidden", text);
        let subject = Subject { group: &info.group, resource: &info.resource };
        Err(failure.with_subject(subject, &info.name))
    }

    /// Documents for those who verify service account tokens themselves.
    pub fn openid(&self, config: &Config, path: &str) -> Option<serde_json::Value> {
        match path {
            token::JWKS_PATH => Some(token::jwks(&self.keys)),
            token::DISCOVERY_PATH => {
                let own = || format!("https://{}{}", config.external_address(), token::JWKS_PATH);
                let uri = config.token_rules.jwks_uri.clone().unwrap_or_else(own);
                token::discovery(&config.token_issuer, &uri, &self.keys)
            }
            _ => None,
        }
    }

    /// Keeps the authorizers fed from the cache until shutdown.
    pub async fn follow(&self, cache: &Cache, shutdown: &Shutdown) {
        let feeds = FED.map(|(group, plural)| self.follow_one(cache.known(group, plural), shutdown));
        futures::future::join_all(feeds).await;
    }

    async fn follow_one(&self, storage: &Storage, shutdown: &Shutdown) {
        let mut news = storage.subscribe();
        let (mut objects, mut cursor) = storage.snapshot_and_cursor();
        objects.values().for_each(|o| self.apply(storage, o));
        loop {
            match storage.events_after(cursor, (BATCH, usize::MAX)) {
                Ok(events) if events.is_empty() => {
                    tokio::select! {
                        () = news.changed() => {}
                        () = shutdown.wait() => return,
                    }
                }
                Ok(events) => {
                    for event in events {
                        cursor = event.revision;
                        match event.change {
                            Change::Deleted => self.delete(storage, &event.object),
                            Change::Added | Change::Modified => self.apply(storage, &event.object),
                        }
                    }
                }
                // Too far behind, or the cache was loaded anew: compare with what was known.
                Err(_) => {
                    let (now, newest) = storage.snapshot_and_cursor();
                    for (key, old) in &objects {
                        if !now.contains_key(key) {
                            self.delete(storage, old);
                        }
                    }
                    now.values().for_each(|o| self.apply(storage, o));
                    (objects, cursor) = (now, newest);
                }
            }
        }
    }

    fn apply(&self, storage: &Storage, object: &Object) {
        macro_rules! decoded {
            ($apply:expr) => {
                match api::envelope::decode_message(&object.data) {
                    Ok(typed) => $apply(&typed),
                    Err(error) => tracing::error!(key = %object.key, %error, "a stored object cannot be read"),
                }
            };
        }
        match storage.kind.plural {
            "roles" => decoded!(|o| self.rbac.apply_role(o)),
            "clusterroles" => decoded!(|o| self.rbac.apply_cluster_role(o)),
            "rolebindings" => decoded!(|o| self.rbac.apply_role_binding(o)),
            "clusterrolebindings" => decoded!(|o| self.rbac.apply_cluster_role_binding(o)),
            // Nodes may read what their pods refer to; of other pods nothing needs to be known.
            "pods" if storage.field(object, "spec.nodeName").is_empty() => self.delete(storage, object),
            "pods" => decoded!(|o| self.nodes.apply_pod(o)),
            "persistentvolumes" => decoded!(|o| self.nodes.apply_volume(o)),
            "podcertificaterequests" => decoded!(|o| self.nodes.apply_certificate_request(o)),
            "volumeattachments" => decoded!(|o: &api::storage::v1::VolumeAttachment| {
                self.nodes.apply_attachment(&o.metadata.name, &o.spec.node_name);
            }),
            _ => {}
        }
    }

    fn delete(&self, storage: &Storage, object: &Object) {
        let (namespace, name) = (object.namespace(), object.name());
        match storage.kind.plural {
            "roles" => self.rbac.delete_role(namespace, name),
            "clusterroles" => self.rbac.delete_cluster_role(name),
            "rolebindings" => self.rbac.delete_role_binding(namespace, name),
            "clusterrolebindings" => self.rbac.delete_cluster_role_binding(name),
            "pods" => self.nodes.delete_pod(namespace, name),
            "persistentvolumes" => self.nodes.delete_volume(name),
            "podcertificaterequests" => self.nodes.delete_certificate_request(namespace, name),
            "volumeattachments" => self.nodes.delete_attachment(name),
            _ => {}
        }
    }
}

/// What a request asks authorizers for.
fn attributes_of<'a>(user: &'a User, info: &'a RequestInfo, selection: &'a Selection) -> Attributes<'a> {
    if !info.is_resource {
        return Attributes::path(user, info.verb, &info.path);
    }
    Attributes {
        version: &info.version,
        subresource: &info.subresource,
        namespace: &info.namespace,
        name: &info.name,
        selected: selection.selected(),
        ..Attributes::resource(user, info.verb, &info.group, &info.resource)
    }
}

/// The authorizers of this server itself.
type Local = (Arc<NodeAuthorizer>, Arc<RbacAuthorizer>, Option<Arc<Policies>>);

/// How often files of the configuration are looked at.
const RELOAD_EVERY: std::time::Duration = std::time::Duration::from_secs(10);

fn modes(authorization: &Authorization) -> std::result::Result<Vec<Mode>, String> {
    match authorization {
        Authorization::AlwaysAllow => Ok(vec![Mode::AlwaysAllow]),
        Authorization::NodeRbac => Ok(vec![Mode::Node, Mode::Rbac]),
        Authorization::Modes(modes) => Ok(modes.clone()),
        Authorization::File(path) => settings::load(path),
    }
}

fn authorizers(
    modes: &[Mode],
    (nodes, rbac, abac): &Local,
    egress: &Egress,
) -> std::result::Result<Vec<Arc<dyn Authorizer>>, String> {
    let make = |mode: &Mode| -> std::result::Result<Arc<dyn Authorizer>, String> {
        Ok(match mode {
            Mode::AlwaysAllow => Arc::new(AlwaysAllow),
            Mode::AlwaysDeny => Arc::new(AlwaysDeny),
            Mode::Node => nodes.clone(),
            Mode::Rbac => rbac.clone(),
            Mode::Abac => abac.clone().ok_or("authorization by ABAC needs a policy file")?,
            Mode::Webhook(webhook) => {
                let name = &webhook.name;
                let way = egress.way(egress::Selection::ControlPlane);
                Arc::new(Webhook::new((**webhook).clone(), way).map_err(|why| format!("webhook {name:?}: {why}"))?)
            }
        })
    };
    modes.iter().map(make).collect()
}

/// A file whose changes are of interest.
struct Watched {
    path: std::path::PathBuf,
    seen: Option<Vec<u8>>,
}

impl Watched {
    fn new(path: std::path::PathBuf) -> Self {
        let seen = std::fs::read(&path).ok();
        Self { path, seen }
    }

    /// The path, if the file has something else in it than when it was last asked about.
    fn changed(&mut self) -> Option<std::path::PathBuf> {
        let now = std::fs::read(&self.path).ok();
        if now.is_none() || now == self.seen {
            return None;
        }
        self.seen = now;
        Some(self.path.clone())
    }
}

/// Who is asked for without a name, as clients know it from Go's printing.
fn nameless(headers: &HeaderMap) -> String {
    let texts = |name: &str| -> Vec<String> {
        headers.get_all(name).iter().filter_map(|v| v.to_str().ok()).map(|v| format!("{v:?}")).collect()
    };
    let (uid, groups) = (texts("impersonate-uid"), texts("impersonate-group"));
    let groups = if groups.is_empty() { "(nil)".to_owned() } else { format!("{{{}}}", groups.join(", ")) };
    let uid = uid.first().map_or("\"\"", String::as_str);
    let extra = extra_of(headers);
    let extra: Vec<String> =
        extra.iter().map(|(key, values)| format!("{key:?}:[]string{{{}}}", go_list(values))).collect();
    let extra = if extra.is_empty() { "(nil)".to_owned() } else { format!("{{{}}}", extra.join(", ")) };
    format!("&user.DefaultInfo{{Name:\"\", UID:{uid}, Groups:[]string{groups}, Extra:map[string][]string{extra}}}")
}

fn go_list(values: &[String]) -> String {
    values.iter().map(|value| format!("{value:?}")).collect::<Vec<_>>().join(", ")
}

const RBAC: &str = "rbac.authorization.k8s.io";

/// Kinds that the authorizers know.
const FED: [(&str, &str); 8] = [
    (RBAC, "roles"),
    (RBAC, "clusterroles"),
    (RBAC, "rolebindings"),
    (RBAC, "clusterrolebindings"),
    ("", "pods"),
    ("", "persistentvolumes"),
    ("storage.k8s.io", "volumeattachments"),
    ("certificates.k8s.io", "podcertificaterequests"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_counts_as_changed_once_for_each_content() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config");
        std::fs::write(&path, "a").unwrap();
        let mut watched = Watched::new(path.clone());
        assert_eq!(watched.changed(), None);
        std::fs::write(&path, "b").unwrap();
        assert_eq!((watched.changed(), watched.changed()), (Some(path.clone()), None));
        // While it is being replaced it may not be there.
        std::fs::remove_file(&path).unwrap();
        assert_eq!(watched.changed(), None);
        std::fs::write(&path, "c").unwrap();
        assert_eq!(watched.changed(), Some(path));
    }

    #[test]
    fn abac_needs_its_policies() {
        let local = (
            Arc::new(NodeAuthorizer::new(Vec::new(), api::features::Features::default())),
            Arc::new(RbacAuthorizer::new()),
            None,
        );
        let told = authorizers(&[Mode::Rbac, Mode::Abac], &local, &Egress::default()).err().unwrap();
        assert_eq!(told, "authorization by ABAC needs a policy file");
    }
}
