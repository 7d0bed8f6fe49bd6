//! The issuer of tokens that flags speak of.

use std::sync::Arc;

use super::{Issuer, Mapping, Settings};
use crate::auth::jws::ALGORITHMS;

/// The older flags, which speak of one issuer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Oidc {
    /// The issuer.
    pub issuer: String,
    /// For whom tokens have to be meant.
    pub client_id: String,
    /// Authorities of its server (PEM).
    pub ca_pem: Option<Vec<u8>>,
    /// The claim that is the user's name.
    pub username_claim: String,
    /// What stands before names; `-` for nothing, empty for the usual.
    pub username_prefix: String,
    /// The claim that is the groups; empty for none.
    pub groups_claim: String,
    /// What stands before groups.
    pub groups_prefix: String,
    /// Claims with the values that they must have.
    pub required: Vec<(String, String)>,
    /// What tokens may be signed by.
    pub algorithms: Vec<String>,
}

impl Oidc {
    /// The same as settings.
    ///
    /// # Errors
    /// When a flag has a value that it must not have.
    pub fn settings(self) -> Result<Settings, String> {
        if let Some(other) = self.algorithms.iter().find(|a| !ALGORITHMS.contains(&a.as_str())) {
            return Err(format!("oidc: unsupported signing alg: {other:?}"));
        }
        if self.client_id.is_empty() {
            let why = "oidc-issuer-url and oidc-client-id must be specified together when any oidc-* flags are set";
            return Err(why.to_owned());
        }
        if !self.issuer.starts_with("https://") {
            let what = "invalid authentication configuration: jwt[0].issuer.url";
            return Err(format!("{what}: Invalid value: {:?}: URL scheme must be https", self.issuer));
        }
        let prefix = match self.username_prefix.as_str() {
            "-" => String::new(),
            // Names of users of other issuers might be the same; addresses are their owner's anywhere.
            "" if self.username_claim != "email" => format!("{}#", self.issuer),
            prefix => prefix.to_owned(),
        };
        let groups = match self.groups_claim.as_str() {
            "" => Mapping::Nothing,
            name => Mapping::Claim { name: name.to_owned(), prefix: self.groups_prefix },
        };
        let issuer = Issuer {
            url: self.issuer,
            discovery: None,
            ca_pem: self.ca_pem,
            egress: None,
            audiences: vec![self.client_id],
            algorithms: self.algorithms,
            required: self.required,
            validations: Vec::new(),
            username: Mapping::Claim { name: self.username_claim, prefix },
            groups,
            uid: Mapping::Nothing,
            extra: Vec::new(),
            user_validations: Vec::new(),
        };
        Ok(Settings { jwt: vec![Arc::new(issuer)], anonymous: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_make_names_that_cannot_be_others() {
        let oidc = Oidc {
            issuer: "https://a".to_owned(),
            client_id: "me".to_owned(),
            username_claim: "sub".to_owned(),
            ..Oidc::default()
        };
        let prefix = |oidc: &Oidc| match &oidc.clone().settings().unwrap().jwt[0].username {
            Mapping::Claim { prefix, .. } => prefix.clone(),
            other => panic!("{other:?}"),
        };
        assert_eq!(prefix(&oidc), "https://a#");
        assert_eq!(prefix(&Oidc { username_prefix: "-".to_owned(), ..oidc.clone() }), "");
        assert_eq!(prefix(&Oidc { username_claim: "email".to_owned(), ..oidc.clone() }), "");
        let bad = Oidc { algorithms: vec!["HS256".to_owned()], ..oidc };
        assert_eq!(bad.settings().unwrap_err(), "oidc: unsupported signing alg: \"HS256\"");
    }
}
