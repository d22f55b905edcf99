//! A message's content on its way out: taken from its body while there is room.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use hyper::body::Body;

use super::{Error, encode::BodyEncoder, write_buffer::WriteBuffer};

/// What is left of a message's content.
#[derive(Debug)]
pub(super) struct BodyWriter<B> {
    body: B,
    encoder: BodyEncoder,
}

/// How far a filling came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WriteProgress {
    /// The body has nothing at the moment.
    Waits,
    /// There is no more room.
    Full,
    /// The content is whole.
    Over,
}

impl<B> BodyWriter<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    pub(super) fn new(body: B, encoder: BodyEncoder) -> Self {
        Self { body, encoder }
    }

    /// Takes from the body while `out` has room.
    ///
    /// # Errors
    /// [`Error::Body`] where the body broke, [`Error::Length`] where it is not as long as was
    /// announced: the message must not end as if it were whole.
    pub(super) fn fill(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut WriteBuffer,
    ) -> Result<WriteProgress, Error> {
        while out.has_room() {
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Pending => return Ok(WriteProgress::Waits),
                Poll::Ready(Some(Err(_))) => return Err(Error::Body),
                Poll::Ready(None) => {
                    self.encoder.end(None, out)?;
                    return Ok(WriteProgress::Over);
                }
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => {
                        self.encoder.data(data, out)?;
                        // What a counted body ends with is its last byte.
                        if self.encoder.is_done() && self.body.is_end_stream() {
                            return Ok(WriteProgress::Over);
                        }
                    }
                    Err(frame) => {
                        self.encoder.end(frame.trailers_ref(), out)?;
                        return Ok(WriteProgress::Over);
                    }
                },
            }
        }
        Ok(WriteProgress::Full)
    }
}
