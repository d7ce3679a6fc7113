//! `TransferService`: what moves money.

use std::sync::Arc;

use futures_util::stream::BoxStream;
use lifecycle::Lifecycle;
use proto::transfer::v1::{
    CreateTransferRequest, CreateTransferResponse, CreateTransfersRequest, CreateTransfersResponse,
    DepositRequest, DepositResponse, GetTransferRequest, GetTransferResponse, PostTransferRequest,
    PostTransferResponse, ReverseTransferRequest, ReverseTransferResponse, StreamTransfersRequest,
    StreamTransfersResponse, VoidTransferRequest, VoidTransferResponse, WithdrawRequest, WithdrawResponse,
    transfer_service_server::TransferService,
};
use tonic::{Request, Response, Status, Streaming};

use super::{authority, batch, convert, status, stream, written};
use crate::app::{
    directory::Accounts,
    engine::MAX_BATCH,
    ledger::Ledger,
    order::Action,
    reads::{Journal, Reads},
};

/// Serves `TransferService`.
pub struct Transfers<A, J> {
    ledger: Arc<Ledger<A>>,
    reads: Arc<Reads<J>>,
    lifecycle: Lifecycle,
}

impl<A: Accounts, J: Journal> Transfers<A, J> {
    /// Serves `ledger` and what is read of it.
    pub fn new(ledger: Arc<Ledger<A>>, reads: Arc<Reads<J>>, lifecycle: Lifecycle) -> Self {
        Self {
            ledger,
            reads,
            lifecycle,
        }
    }

    async fn run<T>(
        &self,
        deadline: rpc::Deadline,
        action: Action,
        dry_run: bool,
        answer: impl FnOnce(Option<prost_types::Timestamp>) -> T,
    ) -> Result<Response<T>, Status> {
        let done = self
            .ledger
            .run(action, dry_run, deadline.instant())
            .await
            .map_err(status::from_error)?;
        Ok(written(done, answer(Some(convert::made_at(done)))))
    }
}

#[tonic::async_trait]
impl<A: Accounts, J: Journal> TransferService for Transfers<A, J> {
    async fn create_transfer(
        &self,
        request: Request<CreateTransferRequest>,
    ) -> Result<Response<CreateTransferResponse>, Status> {
        let (by, deadline) = (authority(&request)?, rpc::deadline(&request));
        let request = request.into_inner();
        let (dry_run, pending) = (request.dry_run, request.pending);
        let transfer_id = request.transfer_id.clone();
        let action = convert::transfer(request, by)?;
        self.run(deadline, action, dry_run, |created_at| CreateTransferResponse {
            status: convert::done_word(dry_run, pending),
            transfer_id,
            created_at,
        })
        .await
    }

    async fn create_transfers(
        &self,
        request: Request<CreateTransfersRequest>,
    ) -> Result<Response<CreateTransfersResponse>, Status> {
        let (by, deadline) = (authority(&request)?, rpc::deadline(&request));
        let CreateTransfersRequest { actions, dry_run } = request.into_inner();
        if actions.is_empty() || actions.len() > MAX_BATCH {
            return Err(rpc::error::invalid([("actions", "must be between 1 and 8192")]));
        }
        let results = batch::run(&self.ledger, actions, by, dry_run, 0, deadline.instant()).await?;
        Ok(Response::new(CreateTransfersResponse { results }))
    }

    type StreamTransfersStream = BoxStream<'static, Result<StreamTransfersResponse, Status>>;

    async fn stream_transfers(
        &self,
        request: Request<Streaming<StreamTransfersRequest>>,
    ) -> Result<Response<Self::StreamTransfersStream>, Status> {
        let by = authority(&request)?;
        let results = stream::results(
            Arc::clone(&self.ledger),
            by,
            request.into_inner(),
            &self.lifecycle,
        );
        Ok(Response::new(results))
    }

    async fn post_transfer(
        &self,
        request: Request<PostTransferRequest>,
    ) -> Result<Response<PostTransferResponse>, Status> {
        let (by, deadline) = (authority(&request)?, rpc::deadline(&request));
        let request = request.into_inner();
        let action = convert::post(&request, by)?;
        self.run(deadline, action, request.dry_run, |created_at| {
            PostTransferResponse {
                status: convert::done_word(request.dry_run, false),
                transfer_id: request.transfer_id,
                created_at,
            }
        })
        .await
    }

    async fn void_transfer(
        &self,
        request: Request<VoidTransferRequest>,
    ) -> Result<Response<VoidTransferResponse>, Status> {
        let (by, deadline) = (authority(&request)?, rpc::deadline(&request));
        let request = request.into_inner();
        let action = convert::void(&request, by)?;
        self.run(deadline, action, request.dry_run, |created_at| {
            VoidTransferResponse {
                status: convert::done_word(request.dry_run, false),
                transfer_id: request.transfer_id,
                created_at,
            }
        })
        .await
    }

    async fn reverse_transfer(
        &self,
        request: Request<ReverseTransferRequest>,
    ) -> Result<Response<ReverseTransferResponse>, Status> {
        let (by, deadline) = (authority(&request)?, rpc::deadline(&request));
        let request = request.into_inner();
        let (dry_run, transfer_id) = (request.dry_run, request.transfer_id.clone());
        let action = convert::reversal(request, by)?;
        self.run(deadline, action, dry_run, |created_at| ReverseTransferResponse {
            status: convert::done_word(dry_run, false),
            transfer_id,
            created_at,
        })
        .await
    }

    async fn get_transfer(
        &self,
        request: Request<GetTransferRequest>,
    ) -> Result<Response<GetTransferResponse>, Status> {
        let (by, deadline) = (authority(&request)?, rpc::deadline(&request));
        let id = convert::views::transfer_id(request.get_ref())?;
        let transfer = self
            .reads
            .transfer(id, by, deadline.instant())
            .await
            .map_err(status::from_error)?;
        Ok(Response::new(GetTransferResponse {
            transfer: Some(convert::views::transfer(&transfer)),
        }))
    }

    async fn deposit(&self, request: Request<DepositRequest>) -> Result<Response<DepositResponse>, Status> {
        let deadline = rpc::deadline(&request);
        let request = request.into_inner();
        let (dry_run, transfer_id) = (request.dry_run, request.transfer_id.clone());
        let action = convert::deposit(request)?;
        self.run(deadline, action, dry_run, |created_at| DepositResponse {
            status: convert::done_word(dry_run, false),
            transfer_id,
            created_at,
        })
        .await
    }

    async fn withdraw(
        &self,
        request: Request<WithdrawRequest>,
    ) -> Result<Response<WithdrawResponse>, Status> {
        let deadline = rpc::deadline(&request);
        let request = request.into_inner();
        let (dry_run, transfer_id) = (request.dry_run, request.transfer_id.clone());
        let action = convert::withdrawal(request)?;
        self.run(deadline, action, dry_run, |created_at| WithdrawResponse {
            status: convert::done_word(dry_run, false),
            transfer_id,
            created_at,
        })
        .await
    }
}
