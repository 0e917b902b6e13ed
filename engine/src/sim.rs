//! A disk and a clock from a seed, for tests of programs that use this crate.
//!
//! [`MemoryDevice`] keeps two images of every file: what a living process sees, and what would survive the loss of
//! power. It fails when told to ([`MemoryDevice::plant`]), loses its power in the middle of a call
//! ([`MemoryDevice::crash_after`]), damages sectors at rest, and does all of that the same way for the same seed. What
//! it promises is what a real disk promises and nothing beyond.
//!
//! ```
//! use oncelog::sim::{FaultOp, MemoryDevice};
//! use oncelog::{Append, Engine, EngineOptions, ManualClock, OpenOptions, Outcome};
//! use oncelog::formats::BatchBuilder;
//! use std::sync::Arc;
//!
//! fn open(disk: &MemoryDevice) -> Result<(Engine, oncelog::Log), oncelog::Error> {
//!     let options = EngineOptions {
//!         device: Some(Arc::new(disk.clone())),
//!         clock: Some(Arc::new(ManualClock::new(1_700_000_000_000))),
//!         driver: false, // nothing happens unless this thread does it
//!         ..EngineOptions::default()
//!     };
//!     let engine = Engine::open("/data", options)?;
//!     let log = engine.log("events-0", OpenOptions::default())?;
//!     Ok((engine, log))
//! }
//!
//! let batch = |sequence| BatchBuilder::new().producer(7, 0, sequence).append(0, None, Some(b"hello"), &[]).build();
//! for seed in 0..20 {
//!     let disk = MemoryDevice::new();
//!     let (engine, log) = open(&disk)?;
//!     let first = log.append(Append::client(&batch(0)?))?.wait()?;
//!     disk.plant(FaultOp::Sync, 0, 1); // the next sync fails
//!     assert!(log.append(Append::client(&batch(1)?))?.wait().is_err());
//!     engine.kill();
//!     disk.power_cut(seed); // what was not synced is lost, kept or torn, as the seed says
//!     disk.clear_faults();
//!
//!     let (_engine, log) = open(&disk)?;
//!     let again = log.append(Append::client(&batch(0)?))?.wait()?;
//!     assert_eq!((again.outcome, again.base_offset), (Outcome::Duplicate, first.base_offset));
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub use oncelog_device::{FaultDevice, FaultOp, MemoryDevice, SectorDamage};
