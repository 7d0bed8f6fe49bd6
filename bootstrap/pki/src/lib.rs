//! Certificate authorities, leaf issue and rotation; time and randomness are arguments.
