//! A member whose machine has another address than before.
//!
//! Where clients reach it, a member tells anew at each start. Where its peers reach it, they remember, and have to be
//! told: by the others before it starts ([`crate::prepare`]), or by itself once it takes part, as one that is alone has
//! to.

use crate::Error;
use crate::config::Member;
use crate::member::Link;

/// Where a member is, and where others look for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whereabouts {
    /// Everybody knows.
    Known,
    /// Its peers did not, and were told now.
    Told,
    /// It runs with another address: it needs a new start, and certificates for the new one.
    Elsewhere,
}

/// Compares what the members know of the one with this number with where it should be, and tells them.
///
/// # Errors
/// When it does not answer, or the members do not agree.
pub async fn follow_address(link: &Link, id: u64, own: &Member) -> Result<Whereabouts, Error> {
    let members = link.members().await?;
    let Some(known) = members.iter().find(|member| member.number() == Some(id)) else {
        return Ok(Whereabouts::Known);
    };
    // One that has not told yet has just been started.
    if !known.client_urls.is_empty() && !known.client_urls.contains(&own.client_url()) {
        return Ok(Whereabouts::Elsewhere);
    }
    if known.peer_urls.contains(&own.peer_url()) {
        return Ok(Whereabouts::Known);
    }
    link.move_to(id, &own.peer_url()).await.map(|()| Whereabouts::Told)
}
