//! The use cases, and what they need from the world: [`Store`] and [`Directory`].

mod error;
mod hub;
mod model;
mod ports;
mod reading;
mod sending;
mod subscription;

pub use error::{Error, Retry};
pub use hub::{Hub, Limits, Live};
pub use model::{Created, Draft, Message, NewRoom, Page, Position, Room, RoomPage, Sent, Standing, Stored};
pub use ports::{Directory, Store};
pub use subscription::{Delivered, Subscription};

use std::sync::Arc;

use lifecycle::Lifecycle;

/// Chat.
pub struct Chat<S, D> {
    store: S,
    directory: D,
    hub: Arc<Hub>,
    lifecycle: Lifecycle,
}

impl<S: Store, D: Directory> Chat<S, D> {
    /// Chat on a store, with the users of a directory and the subscriptions of a hub.
    pub fn new(store: S, directory: D, hub: Arc<Hub>, lifecycle: Lifecycle) -> Self {
        Self {
            store,
            directory,
            hub,
            lifecycle,
        }
    }
}
