//! An invocation as it was at one moment, told by many streams.

use std::{
    ops::Deref,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;

use crate::domain::invocation::Invocation;

/// An invocation, and its encoded form once a stream has needed it. All streams that tell the same moment have
/// the same value of this type, so it is encoded once and not once a stream.
#[derive(Debug)]
pub struct SharedInvocation {
    invocation: Arc<Invocation>,
    encoded: OnceLock<Bytes>,
}

impl SharedInvocation {
    pub(super) fn new(invocation: Arc<Invocation>) -> Arc<Self> {
        Arc::new(Self {
            invocation,
            encoded: OnceLock::new(),
        })
    }

    /// What `encode` makes of the invocation, for whoever asks first and for all later. There is one such form,
    /// so every caller has to bring the same `encode`.
    pub fn encoded(&self, encode: impl FnOnce(&Invocation) -> Bytes) -> Bytes {
        self.encoded.get_or_init(|| encode(&self.invocation)).clone()
    }
}

impl Deref for SharedInvocation {
    type Target = Invocation;

    fn deref(&self) -> &Invocation {
        &self.invocation
    }
}
