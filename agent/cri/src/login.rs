//! As whom a node asks registries for images.

use std::collections::BTreeMap;
use std::fmt;

use crate::registry::{host_of, registry_of};
use crate::v1::AuthConfig;

/// A user of a server that has images.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// Host and perhaps port.
    pub server: String,
    /// Name of the user.
    pub username: String,
    /// The user's password.
    pub password: String,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("server", &self.server).finish_non_exhaustive()
    }
}

/// The node's logins, by what an image's registry is called. Those of its mirrors are among them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Logins {
    /// Of registries that something is known of, in the order in which servers are asked.
    pub registries: BTreeMap<String, Vec<Login>>,
    /// Of all others.
    pub others: Vec<Login>,
}

impl Logins {
    /// What a pull of an image may be tried with, one after the other: a pull takes one, which counts for one server.
    #[must_use]
    pub fn of(&self, image: &str) -> Vec<AuthConfig> {
        let found = self.registries.get(registry_of(image)).unwrap_or(&self.others);
        let auth = |login: &Login| AuthConfig {
            username: login.username.clone(),
            password: login.password.clone(),
            // The runtime compares the host of a URL.
            server_address: format!("https://{}", host_of(&login.server)),
            ..AuthConfig::default()
        };
        found.iter().map(auth).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Client, Runtime, v1};

    /// `SOCKET IMAGE USER PASSWORD`, of a runtime that believes the image's registry, which knows this user only.
    const RUNTIME: &str = "KEELSON_TEST_CRI";

    #[tokio::test]
    async fn a_runtime_takes_a_login_for_the_server_that_it_is_for() {
        let Ok(words) = std::env::var(RUNTIME) else {
            eprintln!("SKIPPED: set {RUNTIME} to run this test");
            return;
        };
        let words: Vec<&str> = words.split(' ').collect();
        let [socket, image, username, password] = words.as_slice() else { panic!("{words:?}") };
        let runtime = Client::new(std::path::Path::new(socket)).unwrap();
        let pull = async |server: &str, password: &str| {
            let login =
                Login { server: server.to_owned(), username: (*username).to_owned(), password: password.to_owned() };
            let logins = Logins { others: vec![login], ..Logins::default() };
            let image_spec = v1::ImageSpec { image: (*image).to_owned(), ..v1::ImageSpec::default() };
            let auth = logins.of(image).pop();
            runtime.pull_image(v1::PullImageRequest { image: Some(image_spec), auth, sandbox_config: None }).await
        };
        let registry = registry_of(image);
        // A wrong password, and one of another server.
        for (server, password) in [(registry, "wrong"), ("other.example.com", *password)] {
            let error = pull(server, password).await.unwrap_err().to_string();
            assert!(error.contains("401") || error.contains("authorization"), "{error}");
        }
        pull(registry, password).await.unwrap();
    }

    #[test]
    fn an_image_is_asked_for_as_who_its_registry_knows() {
        let login = |server: &str| Login {
            server: server.to_owned(),
            username: format!("user of {server}"),
            password: "sesame".to_owned(),
        };
        let registries = [
            ("r.example.com:5000".to_owned(), vec![login("mirror"), login("r.example.com:5000")]),
            ("docker.io".to_owned(), vec![login("docker.io")]),
        ];
        let logins = Logins { registries: registries.into(), others: vec![login("any")] };
        let servers = |image: &str| logins.of(image).into_iter().map(|auth| auth.server_address).collect::<Vec<_>>();
        assert_eq!(servers("r.example.com:5000/a/b:1"), ["https://mirror", "https://r.example.com:5000"]);
        assert_eq!(servers("busybox"), ["https://registry-1.docker.io"]);
        assert_eq!(servers("library/busybox@sha256:0"), servers("busybox"));
        assert_eq!(servers("r.example.com/a:1"), ["https://any"]);
        assert!(!format!("{logins:?}").contains("sesame"));
    }
}
