//! The two kernel devices on a real disk, one story a file.

mod allocate;
mod denied_ring;
mod full;
mod lane;
mod locks;
mod refusals;
mod registered;
mod same_bytes;
mod small_files;

use oncelog_device::{AlignedBuffer, BlockingDevice, Device, UringDevice};
use std::process::{Command, Output};
use std::sync::Arc;

const BLOCK: u64 = 4096;

/// Every device that this machine has.
fn devices() -> Vec<Arc<dyn Device>> {
    let mut devices: Vec<Arc<dyn Device>> = vec![Arc::new(BlockingDevice::new())];
    match UringDevice::new() {
        Ok(ring) => devices.push(Arc::new(ring)),
        Err(why) => println!("skipped the ring: {why}"),
    }
    devices
}

/// Bytes that differ from block to block and from `seed` to `seed`.
fn pattern(length: usize, seed: u64) -> AlignedBuffer {
    let mut buffer = AlignedBuffer::new(length);
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for word in buffer.as_mut_slice().chunks_exact_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        word.copy_from_slice(&state.to_le_bytes());
    }
    buffer
}

/// The name of the variable that turns a test into its own child process.
const CHILD: &str = "ONCELOG_TEST_CHILD";

/// Runs the test `name` of this binary again, in a process of its own, with `argument` for [`child_argument`].
fn in_child(name: &str, argument: &str) -> Output {
    let binary = std::env::current_exe().expect("this binary");
    let output = Command::new(binary).args([name, "--exact", "--nocapture"]).env(CHILD, argument).output();
    output.expect("the child starts")
}

/// What the parent gave, `None` in the parent.
fn child_argument() -> Option<String> {
    std::env::var(CHILD).ok()
}

#[track_caller]
fn assert_passed(output: &Output) {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("1 passed"), "{out}\n{err}");
}
