//! What happened, and what of it a power cut at some moment may leave out.

use super::content::Change;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A file, whatever its name.
pub(super) type Node = u32;

/// A call that changes something or makes a change survive.
#[derive(Clone, Debug)]
pub(super) enum Op {
    Change {
        node: Node,
        change: Change,
        synced: bool,
    },
    Sync {
        node: Node,
    },
    Name(Name),
    SyncDirectory {
        directory: PathBuf,
    },
    /// Old or new, and durable on return.
    Small {
        node: Node,
        path: Arc<Path>,
        bytes: Arc<[u8]>,
    },
}

/// A change of names.
#[derive(Clone, Debug)]
pub(super) enum Name {
    File {
        node: Node,
        path: Arc<Path>,
    },
    Directory {
        path: PathBuf,
    },
    /// Does nothing if another file has the name by then.
    Rename {
        node: Node,
        from: Arc<Path>,
        to: Arc<Path>,
    },
    Remove {
        node: Node,
        path: Arc<Path>,
    },
    RemoveDirectory {
        path: PathBuf,
    },
}

impl Name {
    /// The directory whose sync makes it durable.
    fn directory(&self) -> Option<&Path> {
        match self {
            Self::File { path, .. } | Self::Rename { to: path, .. } | Self::Remove { path, .. } => path.parent(),
            Self::Directory { path } | Self::RemoveDirectory { path } => path.parent(),
        }
    }
}

#[derive(Clone, Debug)]
enum Event {
    Begin(Arc<Op>),
    /// The call that began there has returned without an error.
    End(usize),
    Mark(u64),
}

/// Everything that passed through a [`super::RecordDevice`], in order. Its moments are numbered from 0, when nothing
/// had happened, to [`History::moments`].
#[derive(Clone, Debug, Default)]
pub struct History {
    events: Vec<Event>,
}

/// A change that had begun when the power went.
pub(super) struct Step {
    pub op: Arc<Op>,
    begin: usize,
    /// When it had returned.
    end: Option<usize>,
    /// Must be there.
    pub durable: bool,
}

impl Step {
    fn returned_before(&self, moment: usize) -> bool {
        self.end.is_some_and(|end| end < moment)
    }
}

impl History {
    /// The last moment, when everything had happened.
    pub fn moments(&self) -> usize {
        self.events.len()
    }

    /// Marks set before this moment, in order.
    pub fn marks_before(&self, moment: usize) -> impl Iterator<Item = u64> + '_ {
        self.events[..moment].iter().filter_map(|event| match event {
            Event::Mark(mark) => Some(*mark),
            _ => None,
        })
    }

    /// What happened up to this moment, a line each, for a report.
    pub fn lines(&self, moment: usize) -> Vec<String> {
        let events = self.events[..moment].iter().enumerate();
        let line = |(at, event): (usize, &Event)| match event {
            Event::Begin(op) => format!("{at}: {}", describe(op)),
            Event::End(begun) => format!("{at}: {begun} has returned"),
            Event::Mark(mark) => format!("{at}: mark {mark:#x}"),
        };
        events.map(line).collect()
    }

    pub(super) fn begin(&mut self, op: Op) -> usize {
        self.events.push(Event::Begin(Arc::new(op)));
        self.events.len() - 1
    }

    pub(super) fn end(&mut self, begun: usize) {
        self.events.push(Event::End(begun));
    }

    pub(super) fn mark(&mut self, mark: u64) {
        self.events.push(Event::Mark(mark));
    }

    /// The changes begun before this moment: those that had returned in the order of their return, then the others.
    pub(super) fn steps(&self, moment: usize) -> Vec<Step> {
        let mut steps: Vec<Step> = Vec::new();
        for (at, event) in self.events[..moment].iter().enumerate() {
            match event {
                Event::Begin(op) => steps.push(Step { op: op.clone(), begin: at, end: None, durable: false }),
                Event::End(begun) => {
                    let found = steps.binary_search_by_key(begun, |step| step.begin).expect("it has begun");
                    steps[found].end = Some(at);
                    settle(&mut steps, found);
                }
                Event::Mark(_) => {}
            }
        }
        steps.retain(|step| !matches!(*step.op, Op::Sync { .. } | Op::SyncDirectory { .. }));
        steps.sort_by_key(|step| (step.end.unwrap_or(usize::MAX), step.begin));
        steps
    }
}

fn describe(op: &Op) -> String {
    match op {
        Op::Change { node, change: Change::Write { position, bytes }, synced } => {
            format!("write {} bytes at {position} of file {node}{}", bytes.len(), if *synced { ", synced" } else { "" })
        }
        Op::Change { node, change, .. } => format!("{change:?} of file {node}"),
        Op::Small { node, path, bytes } => {
            format!("write_small {} as file {node}, {} bytes", path.display(), bytes.len())
        }
        Op::Sync { .. } | Op::Name(_) | Op::SyncDirectory { .. } => format!("{op:?}"),
    }
}

/// What the return of a call makes durable: promises 2 to 4 of [`crate::device`].
fn settle(steps: &mut [Step], returned: usize) {
    let (op, begin) = (steps[returned].op.clone(), steps[returned].begin);
    match &*op {
        Op::Change { synced: true, .. } | Op::Small { .. } => steps[returned].durable = true,
        Op::Change { .. } | Op::Name(_) => {}
        Op::Sync { node: synced } => {
            for step in steps.iter_mut().filter(|step| step.returned_before(begin)) {
                step.durable |= matches!(*step.op, Op::Change { node, .. } if node == *synced);
            }
        }
        Op::SyncDirectory { directory } => {
            for step in steps.iter_mut().filter(|step| step.returned_before(begin)) {
                step.durable |= matches!(&*step.op, Op::Name(name) if name.directory() == Some(directory));
            }
        }
    }
}
