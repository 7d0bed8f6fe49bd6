//! PID 1: boot phases, reaping, one exit path.
