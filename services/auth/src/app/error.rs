/// What a server behind us said; for the log, never for the caller.
pub type Source = Box<dyn std::error::Error + Send + Sync>;

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The email is unknown or the password wrong; nobody hears which.
    #[error("wrong email or password")]
    InvalidCredentials,
    /// There is no such session, or it has ended.
    #[error("no such session")]
    SessionInvalid,
    /// The email belongs to another user.
    #[error("the email is taken")]
    EmailTaken,
    /// The user has a credential with another email.
    #[error("the user has another credential")]
    CredentialExists,
    /// The user has no credential.
    #[error("no such credential")]
    CredentialNotFound,
    /// Too many passwords wait for their turn.
    #[error("too many passwords wait")]
    Overloaded,
    /// The database did not answer: the outcome is unknown.
    #[error("unavailable: {0}")]
    Unavailable(#[source] Source),
    /// A mistake of ours.
    #[error("internal: {0}")]
    Internal(#[source] Source),
}
