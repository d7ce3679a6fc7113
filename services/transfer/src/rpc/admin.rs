//! `LedgerAdminService`: the whole ledger, for operators.

use futures_util::{Stream, StreamExt as _, stream::BoxStream};
use lifecycle::Lifecycle;
use proto::transfer::v1::{
    ExportLedgerRequest, ExportLedgerResponse, ImportLedgerRequest, ImportLedgerResponse,
    VerifyLedgerRequest, VerifyLedgerResponse, ledger_admin_service_server::LedgerAdminService,
};
use tonic::{Request, Response, Status, Streaming};

use super::{convert::admin as convert, feed::feed, status};
use crate::app::{
    audit::{self, Room, Snapshots},
    chain::Signer,
    export::{self, Archive},
    import::{self, Intakes},
};

/// Serves `LedgerAdminService`.
pub struct Admin<S> {
    store: S,
    signer: Signer,
    room: Room,
    lifecycle: Lifecycle,
}

impl<S> Admin<S> {
    /// Serves the ledger of a store.
    pub fn new(store: S, signer: Signer, lifecycle: Lifecycle) -> Self {
        Self {
            store,
            signer,
            room: Room::default(),
            lifecycle,
        }
    }
}

impl<S: Intakes + Clone> Admin<S> {
    /// Takes the parts that a client sends.
    ///
    /// # Errors
    /// Others go through the whole ledger at the moment.
    pub fn take(
        &self,
        parts: impl Stream<Item = Result<ImportLedgerRequest, Status>> + Send + Unpin + 'static,
    ) -> Result<BoxStream<'static, Result<ImportLedgerResponse, Status>>, Status> {
        let permit = self.room.enter().map_err(status::from_error)?;
        let (store, signer) = (self.store.clone(), self.signer.clone());
        Ok(feed(
            "ledger import",
            &self.lifecycle,
            permit,
            |reports| async move {
                let parts = parts.map(convert::part);
                import::import(&store, &signer, parts, &reports).await
            },
            convert::taken,
        ))
    }
}

#[tonic::async_trait]
impl<S> LedgerAdminService for Admin<S>
where
    S: Snapshots<Snapshot: Archive> + Intakes + Clone,
{
    type VerifyLedgerStream = BoxStream<'static, Result<VerifyLedgerResponse, Status>>;

    async fn verify_ledger(
        &self,
        request: Request<VerifyLedgerRequest>,
    ) -> Result<Response<Self::VerifyLedgerStream>, Status> {
        let known = convert::known_heads(request.get_ref())?;
        let permit = self.room.enter().map_err(status::from_error)?;
        let (store, signer) = (self.store.clone(), self.signer.clone());
        let answers = feed(
            "ledger verification",
            &self.lifecycle,
            permit,
            |reports| async move { audit::verify(&store, &signer, known, &reports).await },
            convert::report,
        );
        Ok(Response::new(answers))
    }

    type ExportLedgerStream = BoxStream<'static, Result<ExportLedgerResponse, Status>>;

    async fn export_ledger(
        &self,
        _: Request<ExportLedgerRequest>,
    ) -> Result<Response<Self::ExportLedgerStream>, Status> {
        let permit = self.room.enter().map_err(status::from_error)?;
        let (store, now) = (self.store.clone(), convert::now());
        let answers = feed(
            "ledger export",
            &self.lifecycle,
            permit,
            |parts| async move { export::export(&store, now, &parts).await },
            convert::exported,
        );
        Ok(Response::new(answers))
    }

    type ImportLedgerStream = BoxStream<'static, Result<ImportLedgerResponse, Status>>;

    async fn import_ledger(
        &self,
        request: Request<Streaming<ImportLedgerRequest>>,
    ) -> Result<Response<Self::ImportLedgerStream>, Status> {
        Ok(Response::new(self.take(request.into_inner())?))
    }
}
