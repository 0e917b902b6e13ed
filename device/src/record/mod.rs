//! A device that writes down what passes through it, and the disks that a power cut could have left.
//!
//! [`RecordDevice`] stands between an engine and any other device, the ring over a real disk included. Each call that
//! changes something is noted when it begins and again when it has returned: calls of several threads stay apart, and
//! one that had not returned when the power went counts as done, not done or half done. [`History`] then answers, for
//! each moment, which disks the numbered promises of [`crate::device`] allow, all of them or one by chance; [`Disk`] is
//! put into a [`crate::MemoryDevice`] or a directory, and opened like any other.
//!
//! This is the power cut for devices whose memory nobody can cut. It was chosen over a block device that forgets
//! (dm-flakey and the like) because it needs no privilege and can try every outcome instead of the one that chance
//! brought.
//!
//! What is not written down: reads, and lock files, whose content says nothing. Calls must not fail: a failed one
//! counts as one that never returns.

mod content;
mod disk;
mod enumerate;
mod history;
#[cfg(test)]
mod tests;
mod wrapper;

pub use disk::Disk;
pub use history::History;
pub use wrapper::RecordDevice;
