//! A bounded channel whose messages remember their sender.

use std::fmt;

use tokio::sync::mpsc;

use crate::task::Carried;

/// A bounded [`tokio::sync::mpsc`] channel of messages in [`Carried`] envelopes.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let (orders, mut inbox) = throughline::task::channel(8);
/// orders.send(17).await?;
/// drop(orders);
/// while let Some(order) = inbox.recv().await {
///     // In the trace of whoever sent it.
///     order.with(|number| async move { assert_eq!(number, 17) }).await;
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(()) })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Panics
/// When `capacity` is zero, as tokio's does.
#[track_caller]
pub fn channel<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    let (sender, receiver) = mpsc::channel(capacity);
    (Sender { inner: sender }, Receiver { inner: receiver })
}

/// The sending half of a [`channel`].
#[derive(Debug)]
pub struct Sender<T> {
    inner: mpsc::Sender<Carried<T>>,
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

/// Why a message was not sent, with the message.
#[derive(Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError<T> {
    /// The channel is full.
    #[error("expected room in the channel, it is full; wait with `send` or send less")]
    Full(T),
    /// The receiver is gone.
    #[error("expected a receiver, it is gone; stop sending")]
    Closed(T),
}

impl<T> fmt::Debug for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full(_) => "Full(..)",
            Self::Closed(_) => "Closed(..)",
        })
    }
}

impl<T> Sender<T> {
    /// Sends a message with the surroundings of this line, and waits for room.
    ///
    /// # Errors
    /// [`SendError::Closed`] when the receiver is gone.
    pub async fn send(&self, message: T) -> Result<(), SendError<T>> {
        let sent = self.inner.send(Carried::new(message)).await;
        sent.map_err(|refused| SendError::Closed(refused.0.enter(|message| message)))
    }

    /// Sends a message with the surroundings of this line, if there is room.
    ///
    /// # Errors
    /// [`SendError`] when there is none, or no receiver.
    pub fn try_send(&self, message: T) -> Result<(), SendError<T>> {
        self.inner.try_send(Carried::new(message)).map_err(|refused| match refused {
            mpsc::error::TrySendError::Full(message) => {
                SendError::Full(message.enter(|message| message))
            }
            mpsc::error::TrySendError::Closed(message) => {
                SendError::Closed(message.enter(|message| message))
            }
        })
    }

    /// Whether the receiver is gone.
    pub fn is_closed(&self) -> bool {
        self.inner.is_closed()
    }
}

/// The receiving half of a [`channel`].
#[derive(Debug)]
pub struct Receiver<T> {
    inner: mpsc::Receiver<Carried<T>>,
}

impl<T> Receiver<T> {
    /// The next message; `None` when all senders are gone.
    pub async fn recv(&mut self) -> Option<Carried<T>> {
        self.inner.recv().await
    }

    /// A message that is there already.
    pub fn try_recv(&mut self) -> Option<Carried<T>> {
        self.inner.try_recv().ok()
    }

    /// Takes no more messages; those that are there can still be received.
    pub fn close(&mut self) {
        self.inner.close();
    }
}
