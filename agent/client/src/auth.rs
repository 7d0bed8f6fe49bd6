//! The Authorization header, from a token or from a file that others renew.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::HeaderValue;
use tokio::time::Instant;

use crate::config::Identity;
use crate::error::{ConfigError, Error, Result};

/// Tokens are renewed long before they end, so a minute of use after renewal is safe.
const REREAD_AFTER: Duration = Duration::from_secs(60);

/// Gives the Authorization header of each request.
#[derive(Debug)]
pub(crate) enum Authorization {
    /// No header: anonymous, or known by certificate.
    None,
    /// Always the same header.
    Fixed(HeaderValue),
    /// A file's content, read again now and then.
    File { path: PathBuf, cached: Mutex<Option<(Instant, HeaderValue)>> },
}

impl Authorization {
    /// What `identity` needs.
    pub(crate) fn try_new(identity: &Identity) -> Result<Self> {
        match identity {
            Identity::Anonymous | Identity::Certificate { .. } => Ok(Self::None),
            Identity::Token(token) => Ok(Self::Fixed(bearer(token)?)),
            Identity::TokenFile(path) => Ok(Self::File { path: path.clone(), cached: Mutex::new(None) }),
        }
    }

    /// The header for a request sent now.
    pub(crate) async fn header(&self) -> Result<Option<HeaderValue>> {
        let (path, cached) = match self {
            Self::None => return Ok(None),
            Self::Fixed(value) => return Ok(Some(value.clone())),
            Self::File { path, cached } => (path, cached),
        };
        let now = Instant::now();
        if let Some((read_at, value)) = cached.lock().unwrap_or_else(PoisonError::into_inner).as_ref()
            && now.duration_since(*read_at) < REREAD_AFTER
        {
            return Ok(Some(value.clone()));
        }
        let text =
            tokio::fs::read_to_string(path).await.map_err(|source| ConfigError::Read { path: path.clone(), source })?;
        let value = bearer(text.trim())?;
        *cached.lock().unwrap_or_else(PoisonError::into_inner) = Some((now, value.clone()));
        Ok(Some(value))
    }
}

fn bearer(token: &str) -> Result<HeaderValue> {
    let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
        .map_err(|_invalid| Error::Config(ConfigError::Header("bearer token")))?;
    value.set_sensitive(true);
    Ok(value)
}
