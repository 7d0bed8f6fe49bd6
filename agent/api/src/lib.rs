//! Kubernetes object types, kind and schema tables, transcoding, selectors and quantities.
