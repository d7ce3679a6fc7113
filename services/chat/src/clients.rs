//! Other services.

use channel::Stack;
use proto::account::v1::{GetUserStatusRequest, directory_service_client::DirectoryServiceClient};
use tonic::Code;

use crate::{
    app::{Directory, Retry},
    domain::user::Status,
    events::incoming,
};

/// Account, who owns the list of users.
#[derive(Clone)]
pub struct Account {
    directory: DirectoryServiceClient<Stack>,
}

impl Account {
    /// Account behind a channel.
    pub fn new(stack: Stack) -> Self {
        Self {
            directory: DirectoryServiceClient::new(stack),
        }
    }
}

impl Directory for Account {
    async fn status(&self, user: i64) -> Result<Option<Status>, Retry> {
        let request = GetUserStatusRequest { user_id: user };
        match self.directory.clone().get_user_status(request).await {
            Ok(response) => Ok(incoming::status(response.get_ref().status())),
            Err(status) => Err(failed(&status)),
        }
    }
}

/// Account's answer says nothing to chat's caller but whether to try again.
fn failed(status: &tonic::Status) -> Retry {
    match status.code() {
        Code::Unavailable | Code::DeadlineExceeded | Code::ResourceExhausted | Code::Cancelled => {
            Retry::Later(format!("account: {status}").into())
        }
        _ => Retry::Never(format!("account: {status}").into()),
    }
}
