//! What other services ask of the ledger.

use std::sync::Arc;

use proto::transfer::v1::{
    GetUserBalanceRequest, GetUserBalanceResponse, OpenAccountRequest, OpenAccountResponse,
    ledger_service_server::LedgerService,
};
use tonic::{Request, Response, Status};

use super::{convert, status};
use crate::{
    app::{
        directory::Accounts,
        ledger::Ledger,
        reads::{Journal, Reads},
    },
    domain::command::Authority,
};

/// Serves `LedgerService`.
pub struct Internal<A, J> {
    ledger: Arc<Ledger<A>>,
    reads: Arc<Reads<J>>,
}

impl<A, J> Internal<A, J> {
    /// Serves `ledger` and what is read of it.
    pub fn new(ledger: Arc<Ledger<A>>, reads: Arc<Reads<J>>) -> Self {
        Self { ledger, reads }
    }
}

#[tonic::async_trait]
impl<A: Accounts, J: Journal> LedgerService for Internal<A, J> {
    async fn open_account(
        &self,
        request: Request<OpenAccountRequest>,
    ) -> Result<Response<OpenAccountResponse>, Status> {
        let (user_id, currency) = convert::opening(request.get_ref())?;
        let account_id = self
            .ledger
            .open_main(user_id, currency)
            .await
            .map_err(status::from_error)?;
        Ok(Response::new(OpenAccountResponse { account_id }))
    }

    async fn get_user_balance(
        &self,
        request: Request<GetUserBalanceRequest>,
    ) -> Result<Response<GetUserBalanceResponse>, Status> {
        let deadline = rpc::deadline(&request);
        let user_id = convert::views::user_id(*request.get_ref())?;
        let balance = async {
            let account = self.ledger.main_account(user_id).await?;
            self.reads
                .account(account, Authority::Bank, deadline.instant())
                .await
        };
        let record = balance.await.map_err(status::from_error)?;
        Ok(Response::new(convert::views::user_balance(&record.account)))
    }
}
