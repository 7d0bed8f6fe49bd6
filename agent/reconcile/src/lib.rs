//! Reflector caches, delay queue, runner and leader lease.
