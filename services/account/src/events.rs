//! What account tells the other services, by its outbox.

use ::events::outbox::{self, Outgoing};
use prost::Message as _;
use proto::account::v1::{UserChanged, UserStatus};
use sqlx::PgConnection;

/// The topic of users; the key is the user's number.
pub const TOPIC: &str = "account.users";

/// Says, with the transaction of the change itself, what a user may do from now on.
pub async fn user_changed(
    transaction: &mut PgConnection,
    user_id: i64,
    status: UserStatus,
) -> Result<(), sqlx::Error> {
    let payload = UserChanged {
        user_id,
        status: status.into(),
    }
    .encode_to_vec();
    let event = Outgoing {
        topic: TOPIC,
        key: &user_id.to_string(),
        event_type: "kontor.account.v1.UserChanged",
        payload: &payload,
    };
    outbox::enqueue(transaction, &event).await
}
