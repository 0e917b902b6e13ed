//! Chooses the device and says why.

use crate::blocking::BlockingDevice;
use crate::device::{Device, DeviceKind, Result};
use crate::error::{DeviceError, DeviceErrorKind};
use crate::memory::MemoryDevice;
use crate::uring::UringDevice;
use std::path::Path;
use std::sync::Arc;

/// Opens a device; one line about it goes to the log.
///
/// [`DeviceKind::Auto`] takes a ring where this machine gives one and [`DeviceKind::Blocking`] where it does not
/// (`kernel.io_uring_disabled`, a filter that answers `EPERM`, a kernel without it); [`Device::describe`] tells the
/// reason.
///
/// # Errors
///
/// [`DeviceErrorKind::Unsupported`] where [`DeviceKind::Uring`] is asked for and there is none.
pub fn open_device(kind: DeviceKind) -> Result<Arc<dyn Device>> {
    let device: Arc<dyn Device> = match kind {
        DeviceKind::Blocking => Arc::new(BlockingDevice::new()),
        DeviceKind::Memory => Arc::new(MemoryDevice::new()),
        DeviceKind::Uring => Arc::new(UringDevice::new().map_err(|why| {
            DeviceError::new(DeviceErrorKind::Unsupported, "open_device", Path::new("io_uring"))
                .with_detail(why.to_string())
        })?),
        DeviceKind::Auto => match UringDevice::new() {
            Ok(ring) => Arc::new(ring),
            Err(why) => Arc::new(BlockingDevice::because(format!("no io_uring: {why}"))),
        },
    };
    tracing::info!(device = %device.describe(), "device chosen");
    Ok(device)
}
