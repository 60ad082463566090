//! A view on what a worker hands out, for a trace that a checker reads: I15 of the contract says that an
//! entry is durable before anyone hears of it, and only who stands between the core and its endpoints can
//! bear witness to the order.

use std::sync::Arc;

use ringway_protocol::ids::{ConversationId, Seq};

/// Told on the worker's thread, before the endpoint has it.
pub trait Observer: Send + Sync {
    /// The sender of this entry is told that it is durable.
    fn acknowledged(&self, conversation: ConversationId, seq: Seq);

    /// The members who are connected to one endpoint are told of this entry.
    fn delivered(&self, conversation: ConversationId, seq: Seq);
}

/// None, where nobody looks.
pub(crate) type Observed = Option<Arc<dyn Observer>>;
