//! Boots clusters in virtual machines or namespaces and watches them.
