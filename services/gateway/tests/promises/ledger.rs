//! The ledger of the bank: the methods that the promises call, found by their paths, so that a new method of the contract is
//! none of its business.

use std::{
    convert::Infallible,
    sync::atomic::Ordering,
    task::{Context, Poll},
};

use futures_util::future::BoxFuture;
use proto::{http_body::HttpBody, transfer::v1 as transfer};
use rpc::error;
use tonic::{
    Code, Request, Response, Status,
    body::Body,
    server::{Grpc, NamedService},
};
use tonic_prost::ProstCodec;
use tower::{Service, service_fn};

use crate::bank::{Bank, ENDLESS, GATED, REPLAYED};

type Answer = BoxFuture<'static, Result<http::Response<Body>, Infallible>>;

#[derive(Clone)]
pub struct Transfers(pub Bank);

#[derive(Clone)]
pub struct Accounts;

impl NamedService for Transfers {
    const NAME: &'static str = "kontor.transfer.v1.TransferService";
}

impl NamedService for Accounts {
    const NAME: &'static str = "kontor.transfer.v1.LedgerAccountService";
}

impl Service<http::Request<Body>> for Transfers {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Answer {
        let bank = self.0.clone();
        match request.uri().path().rsplit('/').next() {
            Some("CreateTransfer") => unary(request, move |request| create(bank.clone(), request)),
            Some("Deposit") => unary(request, deposit),
            _ => unary(request, nothing),
        }
    }
}

impl Service<http::Request<Body>> for Accounts {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Answer {
        unary(request, statement)
    }
}

/// Serves one unary call.
fn unary<Asked, Told, F>(
    request: http::Request<Body>,
    method: impl Fn(Request<Asked>) -> F + Clone + Send + 'static,
) -> Answer
where
    Asked: prost::Message + Default + 'static,
    Told: prost::Message + Default + 'static,
    F: Future<Output = Result<Response<Told>, Status>> + Send + 'static,
{
    Box::pin(async move {
        let mut grpc = Grpc::new(ProstCodec::<Told, Asked>::default());
        Ok(grpc.unary(service_fn(method), request).await)
    })
}

async fn create(
    bank: Bank,
    request: Request<transfer::CreateTransferRequest>,
) -> Result<Response<transfer::CreateTransferResponse>, Status> {
    let caller = rpc::caller(&request)?.user_id()?;
    let transfer = request.into_inner();
    if caller != transfer.from_user_id {
        let sentence = "Can only transfer from your account";
        return Err(error::reject(
            Code::PermissionDenied,
            "NOT_YOUR_ACCOUNT",
            sentence,
        ));
    }
    bank.waiting.fetch_add(1, Ordering::SeqCst);
    match transfer.amount {
        ENDLESS => std::future::pending().await,
        GATED => bank.gate.notified().await,
        1_001.. => {
            let reason = "INSUFFICIENT_BALANCE";
            return Err(error::reject(
                Code::FailedPrecondition,
                reason,
                "Insufficient balance",
            ));
        }
        _ => {}
    }
    let mut response = Response::new(transfer::CreateTransferResponse {
        status: "success".into(),
        transfer_id: transfer.transfer_id,
        created_at: None,
    });
    if transfer.amount == REPLAYED {
        let replayed = "true".parse().unwrap();
        response.metadata_mut().insert("idempotent-replayed", replayed);
    }
    Ok(response)
}

async fn deposit(
    request: Request<transfer::DepositRequest>,
) -> Result<Response<transfer::DepositResponse>, Status> {
    Ok(Response::new(transfer::DepositResponse {
        status: "success".into(),
        transfer_id: request.into_inner().transfer_id,
        created_at: None,
    }))
}

async fn nothing(
    _: Request<transfer::GetTransferRequest>,
) -> Result<Response<transfer::GetTransferResponse>, Status> {
    let sentence = "Transfer not found";
    Err(error::reject(Code::NotFound, "TRANSFER_NOT_FOUND", sentence))
}

async fn statement(request: Request<transfer::GetStatementCsvRequest>) -> Result<Response<HttpBody>, Status> {
    let account = request.into_inner().account_id;
    Ok(Response::new(HttpBody {
        content_type: "text/csv; charset=utf-8".into(),
        data: format!("account,amount\r\n{account},\"1\"\r\n").into(),
    }))
}
