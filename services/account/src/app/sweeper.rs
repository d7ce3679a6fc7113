//! Finishes sign-ups that a crash has left half done.

use std::time::Duration;

use lifecycle::Lifecycle;

use super::{Bank, Credentials, Error, Store, User, Users};

const PAUSE: Duration = Duration::from_secs(5);
/// A sign-up is left to its caller for this long after an attempt, which is more than any deadline.
const IDLE: Duration = Duration::from_secs(40);
/// A sign-up without a credential is given up when nobody has tried again for this long.
const FORLORN: Duration = Duration::from_mins(10);

pub(super) async fn run<S: Store, C: Credentials, B: Bank>(users: &Users<S, C, B>, lifecycle: &Lifecycle) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            () = lifecycle.stopping() => return,
        }
        if let Err(error) = round(users).await {
            tracing::warn!(%error, "cannot finish sign-ups now");
        }
    }
}

async fn round<S: Store, C: Credentials, B: Bank>(users: &Users<S, C, B>) -> Result<(), Error> {
    for (user, forlorn) in users.store.lease(IDLE, FORLORN).await? {
        match finish(users, &user, forlorn).await {
            Ok(()) => {}
            // the others would meet the same
            Err(error @ (Error::Unavailable(_) | Error::Overloaded)) => return Err(error),
            Err(error) => tracing::error!(user.id = user.id, %error, "a sign-up cannot be finished"),
        }
    }
    Ok(())
}

async fn finish<S: Store, C: Credentials, B: Bank>(
    users: &Users<S, C, B>,
    user: &User,
    forlorn: bool,
) -> Result<(), Error> {
    // the password is not ours to keep: without the credential, only the caller's retry can go on
    if !user.has_password || users.credentials.exists(user.id).await? {
        users.complete(user, None).await?;
        tracing::info!(user.id = user.id, "finished a sign-up");
    } else if forlorn {
        users.store.abandon(user).await?;
        tracing::info!(user.id = user.id, "gave up a sign-up without a credential");
    }
    Ok(())
}
