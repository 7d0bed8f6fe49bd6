//! Follows what routers say of name servers and domains.

use std::time::Duration;

use netlink::{Advertised, Advertisements};
use sys::{Linux, System};

use super::Network;

impl Network {
    /// Takes in what a router says on a link that listens to routers.
    pub(super) fn hear(&mut self, advertised: &Advertised) {
        if self.managed.get(&advertised.link).is_some_and(|managed| managed.plan.router_advertisements) {
            self.routers.hear(advertised, Linux.uptime());
        }
    }

    /// Forgets what routers say no longer, and keeps the rest for the next process.
    pub(super) fn follow_routers(&mut self) {
        let listens = |link: u32| self.managed.get(&link).is_some_and(|managed| managed.plan.router_advertisements);
        self.routers.forget(Linux.uptime(), listens);
        if self.routers != self.routers_kept {
            self.routers.save(&self.config.run);
            self.routers_kept = self.routers.clone();
        }
    }
}

/// Returns when something ends at this time since the start of the machine; never, if nothing does.
pub(super) async fn ended(at: Option<Duration>) {
    match at {
        Some(at) => tokio::time::sleep(at.saturating_sub(Linux.uptime())).await,
        None => std::future::pending().await,
    }
}

/// What the next router says; nothing more, once they cannot be listened to.
pub(super) async fn heard(advertisements: &mut Option<Advertisements>) -> Advertised {
    if let Some(listening) = advertisements {
        match listening.next().await {
            Ok(advertised) => return advertised,
            Err(error) => {
                tracing::warn!(error = %stdx::chain(&error), "name servers of routers are not heard of any more")
            }
        }
        *advertisements = None;
    }
    std::future::pending().await
}
