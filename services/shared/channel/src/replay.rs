//! A request that can be sent once more, when its server has certainly not processed it.
//!
//! A server that drains answers streams that it will not process with GOAWAY and NO_ERROR, or with REFUSED_STREAM; both mean
//! that the request is safe to send again (RFC 9113, 6.8 and 8.7). By then it was given away, so a copy is kept of its head,
//! and of its body as far as it was read.

use std::{
    error::Error as _,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use bytes::{Buf as _, Bytes};
use http::{Request, request::Parts};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tonic::{Status, body::Body};

use crate::unary::is_unprocessed as is_unprocessed_by_h2;

/// The most of a body that is kept. A request that is longer is sent once.
const LONGEST_BYTES: usize = 64 * 1024;

/// What is needed to send the request again.
pub(crate) struct Copy {
    parts: Parts,
    body: Home,
}

/// Where a body that was given away leaves what it was, when it is dropped.
type Home = Arc<Mutex<Option<Kept>>>;

struct Kept {
    read: Vec<Bytes>,
    rest: Body,
}

/// Makes the request one that can be sent again.
pub(crate) fn with_copy(request: Request<Body>) -> (Request<Body>, Copy) {
    let (parts, rest) = request.into_parts();
    let home = Home::default();
    let body = Recorded {
        replay: Vec::new().into_iter(),
        read: Some(Vec::new()),
        read_bytes: 0,
        rest: Some(rest),
        home: Arc::clone(&home),
    };
    let copy = Copy {
        parts: parts.clone(),
        body: home,
    };
    (Request::from_parts(parts, Body::new(body)), copy)
}

impl Copy {
    /// The request once more; `None` when too much of it has gone.
    pub fn again(self) -> Option<Request<Body>> {
        let kept = self.body.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        let body = Recorded {
            replay: kept.read.into_iter(),
            read: None,
            read_bytes: 0,
            rest: Some(kept.rest),
            home: Home::default(),
        };
        Some(Request::from_parts(self.parts, Body::new(body)))
    }
}

/// Whether the server has certainly not processed the request.
pub(crate) fn is_unprocessed(error: &hyper::Error) -> bool {
    error
        .source()
        .and_then(|source| source.downcast_ref::<h2::Error>())
        .is_some_and(is_unprocessed_by_h2)
}

struct Recorded {
    /// What an earlier try had read of it comes first.
    replay: std::vec::IntoIter<Bytes>,
    /// What was read; `None` when it is not kept.
    read: Option<Vec<Bytes>>,
    read_bytes: usize,
    /// Taken on drop only.
    rest: Option<Body>,
    home: Home,
}

impl HttpBody for Recorded {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Some(piece) = self.replay.next() {
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        let Some(rest) = self.rest.as_mut() else {
            return Poll::Ready(None);
        };
        let frame = std::task::ready!(Pin::new(rest).poll_frame(cx));
        match frame
            .as_ref()
            .and_then(|frame| frame.as_ref().ok())
            .map(Frame::data_ref)
        {
            Some(Some(data)) => {
                self.read_bytes += data.remaining();
                let fits = self.read_bytes <= LONGEST_BYTES;
                let data = data.clone();
                self.read = self.read.take().filter(|_| fits).map(|mut read| {
                    read.push(data);
                    read
                });
            }
            // an end leaves nothing more to read, and is found again; errors and trailers are not kept
            None if frame.is_none() => {}
            _ => self.read = None,
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.replay.len() == 0 && self.rest.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.rest.as_ref().map(HttpBody::size_hint).unwrap_or_default();
        let replayed: u64 = self
            .replay
            .as_slice()
            .iter()
            .map(|piece| piece.len() as u64)
            .sum();
        let mut hint = SizeHint::new();
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + replayed);
        }
        hint.set_lower(rest.lower() + replayed);
        hint
    }
}

impl Drop for Recorded {
    fn drop(&mut self) {
        if let (Some(read), Some(rest)) = (self.read.take(), self.rest.take()) {
            *self.home.lock().unwrap_or_else(PoisonError::into_inner) = Some(Kept { read, rest });
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt as _, Full};

    use super::*;

    fn request(body: &[u8]) -> Request<Body> {
        let mut request = Request::new(Body::new(Full::new(Bytes::copy_from_slice(body))));
        request
            .headers_mut()
            .insert("a", http::HeaderValue::from_static("b"));
        request
    }

    #[tokio::test]
    async fn a_request_comes_back_whole_however_far_it_was_read() {
        for read in [false, true] {
            let (mut sent, copy) = with_copy(request(b"hello"));
            if read {
                sent.body_mut().frame().await.unwrap().unwrap();
            }
            drop(sent);
            let again = copy.again().unwrap();
            assert_eq!(again.headers()["a"], "b");
            assert_eq!(again.into_body().collect().await.unwrap().to_bytes(), "hello");
        }
    }

    #[tokio::test]
    async fn a_long_request_is_sent_once() {
        let (mut sent, copy) = with_copy(request(&vec![0; LONGEST_BYTES + 1]));
        sent.body_mut().frame().await.unwrap().unwrap();
        drop(sent);
        assert!(copy.again().is_none());
    }

    #[tokio::test]
    async fn a_request_that_is_still_being_sent_is_not_sent_again() {
        let (_sent, copy) = with_copy(request(b"hello"));
        assert!(copy.again().is_none());
    }
}
