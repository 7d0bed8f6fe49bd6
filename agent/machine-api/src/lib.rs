//! Request and response types of the machine API.
