//! The host's firewall, with what its rules have fitted.

use machine_api::FirewallRule;
use nft::Nft;

use crate::network::Firewall;

/// The rules; none without a firewall.
pub(super) async fn rules(firewall: Option<&Firewall>) -> Result<Vec<FirewallRule>, String> {
    let Some(firewall) = firewall else { return Ok(Vec::new()) };
    let counted = Nft::default().counters(&firewall.table).await;
    let counted = counted.map_err(|error| format!("the firewall is not in force: {}", stdx::chain(&error)))?;
    Ok(firewall.rows(|name| counted.get(name).copied()))
}
