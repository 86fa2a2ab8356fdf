//! Watching: from any retained revision, any number of watchers, none misses an event (SPEC.md, W-1 to W-12).
//!
//! A watcher is a cursor, not a queue. What it is given is read from the log and the tree by its receiver's
//! thread, whether it is one revision behind or a million; the writer only says which topics have become due.
//!
//! | module | noun |
//! |---|---|
//! | `stream` | the door: a stream, its controls, its responses |
//! | `state` | what a receiver knows: of watchers, topics, what has been made, progress, the content |
//! | `topic` | watchers of a stream that want the same keys in the same way |
//! | `members`, `places` | who belongs to a topic; topics by number |
//! | `inbox`, `due`, `waiting` | the hand-over from writer to receiver; who is stirred when a revision is visible |
//! | `pace` | how receivers wait |
//! | `table`, `ranges` | which topics a key belongs to |
//! | `registry` | all streams of a handle, and what the writer tells them |

mod due;
mod inbox;
#[cfg(all(test, loom))]
mod loom;
mod members;
mod pace;
mod places;
mod ranges;
mod registry;
mod request;
mod response;
mod state;
mod stream;
mod table;
#[cfg(all(test, not(miri)))]
mod tests;
mod topic;
mod waiting;

pub use request::{Filter, Start, WatchId, WatchRequest};
pub use response::{EventBatch, Update, WatchResponse};
pub use stream::{Responses, WatchControl, WatchStream};

pub(crate) use registry::{Registry, WatchStats};
