//! Names that users and groups are known by.

pub use crate::user::User as UserInfo;

/// Who shows no credentials.
pub const ANONYMOUS: &str = "system:anonymous";
/// Everybody who showed no credentials.
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
/// Everybody who showed valid credentials.
pub const AUTHENTICATED: &str = "system:authenticated";
/// Those who may do everything.
pub const MASTERS: &str = "system:masters";
/// All nodes.
pub const NODES: &str = "system:nodes";
/// All service accounts; with `:NAMESPACE` those of one namespace.
pub const SERVICE_ACCOUNTS: &str = "system:serviceaccounts";
/// Holders of bootstrap tokens.
pub const BOOTSTRAPPERS: &str = "system:bootstrappers";

/// Where the credential that was used is told.
pub const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";

const SERVICE_ACCOUNT_PREFIX: &str = "system:serviceaccount:";
const NODE_PREFIX: &str = "system:node:";

/// The user name of a service account.
#[must_use]
pub fn service_account_name(namespace: &str, name: &str) -> String {
    format!("{SERVICE_ACCOUNT_PREFIX}{namespace}:{name}")
}

/// Namespace and name behind the user name of a service account.
#[must_use]
pub fn split_service_account(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user.strip_prefix(SERVICE_ACCOUNT_PREFIX)?.split_once(':')?;
    (!namespace.is_empty() && !name.is_empty() && !name.contains(':')).then_some((namespace, name))
}

/// The groups of the service accounts of a namespace.
#[must_use]
pub fn service_account_groups(namespace: &str) -> Vec<String> {
    vec![SERVICE_ACCOUNTS.to_owned(), format!("{SERVICE_ACCOUNTS}:{namespace}")]
}

/// The node behind a user in the nodes' group; empty if such a user's name is no node's.
#[must_use]
pub fn node_name(user: &UserInfo) -> Option<&str> {
    let name = user.name.strip_prefix(NODE_PREFIX)?;
    user.is_in(NODES).then_some(name)
}
