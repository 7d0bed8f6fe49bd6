//! How messages with secrets show themselves: without them.

use std::fmt;

use crate::authentication::v1::{TokenRequestStatus, TokenReviewSpec};
use crate::core::v1::Secret;

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: Vec<&String> = self.data.keys().chain(self.string_data.keys()).collect();
        let mut shown = f.debug_struct("Secret");
        shown.field("metadata", &self.metadata).field("type", &self.r#type).field("keys", &keys).finish_non_exhaustive()
    }
}

impl fmt::Debug for TokenRequestStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenRequestStatus")
            .field("expiration_timestamp", &self.expiration_timestamp)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for TokenReviewSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenReviewSpec").field("audiences", &self.audiences).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_do_not_show() {
        let mut secret = Secret::default();
        secret.data.insert("password".to_owned(), b"hunter2".to_vec());
        secret.string_data.insert("other".to_owned(), "hunter2".to_owned());
        let text = format!("{secret:?}");
        assert!(text.contains("password") && text.contains("other"), "{text}");
        assert!(!text.contains("hunter2") && !text.contains("104, 117"), "{text}");
        let spec = TokenReviewSpec { token: "hunter2".to_owned(), ..TokenReviewSpec::default() };
        assert!(!format!("{spec:?}").contains("hunter2"));
    }
}
