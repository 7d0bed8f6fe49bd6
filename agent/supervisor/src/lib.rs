//! Service state machine: dependencies, readiness, restart back-off.
