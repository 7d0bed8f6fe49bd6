//! Rules of `[outbound]`.

use super::Rules;
use crate::structure::join;

pub(super) fn check(rules: &mut Rules<'_>) {
    let Some(outbound) = &rules.parts.outbound else {
        return;
    };
    for host in outbound.servers.keys() {
        let at = join("outbound.servers", host.as_str());
        check_user(rules, &at);
        let token = format!("{at}.bearer-token");
        if rules.has(&format!("{at}.username")) && rules.has(&token) {
            rules.error(&token, "there are a user and a token").expected("one of them");
        }
    }
    check_user(rules, "outbound.proxy");
}

/// A user is nobody without a password.
fn check_user(rules: &mut Rules<'_>, at: &str) {
    let (user, password) = (format!("{at}.username"), format!("{at}.password"));
    let (given, missing) = match (rules.has(&user), rules.has(&password)) {
        (true, false) => (user, password),
        (false, true) => (password, user),
        (true, true) | (false, false) => return,
    };
    rules.error(&given, format!("`{given}` is nothing without `{missing}`")).expected("both of them");
}
