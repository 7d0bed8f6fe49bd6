//! Shutdown, tracked tasks, draining with a deadline, readiness.
