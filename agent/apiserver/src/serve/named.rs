//! Which certificate is shown to a client: one for the name that it asks for, or the server's own.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::tls::{certificates, key};
use crate::config::Tls;
use crate::error::Error;
use crate::validation::names::is_subdomain;

/// Certificates by name, and the one for all others.
#[derive(Debug)]
pub(super) struct Names {
    own: Arc<CertifiedKey>,
    by_name: HashMap<String, Arc<CertifiedKey>>,
}

impl Names {
    /// Reads the files. Earlier certificates come before later ones, and names that are given before those in
    /// certificates.
    pub(super) fn read(tls: &Tls, provider: &CryptoProvider) -> Result<Self, Error> {
        let own = pair(&tls.certificate, &tls.key, provider)?;
        let (mut given, mut found) = (HashMap::new(), HashMap::new());
        for named in &tls.named {
            let certified = pair(&named.certificate, &named.key, provider)?;
            let (names, map) = match named.names.is_empty() {
                true => (names_of(certified.cert.first().map_or(&[], |der| der.as_ref())), &mut found),
                false => (named.names.clone(), &mut given),
            };
            for name in names {
                map.entry(name.to_lowercase()).or_insert_with(|| certified.clone());
            }
        }
        found.extend(given);
        Ok(Self { own, by_name: found })
    }

    fn certificate(&self, asked: Option<&str>) -> &Arc<CertifiedKey> {
        let Some(name) = asked.map(str::to_lowercase) else { return &self.own };
        let any = name.split_once('.').map(|(_, rest)| format!("*.{rest}"));
        let found = self.by_name.get(&name).or_else(|| self.by_name.get(any.as_deref()?));
        found.unwrap_or(&self.own)
    }
}

impl ResolvesServerCert for Names {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.certificate(hello.server_name()).clone())
    }
}

fn pair(certificate: &Path, secret: &Path, provider: &CryptoProvider) -> Result<Arc<CertifiedKey>, Error> {
    Ok(Arc::new(CertifiedKey::from_der(certificates(certificate)?, key(secret)?, provider)?))
}

/// The names in a certificate: its common one, if it is a domain, and the others.
fn names_of(der: &[u8]) -> Vec<String> {
    let Ok((_, certificate)) = X509Certificate::from_der(der) else { return Vec::new() };
    let common = certificate.subject().iter_common_name().filter_map(|name| name.as_str().ok());
    let is_domain = |name: &&str| {
        let is_address = name.parse::<std::net::IpAddr>().is_ok();
        !is_address && (*name == "*" || is_subdomain(name.strip_prefix("*.").unwrap_or(name)))
    };
    let mut names: Vec<String> = common.filter(is_domain).map(str::to_owned).collect();
    let others = certificate.subject_alternative_name().ok().flatten();
    for name in others.iter().flat_map(|others| &others.value.general_names) {
        if let GeneralName::DNSName(name) = name {
            names.push((*name).to_owned());
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::NamedCertificate;

    #[test]
    fn names_lead_to_certificates() {
        let folder = tempfile::tempdir().unwrap();
        let make = |name: &str, names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            let made = rcgen::generate_simple_self_signed(names).unwrap();
            let file = |ending: &str| folder.path().join(format!("{name}.{ending}"));
            std::fs::write(file("crt"), made.cert.pem()).unwrap();
            std::fs::write(file("key"), made.signing_key.serialize_pem()).unwrap();
            (file("crt"), file("key"))
        };
        let (certificate, key) = make("own", &["own.example"]);
        let named =
            [("a", &["a.example", "both.example"][..], &[][..]), ("b", &["x"], &["both.example", "*.b.example"])];
        let named = named.map(|(file, names, given)| {
            let (certificate, key) = make(file, names);
            NamedCertificate { certificate, key, names: given.iter().map(|name| (*name).to_owned()).collect() }
        });
        let tls = Tls { certificate, key, named: named.into(), ..Tls::default() };
        let names = Names::read(&tls, &rustls::crypto::ring::default_provider()).unwrap();
        let shown = |name: Option<&str>| names_of(names.certificate(name).cert[0].as_ref()).pop().unwrap();
        assert_eq!(shown(None), "own.example");
        assert_eq!(shown(Some("elsewhere")), "own.example");
        assert_eq!(shown(Some("A.example")), "both.example");
        assert_eq!(shown(Some("both.example")), "x");
        assert_eq!(shown(Some("y.b.example")), "x");
        assert_eq!(shown(Some("z.y.b.example")), "own.example");
    }
}
