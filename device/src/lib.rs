//! The one door to the kernel: files, names, locks and clocks.

pub mod error;

pub mod planted;

pub mod clock;

mod lock;

mod huge_pages;

mod prefetch;

mod arena;

mod record_lock;
mod removal;

pub mod buffers;

pub mod device;

mod directory;
mod host_file;
mod page_cache;
mod small_files;

pub mod blocking;
pub mod uring;

pub mod fault;
pub mod memory;
pub mod overlay;
pub mod record;

#[cfg(feature = "raw")]
pub mod raw;

mod auto;
pub mod probe;

pub use auto::open_device;
pub use blocking::BlockingDevice;
pub use buffers::{AlignedBuffer, BufferPool};
pub use clock::{Clock, ManualClock, SystemClock};
pub use device::{BLOCK_BYTES, Device, DeviceFile, DeviceKind, DeviceLock, DirectoryEntry, OpenMode, Result, Sync};
pub use error::{DeviceError, DeviceErrorKind};
pub use fault::{FaultDevice, FaultOp};
pub use memory::{MemoryDevice, SectorDamage};
pub use overlay::OverlayDevice;
pub use prefetch::prefetch;
pub use probe::MachineReport;
pub use record::RecordDevice;
pub use uring::{Bell, LANE_DEPTH, Lane, LaneWrite, UringDevice};
