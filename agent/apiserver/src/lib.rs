//! The API server: one pipeline and one handler per verb over the kind table.
