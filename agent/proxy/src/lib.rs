//! Services and EndpointSlices to an nftables rule set.
