//! Service account tokens: what they say, how they are made, and the documents that let others check them.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::identity;
use super::jws::Compact;
use super::keys::{KeyError, SigningKey, VerifyKey};

/// The expiry that the kubelet asks for when it would be content with more. A client that does not reload its token
/// then fails after a year, not after an hour.
const EXTENDABLE_SECONDS: i64 = 60 * 60 + 7;

/// What such a request gets.
const EXTENDED_SECONDS: i64 = 365 * 24 * 60 * 60;

/// Where the keys are published, below the issuer.
pub const JWKS_PATH: &str = "/openid/v1/jwks";

/// Where the issuer describes itself.
pub const DISCOVERY_PATH: &str = "/.well-known/openid-configuration";

/// The claims of a token, as far as anybody reads them. Times are seconds since the Unix epoch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Claims {
    #[serde(default, deserialize_with = "one_or_many", skip_serializing_if = "Vec::is_empty")]
    pub(super) aud: Vec<String>,
    #[serde(default, deserialize_with = "whole_seconds", skip_serializing_if = "Option::is_none")]
    pub(super) exp: Option<i64>,
    #[serde(default, deserialize_with = "whole_seconds", skip_serializing_if = "Option::is_none")]
    pub(super) iat: Option<i64>,
    #[serde(default)]
    pub(super) iss: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) jti: String,
    #[serde(rename = "kubernetes.io", default, skip_serializing_if = "Option::is_none")]
    pub(super) kubernetes: Option<Binding>,
    #[serde(default, deserialize_with = "whole_seconds", skip_serializing_if = "Option::is_none")]
    pub(super) nbf: Option<i64>,
    #[serde(default)]
    pub(super) sub: String,
    #[serde(flatten)]
    pub(super) legacy: LegacyBinding,
}

/// The objects that a token lives and dies with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Binding {
    pub(super) namespace: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) node: Option<Reference>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) pod: Option<Reference>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) secret: Option<Reference>,
    #[serde(default)]
    pub(super) serviceaccount: Reference,
    #[serde(default, deserialize_with = "whole_seconds", skip_serializing_if = "Option::is_none")]
    pub(super) warnafter: Option<i64>,
}

/// An object by name and identity.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reference {
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// Its uid; empty if it is not known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
}

/// What tokens that lie in Secrets say instead.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LegacyBinding {
    #[serde(rename = "kubernetes.io/serviceaccount/namespace", default, skip_serializing_if = "String::is_empty")]
    pub(super) namespace: String,
    #[serde(rename = "kubernetes.io/serviceaccount/secret.name", default, skip_serializing_if = "String::is_empty")]
    pub(super) secret: String,
    #[serde(
        rename = "kubernetes.io/serviceaccount/service-account.name",
        default,
        skip_serializing_if = "String::is_empty"
    )]
    pub(super) name: String,
    #[serde(
        rename = "kubernetes.io/serviceaccount/service-account.uid",
        default,
        skip_serializing_if = "String::is_empty"
    )]
    pub(super) uid: String,
}

fn one_or_many<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMany {
        One(String),
        Many(Vec<String>),
    }
    Ok(match OneOrMany::deserialize(from)? {
        OneOrMany::One(one) => vec![one],
        OneOrMany::Many(many) => many,
    })
}

/// Times may come with fractions, which say nothing here.
fn whole_seconds<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<i64>, D::Error> {
    let number = Option::<serde_json::Number>::deserialize(from)?;
    let whole = |number: serde_json::Number| {
        let text = number.to_string();
        text.split('.').next().and_then(|digits| digits.parse().ok())
    };
    match number.map(whole) {
        None => Ok(None),
        Some(Some(seconds)) => Ok(Some(seconds)),
        Some(None) => Err(serde::de::Error::custom("no time in seconds")),
    }
}

/// A token taken apart, its signature unchecked.
pub(super) struct Unverified<'t> {
    pub(super) claims: Claims,
    compact: Compact<'t>,
}

impl<'t> Unverified<'t> {
    /// `None` if the text is no signed token at all.
    pub(super) fn parse(token: &'t str) -> Option<Self> {
        let compact = Compact::parse(token).ok().filter(|compact| !compact.algorithm.is_empty())?;
        Some(Self { claims: serde_json::from_slice(&compact.payload).ok()?, compact })
    }

    /// Whether one of the keys made the signature: the one that the token names, or any if it names none.
    pub(super) fn is_signed_by<'k>(&self, keys: impl IntoIterator<Item = &'k VerifyKey>) -> bool {
        let named = |key: &&VerifyKey| self.compact.key_id.is_empty() || key.id == self.compact.key_id;
        keys.into_iter().filter(named).any(|key| key.signed(&self.compact))
    }
}

/// What a token shall say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenSpec {
    /// The service account's namespace.
    pub namespace: String,
    /// The service account.
    pub service_account: Reference,
    /// Who shall accept it; empty means the API server.
    pub audiences: Vec<String>,
    /// How long it shall be valid.
    pub expiration_seconds: i64,
    /// The object it lives and dies with.
    pub bound_to: BoundTo,
}

/// The object that a token lives and dies with, besides its service account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum BoundTo {
    /// Nothing else.
    #[default]
    Nothing,
    /// A pod; the node it runs on is told, if it has one.
    Pod {
        /// The pod.
        pod: Reference,
        /// Its node.
        node: Option<Reference>,
    },
    /// A node.
    Node(Reference),
    /// A Secret.
    Secret(Reference),
}

/// A token that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// The token.
    pub token: String,
    /// When its holder should have fetched another, in seconds since the Unix epoch. It may be accepted longer.
    pub expires_at: i64,
    /// Who accepts it.
    pub audiences: Vec<String>,
}

/// What is said of service account tokens beside who issues them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRules {
    /// Issuers whose tokens are accepted still.
    pub former_issuers: Vec<String>,
    /// Audiences of the API server; the issuers without.
    pub audiences: Vec<String>,
    /// The longest that a token may be asked to live.
    pub max_seconds: Option<i64>,
    /// Whether tokens of pods live longer than they ask for, for those who do not read them anew.
    pub extends: bool,
    /// Where keys are published, if not by this server.
    pub jwks_uri: Option<String>,
}

impl Default for TokenRules {
    fn default() -> Self {
        Self { former_issuers: Vec::new(), audiences: Vec::new(), max_seconds: None, extends: true, jwks_uri: None }
    }
}

impl TokenRules {
    /// All issuers whose tokens are accepted.
    #[must_use]
    pub fn issuers(&self, first: &str) -> Vec<String> {
        std::iter::once(first.to_owned()).chain(self.former_issuers.iter().cloned()).collect()
    }

    /// Audiences of the API server.
    #[must_use]
    pub fn api_audiences(&self, issuer: &str) -> Vec<String> {
        if self.audiences.is_empty() { self.issuers(issuer) } else { self.audiences.clone() }
    }
}

/// Makes service account tokens.
#[derive(Clone)]
pub struct TokenSigner {
    issuer: String,
    key: SigningKey,
    api_audiences: Vec<String>,
    rules: TokenRules,
}

impl TokenSigner {
    /// A signer for an issuer.
    #[must_use]
    pub fn new(issuer: String, key: SigningKey, rules: TokenRules) -> Self {
        Self { api_audiences: rules.api_audiences(&issuer), issuer, key, rules }
    }

    /// How long a token lives that is asked to live so long.
    #[must_use]
    pub fn life(&self, seconds: i64) -> i64 {
        self.rules.max_seconds.map_or(seconds, |longest| seconds.min(longest))
    }

    /// The key that verifies its tokens.
    #[must_use]
    pub fn public(&self) -> &VerifyKey {
        self.key.public()
    }

    /// Makes a token. `now` is in seconds since the Unix epoch, `id` has to be new.
    pub fn issue(&self, spec: TokenSpec, now: i64, id: String) -> Result<Issued, KeyError> {
        let audiences = if spec.audiences.is_empty() { self.api_audiences.clone() } else { spec.audiences };
        let expires_at = now + spec.expiration_seconds;
        let for_us_only = audiences.iter().all(|audience| self.api_audiences.contains(audience));
        let extend = self.rules.extends
            && matches!(spec.bound_to, BoundTo::Pod { .. })
            && spec.expiration_seconds == EXTENDABLE_SECONDS
            && for_us_only;
        let mut binding = Binding {
            warnafter: extend.then_some(expires_at),
            serviceaccount: spec.service_account,
            namespace: spec.namespace,
            ..Binding::default()
        };
        match spec.bound_to {
            BoundTo::Nothing => {}
            BoundTo::Pod { pod, node } => (binding.pod, binding.node) = (Some(pod), node),
            BoundTo::Node(node) => binding.node = Some(node),
            BoundTo::Secret(secret) => binding.secret = Some(secret),
        }
        let claims = Claims {
            sub: identity::service_account_name(&binding.namespace, &binding.serviceaccount.name),
            aud: audiences.clone(),
            exp: Some(if extend { now + EXTENDED_SECONDS } else { expires_at }),
            iat: Some(now),
            nbf: Some(now),
            iss: self.issuer.clone(),
            jti: id,
            kubernetes: Some(binding),
            legacy: LegacyBinding::default(),
        };
        Ok(Issued { token: sign(&self.key, &claims)?, expires_at, audiences })
    }
}

/// Signs claims.
pub(super) fn sign(key: &SigningKey, claims: &impl Serialize) -> Result<String, KeyError> {
    let header = json!({ "alg": key.public().algorithm.name(), "kid": key.public().id });
    let claims = serde_json::to_vec(claims).map_err(|_| KeyError::Unsupported)?;
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(claims));
    let signature = key.sign(message.as_bytes())?;
    Ok(format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature)))
}

/// The document at [`JWKS_PATH`].
#[must_use]
pub fn jwks(keys: &[VerifyKey]) -> Value {
    json!({ "keys": keys.iter().map(VerifyKey::jwk).collect::<Vec<_>>() })
}

/// The keys of the document at [`DISCOVERY_PATH`], in the order it is written in.
pub const DISCOVERY_KEYS: [&str; 5] = [
    "issuer",
    "jwks_uri",
    "response_types_supported",
    "subject_types_supported",
    "id_token_signing_alg_values_supported",
];

/// The document at [`DISCOVERY_PATH`]; `None` if the issuer is no URL that could be asked for it.
#[must_use]
pub fn discovery(issuer: &str, jwks_uri: &str, keys: &[VerifyKey]) -> Option<Value> {
    if !issuer.starts_with("https://") {
        return None;
    }
    let mut algorithms: Vec<&str> = keys.iter().map(|key| key.algorithm.name()).collect();
    algorithms.sort_unstable();
    algorithms.dedup();
    Some(json!({
        "issuer": issuer,
        "jwks_uri": jwks_uri,
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": algorithms,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signer() -> TokenSigner {
        let key = SigningKey::from_pem(include_bytes!("testdata/p256-sec1.pem")).unwrap();
        TokenSigner::new("https://issuer".to_owned(), key, TokenRules::default())
    }

    #[test]
    fn rules_shorten_lives_and_name_audiences() {
        let key = SigningKey::from_pem(include_bytes!("testdata/p256-sec1.pem")).unwrap();
        let rules = TokenRules {
            former_issuers: vec!["https://old".to_owned()],
            max_seconds: Some(3_600),
            extends: false,
            ..TokenRules::default()
        };
        assert_eq!(rules.api_audiences("https://new"), ["https://new", "https://old"]);
        let signer = TokenSigner::new("https://new".to_owned(), key, rules);
        assert_eq!((signer.life(7_200), signer.life(600)), (3_600, 600));
        let bound = BoundTo::Pod { pod: reference("pod"), node: None };
        let issued = signer.issue(spec(bound, EXTENDABLE_SECONDS, &[]), 0, String::new()).unwrap();
        assert_eq!(Unverified::parse(&issued.token).unwrap().claims.exp, Some(EXTENDABLE_SECONDS));
        assert_eq!(issued.audiences, ["https://new", "https://old"]);
    }

    fn reference(name: &str) -> Reference {
        Reference { name: name.to_owned(), uid: format!("uid-of-{name}") }
    }

    fn spec(bound_to: BoundTo, expiration_seconds: i64, audiences: &[&str]) -> TokenSpec {
        TokenSpec {
            namespace: "ns".to_owned(),
            service_account: reference("sa"),
            audiences: audiences.iter().map(|&audience| audience.to_owned()).collect(),
            expiration_seconds,
            bound_to,
        }
    }

    #[test]
    fn token_carries_upstreams_claims() {
        let signer = signer();
        let bound = BoundTo::Pod { pod: reference("pod"), node: Some(reference("node")) };
        let issued = signer.issue(spec(bound, 600, &["a", "b"]), 1_000, "id".to_owned()).unwrap();
        assert_eq!((issued.expires_at, &issued.audiences[..]), (1_600, &["a".to_owned(), "b".to_owned()][..]));
        let payload = issued.token.split('.').nth(1).unwrap();
        let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap();
        assert_eq!(
            claims,
            json!({
                "aud": ["a", "b"], "exp": 1600, "iat": 1000, "nbf": 1000, "iss": "https://issuer", "jti": "id",
                "kubernetes.io": {
                    "namespace": "ns",
                    "node": { "name": "node", "uid": "uid-of-node" },
                    "pod": { "name": "pod", "uid": "uid-of-pod" },
                    "serviceaccount": { "name": "sa", "uid": "uid-of-sa" },
                },
                "sub": "system:serviceaccount:ns:sa",
            })
        );
        let parsed = Unverified::parse(&issued.token).unwrap();
        assert_eq!(parsed.compact.key_id, signer.public().id);
        assert!(parsed.is_signed_by([signer.public()]));
        let other = SigningKey::from_pem(include_bytes!("testdata/p256-params.pem")).unwrap();
        assert!(!parsed.is_signed_by([other.public()]));
    }

    #[test]
    fn only_the_kubelets_usual_request_is_extended() {
        let pod = || BoundTo::Pod { pod: reference("pod"), node: None };
        let signer = signer();
        for (bound, seconds, audiences, lives) in [
            (pod(), 3_607, &[][..], EXTENDED_SECONDS),
            (pod(), 3_607, &["https://issuer"][..], EXTENDED_SECONDS),
            (pod(), 3_607, &["vault"][..], 3_607),
            (pod(), 3_600, &[][..], 3_600),
            (BoundTo::Nothing, 3_607, &[][..], 3_607),
        ] {
            let issued = signer.issue(spec(bound.clone(), seconds, audiences), 0, String::new()).unwrap();
            let claims = Unverified::parse(&issued.token).unwrap().claims;
            assert_eq!(claims.exp, Some(lives), "{bound:?} {seconds} {audiences:?}");
            assert_eq!(issued.expires_at, seconds);
        }
    }

    #[test]
    fn claims_are_read_in_every_form_that_is_allowed() {
        let claims: Claims = serde_json::from_str(r#"{"aud":"one","exp":12.7,"iss":"i","sub":"s"}"#).unwrap();
        assert_eq!((claims.aud, claims.exp), (vec!["one".to_owned()], Some(12)));
        assert!(serde_json::from_str::<Claims>(r#"{"exp":"soon"}"#).is_err());
    }

    #[test]
    fn text_that_is_no_token_is_not_taken_apart() {
        for text in ["", "a", "a.b", "a.b.c", "e30.e30.", "..", "abcdef.0123456789abcdef"] {
            assert!(Unverified::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn documents_name_the_issuer_and_the_keys() {
        let keys = [signer().public().clone()];
        let document = discovery("https://issuer", "https://issuer/openid/v1/jwks", &keys).unwrap();
        assert_eq!(document["id_token_signing_alg_values_supported"], json!(["ES256"]));
        assert_eq!(jwks(&keys)["keys"][0]["kid"], keys[0].id);
        assert_eq!(discovery("kubernetes/serviceaccount", "", &keys), None);
    }
}
