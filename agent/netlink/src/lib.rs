//! Links, addresses, routes and neighbours by rtnetlink.
