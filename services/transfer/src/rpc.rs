//! The gRPC face of the ledger.

mod convert;
mod status;

use std::sync::Arc;

use proto::transfer::v1::{
    CreateTransferRequest, CreateTransferResponse, DepositRequest, DepositResponse, GetTransferRequest,
    GetTransferResponse, GetUserBalanceRequest, GetUserBalanceResponse, OpenAccountRequest,
    OpenAccountResponse, ledger_service_server::LedgerService, transfer_service_server::TransferService,
};
use tonic::{Request, Response, Status};

use crate::app::{Ledger, Store};

/// Serves both services of the contract.
pub struct Handler<S> {
    ledger: Arc<Ledger<S>>,
}

impl<S> Handler<S> {
    /// Serves `ledger`.
    pub fn new(ledger: Arc<Ledger<S>>) -> Self {
        Self { ledger }
    }
}

#[tonic::async_trait]
impl<S: Store> TransferService for Handler<S> {
    async fn create_transfer(
        &self,
        request: Request<CreateTransferRequest>,
    ) -> Result<Response<CreateTransferResponse>, Status> {
        let caller = rpc::caller(&request)?.user_id()?;
        let order = convert::transfer_order(request.get_ref())?;
        let posted = self
            .ledger
            .transfer(caller, &order)
            .await
            .map_err(status::from_error)?;
        Ok(Response::new(CreateTransferResponse {
            status: "success".to_owned(),
            transfer_id: posted.id.to_string(),
            created_at: Some(convert::timestamp(posted.created_at)),
        }))
    }

    async fn get_transfer(
        &self,
        request: Request<GetTransferRequest>,
    ) -> Result<Response<GetTransferResponse>, Status> {
        let caller = rpc::caller(&request)?.user_id()?;
        let id = convert::transfer_id(&request.get_ref().transfer_id)?;
        let found = self.ledger.find(caller, id).await.map_err(status::from_error)?;
        Ok(Response::new(GetTransferResponse {
            transfer: Some(convert::transfer(found)),
        }))
    }

    async fn deposit(&self, request: Request<DepositRequest>) -> Result<Response<DepositResponse>, Status> {
        let order = convert::deposit_order(request.get_ref())?;
        let posted = self.ledger.deposit(&order).await.map_err(status::from_error)?;
        Ok(Response::new(DepositResponse {
            status: "success".to_owned(),
            transfer_id: posted.id.to_string(),
            created_at: Some(convert::timestamp(posted.created_at)),
        }))
    }
}

#[tonic::async_trait]
impl<S: Store> LedgerService for Handler<S> {
    async fn open_account(
        &self,
        request: Request<OpenAccountRequest>,
    ) -> Result<Response<OpenAccountResponse>, Status> {
        let (user_id, currency) = convert::opening(request.get_ref())?;
        let account = self
            .ledger
            .open(user_id, currency)
            .await
            .map_err(status::from_error)?;
        Ok(Response::new(OpenAccountResponse {
            account_id: account.id,
        }))
    }

    async fn get_user_balance(
        &self,
        request: Request<GetUserBalanceRequest>,
    ) -> Result<Response<GetUserBalanceResponse>, Status> {
        let account = self
            .ledger
            .account(request.get_ref().user_id)
            .await
            .map_err(status::from_error)?;
        Ok(Response::new(GetUserBalanceResponse {
            posted: account.posted,
            available: account.available(),
            currency: account.currency.code().to_owned(),
        }))
    }
}
