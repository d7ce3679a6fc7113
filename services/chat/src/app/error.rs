use std::error::Error as StdError;

/// Whether trying again may help. Nothing of it is for the caller's eyes.
#[derive(Debug, thiserror::Error)]
pub enum Retry {
    /// Something that chat needs is away for the moment. A write may have happened.
    #[error("{0}")]
    Later(#[source] Box<dyn StdError + Send + Sync>),
    /// A defect.
    #[error("{0}")]
    Never(#[source] Box<dyn StdError + Send + Sync>),
}

/// Why a use case did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The caller writes in the name of another.
    #[error("the sender is not the caller")]
    NotTheSender,
    /// The caller wants to read what others wrote to each other.
    #[error("the caller is neither of the two")]
    NotYourMessages,
    /// Somebody who is written to, or made a member, does not exist.
    #[error("the user does not exist")]
    UserNotFound,
    /// Somebody who is written to, or made a member, is frozen.
    #[error("the user is frozen")]
    UserFrozen,
    /// The caller may not write.
    #[error("the caller is not active")]
    CallerNotActive,
    /// There is no such room, or the caller is not a member.
    #[error("the room does not exist for the caller")]
    RoomNotFound,
    /// The id of the message belongs to another message.
    #[error("the message id was used before")]
    MessageIdReused,
    /// The id of the request belongs to another request.
    #[error("the request id was used before")]
    RequestIdReused,
    /// The page token belongs to another list.
    #[error("the page token belongs to another list")]
    ForeignPage,
    /// The position is behind the end of the room.
    #[error("position {index} is behind the end of its room")]
    PositionBehindEnd {
        /// The index of the position in the request.
        index: usize,
    },
    /// The instance, or the user, has as many subscriptions as it may.
    #[error("too many subscriptions")]
    TooManySubscriptions,
    /// The user has created as many rooms as one may.
    #[error("too many rooms created")]
    TooManyRoomsCreated,
    /// The subscriber reads too slowly.
    #[error("the subscriber is too slow")]
    SlowSubscriber,
    /// The instance stops.
    #[error("draining")]
    Draining,
    /// It did not work out.
    #[error(transparent)]
    Failed(#[from] Retry),
}
