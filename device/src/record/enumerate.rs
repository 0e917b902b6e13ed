//! The disks that a power cut at some moment may have left: all of them, or one by chance.
//!
//! Files and names are looked at one by one, and equal contents count once after every step: a tail block that was
//! written ten times without a sync has eleven outcomes, not a thousand.

use super::content::Content;
use super::disk::Disk;
use super::history::{History, Name, Node, Op, Step};
use crate::fault::chance::{below, mix2};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Names as some cut leaves them.
#[derive(Clone, Debug, Default, Hash)]
struct Names {
    files: BTreeMap<Arc<Path>, Node>,
    directories: BTreeSet<PathBuf>,
}

impl Names {
    fn apply(&mut self, name: &Name) {
        let is = |files: &BTreeMap<Arc<Path>, Node>, path: &Arc<Path>, node: &Node| files.get(path) == Some(node);
        match name {
            Name::File { node, path } => {
                self.files.insert(path.clone(), *node);
            }
            Name::Directory { path } => {
                self.directories.insert(path.clone());
            }
            Name::Rename { node, from, to } if is(&self.files, from, node) => {
                self.files.remove(from);
                self.files.insert(to.clone(), *node);
            }
            Name::Remove { node, path } if is(&self.files, path, node) => {
                self.files.remove(path);
            }
            Name::RemoveDirectory { path } => {
                self.directories.remove(path);
                self.files.retain(|file, _| !file.starts_with(path));
            }
            Name::Rename { .. } | Name::Remove { .. } => {}
        }
    }
}

impl History {
    /// Every disk that a power cut at this moment may have left, each once; `None` where there would be more than
    /// `limit`. Writes that were not synced are there, not there, or torn in two at any sector.
    pub fn disks(&self, moment: usize, limit: usize) -> Option<Vec<Disk>> {
        let steps = self.steps(moment);
        let mut contents: BTreeMap<Node, Vec<Arc<Content>>> = BTreeMap::new();
        let mut found = Vec::new();
        for names in all_names(&steps, limit)? {
            let names = reachable(names, &steps);
            for node in names.files.values() {
                if !contents.contains_key(node) {
                    contents.insert(*node, all_contents(&steps, *node, limit)?);
                }
            }
            let directories = Arc::new(names.directories);
            let mut disks = vec![Disk { directories, files: BTreeMap::new() }];
            for (path, node) in &names.files {
                let versions = &contents[node];
                if disks.len().saturating_mul(versions.len()) > limit {
                    return None;
                }
                let with = |disk: &Disk, content: &Arc<Content>| {
                    let mut disk = disk.clone();
                    disk.files.insert(path.clone(), content.clone());
                    disk
                };
                disks = disks.iter().flat_map(|disk| versions.iter().map(move |content| with(disk, content))).collect();
            }
            found.extend(disks);
        }
        (found.len() <= limit).then_some(found)
    }

    /// One disk that a power cut at this moment may have left, by chance: what was not synced survives or not, torn.
    pub fn disk(&self, moment: usize, seed: u64) -> Disk {
        let steps = self.steps(moment);
        let open = steps.iter().filter(|step| !step.durable).count() as u64;
        let mode = below(mix2(seed, 0), 4);
        let first = below(mix2(seed, 1), open + 1);
        let mut names = Names::default();
        let mut contents: BTreeMap<Node, Content> = BTreeMap::new();
        let mut number = 0;
        for step in &steps {
            let draw = mix2(seed, 16 + number);
            if !step.durable {
                let survives = match mode {
                    0 => false,
                    1 => number < first,
                    _ => draw & 1 == 1,
                };
                number += 1;
                if !survives {
                    continue;
                }
            }
            match &*step.op {
                Op::Change { node, change, .. } => {
                    let content = contents.entry(*node).or_default();
                    if step.durable { content.apply(change, |_| true) } else { content.apply_torn(change, draw) }
                }
                Op::Name(name) => names.apply(name),
                Op::Small { node, path, bytes } => {
                    contents.insert(*node, Content::of(bytes));
                    names.apply(&Name::File { node: *node, path: path.clone() });
                }
                Op::Sync { .. } | Op::SyncDirectory { .. } => {}
            }
        }
        let names = reachable(names, &steps);
        let content = |node: &Node| Arc::new(contents.get(node).cloned().unwrap_or_default());
        let files = names.files.iter().map(|(path, node)| (path.clone(), content(node))).collect();
        Disk { directories: Arc::new(names.directories), files }
    }
}

/// Every outcome of the changes of names.
fn all_names(steps: &[Step], limit: usize) -> Option<Vec<Names>> {
    let mut all = vec![Names::default()];
    for step in steps {
        let name = match &*step.op {
            Op::Name(name) => name.clone(),
            Op::Small { node, path, .. } => Name::File { node: *node, path: path.clone() },
            _ => continue,
        };
        let done = all.iter().cloned().map(|mut names| {
            names.apply(&name);
            names
        });
        let done: Vec<Names> = done.collect();
        all = if step.durable { done } else { [all, done].concat() };
        once(&mut all, hash_of);
        if all.len() > limit {
            return None;
        }
    }
    Some(all)
}

/// Every outcome of the changes of one file.
fn all_contents(steps: &[Step], wanted: Node, limit: usize) -> Option<Vec<Arc<Content>>> {
    let mut all = vec![Content::default()];
    for step in steps {
        match &*step.op {
            Op::Small { node, bytes, .. } if *node == wanted => all = vec![Content::of(bytes)],
            Op::Change { node, change, .. } if *node == wanted => {
                let mut done = all.clone();
                done.iter_mut().for_each(|content| content.apply(change, |_| true));
                if !step.durable {
                    done.extend(all.iter().flat_map(|content| content.tears(change)));
                    done.extend(all);
                }
                all = done;
                once(&mut all, Content::hash);
            }
            _ => {}
        }
        if all.len() > limit {
            return None;
        }
    }
    Some(all.into_iter().map(Arc::new).collect())
}

/// Without what lies in a directory that is not there.
fn reachable(mut names: Names, steps: &[Step]) -> Names {
    let made = |path: &Path| steps.iter().any(|s| matches!(&*s.op, Op::Name(Name::Directory { path: p }) if p == path));
    let gone: BTreeSet<PathBuf> =
        names.files.keys().flat_map(|file| file.ancestors().skip(1)).map(Path::to_path_buf).collect();
    let gone: Vec<PathBuf> = gone.into_iter().filter(|path| !names.directories.contains(path) && made(path)).collect();
    names.files.retain(|file, _| !gone.iter().any(|directory| file.starts_with(directory)));
    names.directories.retain(|directory| !gone.iter().any(|above| directory.starts_with(above)));
    names
}

fn once<T>(all: &mut Vec<T>, hash: impl Fn(&T) -> u64) {
    let mut seen = HashSet::new();
    all.retain(|one| seen.insert(hash(one)));
}

fn hash_of(names: &Names) -> u64 {
    let mut hasher = DefaultHasher::new();
    names.hash(&mut hasher);
    hasher.finish()
}
