//! Under what conditions the figures were taken, without when and by whom.

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

pub(crate) struct Conditions {
    kernel: String,
    processor: String,
    cores: usize,
    file_system: String,
    device: String,
}

impl Conditions {
    pub(crate) fn of(dir: &Path) -> Self {
        let (file_system, device) = file_system_of(dir).unwrap_or_else(|| ("unknown".into(), "unknown".into()));
        Self {
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            processor: processor().unwrap_or_else(|| "unknown processor".into()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            file_system,
            device,
        }
    }
}

impl fmt::Display for Conditions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kernel, processor, cores, file_system, device } = self;
        write!(f, "Linux {kernel}, {cores} cores of {processor}, {file_system} on {device}")
    }
}

fn processor() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    line.split_once(':').map(|(_, name)| name.trim().to_owned())
}

/// The type of the file system and its device, by the device number in the table of mounts.
fn file_system_of(dir: &Path) -> Option<(String, String)> {
    let number = fs::metadata(dir).ok()?.dev();
    let number = format!("{}:{}", rustix::fs::major(number), rustix::fs::minor(number));
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let line = mounts.lines().find(|line| line.split(' ').nth(2) == Some(&number))?;
    let mut words = line.split_once(" - ")?.1.split(' ');
    let (kind, source) = (words.next()?, words.next()?);
    let about = |name: &str| fs::read_to_string(format!("/sys/dev/block/{number}/queue/{name}"));
    let mut device = source.trim_start_matches("/dev/").to_owned();
    if let (Ok(cache), Ok(fua)) = (about("write_cache"), about("fua")) {
        let fua = if fua.trim() == "1" { "with" } else { "without" };
        device = format!("{device} ({}, {fua} FUA)", cache.trim());
    }
    Some((kind.to_owned(), device))
}
