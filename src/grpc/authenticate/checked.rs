//! The body of a request, whose trailers tell of no identity: tonic adds them to what a handler sees as metadata.

use super::tells_identity;
use crate::error::{Error, Reason};
use http_body::{Body, Frame, SizeHint};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tonic::Status;

/// The body. Ends with a failure where a trailer tells of an identity.
#[derive(Debug)]
pub(in crate::grpc) struct Checked<B>(B);

impl<B> Checked<B> {
    pub(super) fn new(body: B) -> Self {
        Self(body)
    }
}

impl<B> Body for Checked<B>
where
    B: Body + Unpin,
    B::Error: Into<tower::BoxError>,
{
    type Data = B::Data;
    type Error = tower::BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let frame = match ready!(Pin::new(&mut self.get_mut().0).poll_frame(context)) {
            None => return Poll::Ready(None),
            Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
            Some(Ok(frame)) => frame,
        };
        let tells =
            frame.trailers_ref().is_some_and(|trailers| trailers.keys().any(|name| tells_identity(name.as_str())));
        Poll::Ready(Some(if tells {
            tracing::debug!("not authenticated: a trailer tells of an identity, and none is believed");
            Err(Box::new(Status::from(Error::new(Reason::CallerUnauthenticated))))
        } else {
            Ok(frame)
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}
