//! Streams that run as late as they may.
//!
//! Usually a call does its work at once. That is an order that CUDA allows, and the kindest: whatever the host has written
//! is there, whatever a copy brings has arrived, and a wait that was forgotten goes unseen. In this mode a stream keeps
//! what it is given, and does it when somebody must see the result: a synchronisation, a copy that the host waits for, a
//! query (which says "not ready" once and does one piece), memory that is freed, a module that is unloaded, the end of a
//! context or of the process. And then only as far as that needs: that stream's work, of others what an event or the
//! legacy default stream makes it wait for. Where several streams must run, the one that was given work last goes first.
//!
//! So a copy from page-locked memory reads it late, after a host that writes it anew too early; and a kernel that doesn't
//! wait for another stream's copy runs before that. What the calling thread may rely on is as NVIDIA writes in "API
//! synchronization behavior": pageable memory is read before a call returns that copies from it, and written before one
//! that copies to it. A kernel's fault comes to light with a later call, as on hardware, and so does what goes wrong in
//! other late work; its context has then failed.
//!
//! Graphs that allocate memory are launched at once, and so are frees of their memory. The default stream of a thread
//! (handle 2) is the legacy one, which waits for more.

use super::context::current;
use super::copy::Rows;
use super::graph::Operation;
use super::state::{self, Driver};
use super::{Answer, Code, Handle, report};
use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

/// A place in a queue: everything up to this job.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    queue: Handle,
    serial: u64,
}

/// What a stream will do.
pub(super) enum Work {
    /// Only wait for others.
    Nothing,
    Operation(Operation),
    /// Copy what was in pageable memory at the call.
    Staged {
        rows: Rows,
        bytes: Vec<u8>,
    },
    Graph(Vec<Operation>),
    /// Record an event.
    Record(Handle),
    /// Free memory.
    Free(u64),
}

struct Job {
    serial: u64,
    /// What must have been done before.
    after: Vec<Mark>,
    work: Work,
}

/// A stream's work, which outlives its stream's handle.
struct Queue {
    context: Handle,
    /// Does it keep order with the legacy default stream?
    blocking: bool,
    jobs: VecDeque<Job>,
}

/// All work that is not done: by stream, the legacy default stream by its context. Queues are never empty.
#[derive(Default)]
pub(super) struct Late {
    queues: BTreeMap<Handle, Queue>,
    serial: u64,
}

impl Late {
    fn is_pending(&self, mark: Mark) -> bool {
        self.queues.get(&mark.queue).and_then(|q| q.jobs.front()).is_some_and(|job| job.serial <= mark.serial)
    }

    /// The ends of the queues that `wanted` chooses, the latest first.
    fn ends(&self, wanted: impl Fn(Handle, &Queue) -> bool) -> Vec<Mark> {
        let chosen = self.queues.iter().filter(|&(&queue, q)| wanted(queue, q));
        let mut marks: Vec<Mark> =
            chosen.filter_map(|(&queue, q)| Some(Mark { queue, serial: q.jobs.back()?.serial })).collect();
        marks.sort_unstable_by_key(|mark| std::cmp::Reverse(mark.serial));
        marks
    }

    /// Takes the job that must be done first on the way to `mark`, with its context; none if the mark is reached.
    fn next(&mut self, mark: Mark) -> Option<(Handle, Work)> {
        if !self.is_pending(mark) {
            return None;
        }
        let mut queue = mark.queue;
        while let Some(before) = self.queues.get(&queue)?.jobs.front()?.after.iter().find(|&&m| self.is_pending(m)) {
            queue = before.queue;
        }
        let found = self.queues.get_mut(&queue)?;
        let (context, job) = (found.context, found.jobs.pop_front()?);
        if found.jobs.is_empty() {
            self.queues.remove(&queue);
        }
        Some((context, job.work))
    }
}

impl Driver {
    /// Gives a stream work to be done late, behind `event` if there is one.
    pub fn enqueue(&mut self, stream: Handle, work: Work, event: Option<Mark>) -> Answer<Mark> {
        let (context, queue, blocking) = match self.stream(stream)? {
            None => {
                let context = current().ok_or(Code::INVALID_CONTEXT)?;
                (context, context, true)
            }
            Some(found) => (found.context, stream, found.flags & NON_BLOCKING == 0),
        };
        let late = self.late.get_or_insert_default();
        let mut after: Vec<Mark> = event.into_iter().collect();
        if queue == context {
            after.extend(late.ends(|other, q| other != queue && q.context == context && q.blocking));
        } else if blocking {
            after.extend(late.ends(|other, _| other == context));
        }
        late.serial += 1;
        let serial = late.serial;
        let found = late.queues.entry(queue).or_insert(Queue { context, blocking, jobs: VecDeque::new() });
        found.jobs.push_back(Job { serial, after, work });
        at_exit();
        Ok(Mark { queue, serial })
    }

    /// Does what `submit` was given, or leaves it for later.
    pub fn defer(&mut self, stream: Handle, operation: Operation) -> Answer {
        let context = current().ok_or(Code::INVALID_CONTEXT)?;
        let (now, work) = match operation {
            Operation::Copy(rows) => {
                self.check_copy(&rows)?;
                let host_end = if rows.ends.from_device { rows.to } else { rows.from };
                let pageable = !(rows.ends.from_device && rows.ends.to_device || self.is_host_memory(host_end));
                match pageable {
                    true if rows.ends.to_device => (false, self.staged(rows)),
                    _ => (pageable, Work::Operation(Operation::Copy(rows))),
                }
            }
            Operation::Fill(fill) => {
                self.check_fill(&fill)?;
                // One call for page-locked memory is synchronous and another isn't: both as the stricter.
                (self.is_host_memory(fill.to), Work::Operation(operation))
            }
            other => (false, Work::Operation(other)),
        };
        if now {
            self.run_stream(stream)?;
            return self.do_work(context, work);
        }
        self.enqueue(stream, work, None).map(|_| ())
    }

    /// A copy that the host waits for, as far as the host waits: not for copies within the device, nor for the last part of
    /// one from pageable memory.
    pub fn copy_synchronously(&mut self, rows: &Rows) -> Answer {
        let context = current().ok_or(Code::INVALID_CONTEXT)?;
        if self.late.is_none() {
            return self.copy(rows);
        }
        if rows.ends.from_device && rows.ends.to_device {
            return self.defer(LEGACY, Operation::Copy(*rows));
        }
        self.run_stream(LEGACY)?;
        self.check_copy(rows)?;
        if rows.ends.to_device && !self.is_host_memory(rows.from) {
            let staged = self.staged(*rows);
            return self.enqueue(LEGACY, staged, None).map(|_| ());
        }
        self.do_work(context, Work::Operation(Operation::Copy(*rows)))
    }

    /// What is in pageable memory now, to be copied later.
    fn staged(&self, mut rows: Rows) -> Work {
        let mut bytes = Vec::with_capacity(rows.width * rows.height);
        for row in 0..rows.height {
            let from = (rows.from + (row * rows.from_pitch) as u64) as *const u8;
            // SAFETY: the caller of the copy answers for its host end.
            bytes.extend_from_slice(unsafe { std::slice::from_raw_parts(from, rows.width) });
        }
        rows.from_pitch = rows.width;
        Work::Staged { rows, bytes }
    }

    fn do_work(&mut self, context: Handle, work: Work) -> Answer {
        match work {
            Work::Nothing => Ok(()),
            Work::Operation(operation) => self.perform(context, &operation),
            Work::Staged { mut rows, bytes } => {
                rows.from = bytes.as_ptr() as u64;
                self.copy(&rows)
            }
            Work::Graph(operations) => self.perform_all(context, &operations),
            Work::Record(event) => {
                if let Some(event) = self.events.get_mut(&event) {
                    event.time = Some(Instant::now());
                }
                Ok(())
            }
            Work::Free(address) => self.give_back(address),
        }
    }

    /// Is anything on the way to this mark not done?
    pub fn is_pending(&self, mark: Mark) -> bool {
        self.late.as_ref().is_some_and(|late| late.is_pending(mark))
    }

    /// Does the next job on the way to a mark; false if it is reached.
    fn step(&mut self, mark: Mark) -> bool {
        let Some((context, work)) = self.late.as_mut().and_then(|late| late.next(mark)) else {
            return false;
        };
        // What a failed context still had to do is lost with it.
        if self.healthy(context).is_ok()
            && let Err(code) = self.do_work(context, work)
        {
            report::say(&format!("work that a stream was given by an earlier call gives {}", code.name()));
            self.fail(context, code);
        }
        true
    }

    /// Does everything up to some marks.
    pub fn run_until(&mut self, marks: &[Mark]) {
        for &mark in marks {
            while self.step(mark) {}
        }
    }

    /// What stands between a stream and its end: for the legacy default stream, all streams that keep order with it.
    fn ends_of(&self, stream: Handle) -> Answer<Vec<Mark>> {
        let context = current().ok_or(Code::INVALID_CONTEXT)?;
        let Some(late) = &self.late else { return Ok(Vec::new()) };
        Ok(match self.stream(stream)? {
            None => late.ends(|_, q| q.context == context && q.blocking),
            Some(_) => late.ends(|queue, _| queue == stream),
        })
    }

    /// Does all that a stream was given.
    pub fn run_stream(&mut self, stream: Handle) -> Answer {
        let ends = self.ends_of(stream)?;
        self.run_until(&ends);
        self.healthy(current().ok_or(Code::INVALID_CONTEXT)?)
    }

    /// Does all that the streams of a context were given.
    pub fn run_context(&mut self, context: Handle) -> Answer {
        let ends = self.late.as_ref().map(|late| late.ends(|_, q| q.context == context)).unwrap_or_default();
        self.run_until(&ends);
        self.healthy(context)
    }

    /// Whether a stream has done all; if not, it does one job more, so that whoever asks again and again gets a yes.
    pub fn query_stream(&mut self, stream: Handle) -> Answer {
        let ends = self.ends_of(stream)?;
        self.query(ends.first().copied())
    }

    /// Whether a mark is reached; if not, one job more is done.
    pub fn query(&mut self, mark: Option<Mark>) -> Answer {
        let Some(mark) = mark.filter(|&mark| self.is_pending(mark)) else { return Ok(()) };
        self.step(mark);
        self.healthy(current().ok_or(Code::INVALID_CONTEXT)?)?;
        Err(Code::NOT_READY)
    }
}

/// `CU_STREAM_NON_BLOCKING`.
const NON_BLOCKING: u32 = 1;
/// The legacy default stream.
const LEGACY: Handle = 0;

/// Once there is late work, sees to it that what is left of it at the end of the process is done, and its faults are said.
fn at_exit() {
    extern "C" fn finish() {
        // A panic must not cross into C; and at the exit of a process, nobody would hear of an error.
        let _ = std::panic::catch_unwind(|| {
            if let Some(mut driver) = state::try_get() {
                let contexts: Vec<Handle> = driver.contexts.keys().copied().collect();
                for context in contexts {
                    let _ = driver.run_context(context);
                }
            }
        });
    }
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        // SAFETY: the function may be called at the exit, since the driver is never destroyed.
        if unsafe { libc::atexit(finish) } != 0 {
            report::say("what streams have not done at the end of the process will not be done");
        }
    });
}
