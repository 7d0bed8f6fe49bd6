//! The machine manifest: TOML schema, newtypes, defaults, validation.
