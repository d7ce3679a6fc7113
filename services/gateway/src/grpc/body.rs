//! The body of a proxied answer: frames pass as they come, and there is always a status at the end.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderValue};
use http_body::{Body as HttpBody, Frame};
use lifecycle::Lifecycle;
use proto::method::Method;
use rpc::{Deadline, error};
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Sleep, sleep_until},
};
use tonic::{Code, Status, body::Body};

use super::{code_number, headers};
use crate::{pipeline::Gateway, record::Record, session::Watched};

/// What ends an answer before its upstream does.
pub(super) struct Ends {
    deadline: Option<Pin<Box<Sleep>>>,
    draining: Option<BoxFuture<'static, ()>>,
    session: Option<BoxFuture<'static, ()>>,
}

impl Ends {
    /// Ends at the deadline; and at once when the gateway drains, for a stream that would not end by itself.
    pub fn new(deadline: Option<Deadline>, lifecycle: Option<&Lifecycle>) -> Self {
        Self {
            deadline: deadline.map(|deadline| Box::pin(sleep_until(deadline.instant().into()))),
            draining: lifecycle.cloned().map(|lifecycle| -> BoxFuture<'static, ()> {
                Box::pin(async move { lifecycle.draining().await })
            }),
            session: None,
        }
    }

    /// Ends with the session, too.
    pub fn with(mut self, session: Option<Watched>) -> Self {
        self.session = session.map(|session| -> BoxFuture<'static, ()> { Box::pin(session.ended()) });
        self
    }

    pub fn at_draining(lifecycle: &Lifecycle) -> Self {
        Self::new(None, Some(lifecycle))
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Status> {
        if self
            .deadline
            .as_mut()
            .is_some_and(|deadline| deadline.as_mut().poll(cx).is_ready())
        {
            return Poll::Ready(error::late());
        }
        if self
            .draining
            .as_mut()
            .is_some_and(|draining| draining.as_mut().poll(cx).is_ready())
        {
            return Poll::Ready(error::reject(
                Code::Unavailable,
                "DRAINING",
                "This instance is stopping; connect again",
            ));
        }
        if self
            .session
            .as_mut()
            .is_some_and(|session| session.as_mut().poll(cx).is_ready())
        {
            // it is not polled again: this is the end
            return Poll::Ready(error::reject(
                Code::Unauthenticated,
                "SESSION_INVALID",
                "Unauthorized",
            ));
        }
        Poll::Pending
    }
}

/// Notes how a call ended.
pub(super) struct Watch {
    pub gateway: Arc<Gateway>,
    pub method: &'static Method,
    pub request_id: HeaderValue,
    pub record: Record,
}

impl Watch {
    /// Reads the status among headers or trailers, if it is there, and notes it.
    pub fn read_status(&mut self, headers: &mut HeaderMap) -> bool {
        let status = headers::read_status(headers);
        if let Some(status) = &status {
            self.end(status);
        }
        status.is_some()
    }

    fn end(&mut self, status: &Status) {
        self.record.end(code_number(status.code()));
        self.gateway.upstreams.note(self.method, &self.request_id, status);
    }
}

/// An answer on its way to the client.
pub(super) struct Proxied {
    body: Body,
    ends: Ends,
    watch: Option<Watch>,
    place: Option<OwnedSemaphorePermit>,
    done: bool,
}

impl Proxied {
    pub fn new(body: Body, ends: Ends, watch: Option<Watch>) -> Self {
        Self {
            body,
            ends,
            watch,
            place: None,
            done: false,
        }
    }

    /// Keeps a place until the answer has ended.
    pub fn holding(mut self, place: OwnedSemaphorePermit) -> Self {
        self.place = Some(place);
        self
    }

    /// The trailers that say why the gateway ended the answer.
    fn cut(&mut self, status: &Status) -> Frame<Bytes> {
        if let Some(watch) = &mut self.watch {
            watch.end(status);
        }
        let mut trailers = HeaderMap::new();
        // the gateway's own statuses are constants with a header form
        let _ = status.add_header(&mut trailers);
        Frame::trailers(trailers)
    }
}

impl HttpBody for Proxied {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        if this.done {
            return Poll::Ready(None);
        }
        if let Poll::Ready(status) = this.ends.poll(cx) {
            this.done = true;
            return Poll::Ready(Some(Ok(this.cut(&status))));
        }
        let polled = match Pin::new(&mut this.body).poll_frame(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(polled) => polled,
        };
        let frame = match polled {
            Some(Ok(frame)) => match frame.into_trailers() {
                Err(data) => return Poll::Ready(Some(Ok(data))),
                Ok(mut trailers) => {
                    if let Some(watch) = &mut this.watch {
                        watch.read_status(&mut trailers);
                    }
                    headers::clean(&mut trailers);
                    Frame::trailers(trailers)
                }
            },
            Some(Err(status)) => this.cut(&status),
            None => this.cut(&error::unavailable("the answer ended without a status")),
        };
        this.done = true;
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.done
    }
}
