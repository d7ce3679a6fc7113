//! The services that the saga calls: auth for the credential, transfer for the money.

use channel::Stack;
use proto::{
    auth::v1::{
        CreateCredentialRequest, GetCredentialRequest, credential_service_client::CredentialServiceClient,
    },
    transfer::v1::{GetUserBalanceRequest, OpenAccountRequest, ledger_service_client::LedgerServiceClient},
};
use secrecy::{ExposeSecret as _, SecretString};
use tonic::{Code, Status};

use crate::app::{Balance, Bank, Credentials, Error};

/// Auth.
#[derive(Clone)]
pub struct Auth(CredentialServiceClient<Stack>);

impl Auth {
    /// Auth, over a channel that signs for account.
    pub fn new(stack: Stack) -> Self {
        Self(CredentialServiceClient::new(stack))
    }
}

impl Credentials for Auth {
    async fn create(&self, user_id: i64, email: &str, password: Option<&SecretString>) -> Result<(), Error> {
        let request = CreateCredentialRequest {
            user_id,
            email: email.to_owned(),
            password: password.map(|password| password.expose_secret().to_owned()),
        };
        match self.0.clone().create_credential(request).await {
            Ok(_) => Ok(()),
            // refused before any work: only here, where it means that nothing was done for this user
            Err(status) if status.code() == Code::ResourceExhausted => Err(Error::Overloaded),
            Err(status) => Err(match rpc::error::reason(&status).as_deref() {
                Some("EMAIL_TAKEN") => Error::EmailTaken,
                Some("WEAK_PASSWORD") => Error::WeakPassword,
                _ => classify(status),
            }),
        }
    }

    async fn exists(&self, user_id: i64) -> Result<bool, Error> {
        let request = GetCredentialRequest { user_id };
        let answer = self.0.clone().get_credential(request).await.map_err(classify)?;
        Ok(answer.into_inner().exists)
    }
}

/// Transfer.
#[derive(Clone)]
pub struct Transfer(LedgerServiceClient<Stack>);

impl Transfer {
    /// Transfer, over a channel that signs for account.
    pub fn new(stack: Stack) -> Self {
        Self(LedgerServiceClient::new(stack))
    }
}

impl Bank for Transfer {
    async fn open(&self, user_id: i64, currency: &str) -> Result<(), Error> {
        let request = OpenAccountRequest {
            user_id,
            currency: currency.to_owned(),
        };
        self.0.clone().open_account(request).await.map_err(classify)?;
        Ok(())
    }

    async fn balance(&self, user_id: i64) -> Result<Balance, Error> {
        let request = GetUserBalanceRequest { user_id };
        let answer = self
            .0
            .clone()
            .get_user_balance(request)
            .await
            .map_err(classify)?
            .into_inner();
        Ok(Balance {
            posted: answer.posted,
            currency: answer.currency,
        })
    }
}

fn classify(status: Status) -> Error {
    match status.code() {
        Code::Unavailable
        | Code::DeadlineExceeded
        | Code::ResourceExhausted
        | Code::Cancelled
        | Code::Aborted
        | Code::Unknown => Error::Unavailable(status.into()),
        // a refusal of a request that this service made is a mistake of this service
        Code::Ok
        | Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::Internal
        | Code::DataLoss
        | Code::Unauthenticated => Error::Internal(status.into()),
    }
}
