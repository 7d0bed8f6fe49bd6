//! What is done twice: whoever changes an object may have undone, or may need, what others did before.
//!
//! ```text
//!  this server's steps ─▶ policies ─▶ webhooks ─┬─ nobody changed it ─▶ done
//!           ▲                                   │
//!           └────── once more, if one did ──────┘   of the others only those that asked for it
//! ```

use std::collections::BTreeSet;

use serde_json::Value;

/// Where a request is.
#[derive(Default)]
pub(super) struct Rounds {
    is_second: bool,
    is_changed: bool,
    pub(super) policies: Invoked,
    pub(super) webhooks: Invoked,
}

impl Rounds {
    /// Whether all was done once.
    pub(super) fn is_second(&self) -> bool {
        self.is_second
    }

    /// Somebody changed the object.
    pub(super) fn change(&mut self) {
        self.is_changed = true;
    }

    /// Goes on to the second round, if there is to be one.
    pub(super) fn go_on(&mut self) -> bool {
        let goes_on = self.is_changed && !self.is_second;
        self.is_second |= goes_on;
        goes_on
    }
}

/// Which of those that asked to see what became of the object are to be asked again.
#[derive(Default)]
pub(super) struct Invoked {
    /// Those that ran since the object was changed last.
    ran: BTreeSet<String>,
    again: BTreeSet<String>,
    /// The object as they left it.
    left: Option<Value>,
}

impl Invoked {
    /// A round begins with this object.
    pub(super) fn begin(&mut self, is_second: bool, object: Option<&Value>) {
        if is_second && self.left.as_ref() != object {
            self.change();
        }
    }

    /// The object was changed: those that ran before have not seen it.
    pub(super) fn change(&mut self) {
        self.again.append(&mut self.ran);
    }

    /// One ran that wants to see what others make of the object.
    pub(super) fn ran(&mut self, who: String) {
        self.ran.insert(who);
    }

    /// Whether one is asked in the second round.
    pub(super) fn is_again(&self, who: &str) -> bool {
        self.again.contains(who)
    }

    /// The first round ends with this object.
    pub(super) fn end(&mut self, object: Option<&Value>) {
        self.left = object.cloned();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn there_are_two_rounds_at_most() {
        let mut rounds = Rounds::default();
        assert!(!rounds.go_on());
        rounds.change();
        assert!(rounds.go_on() && rounds.is_second());
        rounds.change();
        assert!(!rounds.go_on());
    }

    #[test]
    fn who_ran_before_a_change_is_asked_again() {
        let mut invoked = Invoked::default();
        invoked.ran("a".to_owned());
        invoked.change();
        invoked.ran("b".to_owned());
        let object = json!({"x": 1});
        invoked.end(Some(&object));
        invoked.begin(true, Some(&object));
        assert!(invoked.is_again("a") && !invoked.is_again("b"));
        invoked.begin(true, Some(&json!({"x": 2})));
        assert!(invoked.is_again("b"));
    }
}
