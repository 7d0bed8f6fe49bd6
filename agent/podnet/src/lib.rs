//! Pod addresses, links and routes; the CNI plugin.
