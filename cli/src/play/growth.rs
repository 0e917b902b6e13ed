//! File times by the script's clock.
//!
//! Retention of a segment whose records carry no timestamps goes by when it last grew, and after a reopening that is
//! the file's time: on the host the machine's, which no script controls. So the script's time of growth is remembered
//! by offset, and the files are given it when the log is gone.

use oncelog_formats::file_name::{Kind, Suffix, parse_file_name};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

/// When the log in a directory grew, by offset.
#[derive(Default)]
pub struct Growth {
    directory: PathBuf,
    grown_ms: BTreeMap<i64, i64>,
}

impl Growth {
    /// Another directory starts anew.
    pub fn set_directory(&mut self, directory: &Path) {
        if self.directory != directory {
            self.directory = directory.to_path_buf();
            self.grown_ms.clear();
        }
    }

    /// The log grew at this offset.
    pub fn grew(&mut self, offset: i64, now_ms: i64) {
        self.grown_ms.insert(offset, now_ms);
    }

    /// The log was cut to this end.
    pub fn cut(&mut self, end_offset: i64, now_ms: i64) {
        self.grown_ms.split_off(&end_offset);
        self.grown_ms.insert(end_offset, now_ms);
    }

    /// Gives the segment files their times. A file that cannot be given one keeps its own: times are no data.
    pub fn stamp_files(&self) {
        let Ok(entries) = std::fs::read_dir(&self.directory) else { return };
        let mut segments: Vec<(i64, PathBuf)> = entries
            .flatten()
            .filter_map(|entry| {
                let name = parse_file_name(entry.file_name().to_str()?)?;
                (name.kind == Kind::Log && name.suffix == Suffix::None).then(|| (name.base_offset, entry.path()))
            })
            .collect();
        segments.sort_unstable();
        let nexts = segments.iter().skip(1).map(|(base, _)| *base).chain([i64::MAX]);
        for ((base, path), next) in segments.iter().zip(nexts) {
            let Some((_, &grown_ms)) = self.grown_ms.range(*base..next.max(*base)).next_back() else { continue };
            let time = UNIX_EPOCH + Duration::from_millis(grown_ms.max(0).cast_unsigned());
            let _ = File::options().write(true).open(path).and_then(|file| file.set_modified(time));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_segment_gets_the_time_of_its_last_growth() {
        let root = tempfile::tempdir().unwrap();
        let names = ["00000000000000000000.log", "00000000000000000010.log"];
        for name in names {
            std::fs::write(root.path().join(name), b"").unwrap();
        }
        let mut growth = Growth::default();
        growth.set_directory(root.path());
        for (offset, ms) in [(0, 5), (9, 70), (10, 80), (12, 90)] {
            growth.grew(offset, ms);
        }
        growth.cut(11, 85);
        growth.stamp_files();
        let ms = |name| {
            let time = std::fs::metadata(root.path().join(name)).unwrap().modified().unwrap();
            time.duration_since(UNIX_EPOCH).unwrap().as_millis()
        };
        assert_eq!(names.map(ms), [70, 85]);
    }
}
