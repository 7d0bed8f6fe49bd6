//! placeholder
use std::sync::Arc;
pub(crate) async fn run(_n: Arc<crate::context::NodeContext>, _t: crate::manager::PodTable) {}
