//! Static tokens.

use std::collections::HashMap;

use sha2::{Digest as _, Sha256};

use super::ConfigError;
use crate::auth::identity::UserInfo;

/// Users by the digest of their token, so that looking one up does not tell how close a guess came.
#[derive(Debug, Default)]
pub(super) struct TokenFile(HashMap<[u8; 32], UserInfo>);

impl TokenFile {
    /// Reads lines of `token,user,uid,"group1,group2"`; the groups may be left out.
    pub(super) fn parse(text: &str) -> Result<Self, ConfigError> {
        let mut users = HashMap::new();
        for (index, line) in text.lines().enumerate() {
            let broken = |reason| ConfigError::TokenFile { line: index + 1, reason };
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            let fields = fields(line).ok_or_else(|| broken("a quote is not closed"))?;
            let [token, name, uid, rest @ ..] = &fields[..] else {
                return Err(broken("expected at least a token, a user name and a uid"));
            };
            if token.is_empty() {
                tracing::warn!(line = index + 1, "a line of the token file has no token, and counts for nothing");
                continue;
            }
            let groups = rest.first().map(String::as_str).unwrap_or_default();
            let groups = groups.split(',').map(str::trim).filter(|group| !group.is_empty()).map(str::to_owned);
            let user =
                UserInfo { name: name.clone(), uid: uid.clone(), groups: groups.collect(), ..UserInfo::default() };
            users.insert(Sha256::digest(token).into(), user);
        }
        Ok(Self(users))
    }

    pub(super) fn find(&self, token: &str) -> Option<UserInfo> {
        let digest: [u8; 32] = Sha256::digest(token).into();
        self.0.get(&digest).cloned()
    }
}

/// The fields of a line of comma separated values; `None` if a quote is not closed.
fn fields(line: &str) -> Option<Vec<String>> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    let mut chars = line.chars().peekable();
    while let Some(char) = chars.next() {
        let field = fields.last_mut()?;
        match char {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            ' ' if !quoted && field.is_empty() => {}
            other => field.push(other),
        }
    }
    (!quoted).then_some(fields)
}

#[cfg(test)]
mod tests {
    use super::TokenFile;

    #[test]
    fn lines_are_read_like_upstream_reads_them() {
        let text = "t1,jane,1,\"a,b\"\n\n# note\nt2, joe ,2\nt3,kim,3,c,ignored\nt4,\"x,\"\"y\"\"\",4\n";
        let file = TokenFile::parse(text).unwrap();
        let user = |token| file.find(token).unwrap();
        assert_eq!(
            (user("t1").name, user("t1").uid, user("t1").groups.join("+")),
            ("jane".into(), "1".into(), "a+b".into())
        );
        assert_eq!((user("t2").name, user("t2").groups.len()), ("joe ".into(), 0));
        assert_eq!(user("t3").groups, ["c"]);
        assert_eq!(user("t4").name, "x,\"y\"");
        assert!(file.find("t").is_none());
        assert!(TokenFile::parse(",jane,1\n").unwrap().find("").is_none());
    }

    #[test]
    fn broken_lines_are_named() {
        for (text, line) in [("a,b", 1), ("t,u,1\n\nt,u", 3), ("t,\"u,1", 1)] {
            let error = TokenFile::parse(text).unwrap_err().to_string();
            assert!(error.starts_with(&format!("line {line} of")), "{text}: {error}");
        }
    }
}
