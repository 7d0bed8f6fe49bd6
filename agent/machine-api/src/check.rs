//! What was found out about the network from the machine.

use crate::CheckResult;

impl CheckResult {
    /// For people.
    #[must_use]
    pub fn describe(&self) -> String {
        let works = if self.works { "works" } else { "does not work" };
        let found: String = self.found.iter().map(|line| format!("  {line}\n")).collect();
        format!("{works}, after {:.1} ms\n{found}", self.millis)
    }
}
