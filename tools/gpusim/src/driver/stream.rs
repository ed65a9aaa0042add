//! Streams and their capture.

use super::context::current;
use super::graph::{Graph, Operation};
use super::late::Work;
use super::state::Driver;
use super::{Answer, Code, Handle, api, driver, give, ready};
use std::ffi::{c_int, c_void};
use std::thread::ThreadId;

/// A stream.
pub(super) struct Stream {
    pub context: Handle,
    pub flags: u32,
    pub priority: c_int,
    /// The capture it takes part in.
    pub capture: Option<Handle>,
}

impl Stream {
    pub fn is_capturing(&self) -> bool {
        self.capture.is_some()
    }
}

/// A capture in progress.
pub(super) struct Capture {
    /// The stream on which it began.
    origin: Handle,
    pub operations: Vec<Operation>,
    /// Addresses that its allocations have taken, and their sizes.
    pub reserved: Vec<(u64, u64)>,
    /// Spoiled by a call that may not be captured.
    invalid: bool,
    mode: Mode,
    /// Where it began.
    thread: ThreadId,
}

/// Which calls that no stream sees a capture allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// None, from any thread.
    Global,
    /// None from its own.
    ThreadLocal,
    Relaxed,
}

impl Driver {
    /// The stream of this handle: none for the default streams.
    pub fn stream(&self, handle: Handle) -> Answer<Option<&Stream>> {
        match handle {
            0..=2 => Ok(None),
            _ => self.streams.get(&handle).map(Some).ok_or(Code::INVALID_HANDLE),
        }
    }

    /// The capture that a stream takes part in.
    pub fn capture_of(&mut self, stream: Handle) -> Answer<Option<&mut Capture>> {
        let Some(id) = self.stream(stream)?.and_then(|stream| stream.capture) else {
            return Ok(None);
        };
        let capture = self.captures.get_mut(&id).ok_or(Code::STREAM_CAPTURE_INVALIDATED)?;
        if capture.invalid { Err(Code::STREAM_CAPTURE_INVALIDATED) } else { Ok(Some(capture)) }
    }

    /// A call that no stream sees, such as an allocation: the end of every capture that doesn't allow it.
    pub fn allow_unseen(&mut self) -> Answer {
        let thread = std::thread::current().id();
        let forbids = |capture: &&mut Capture| match capture.mode {
            Mode::Global => true,
            Mode::ThreadLocal => capture.thread == thread,
            Mode::Relaxed => false,
        };
        spoil(self.captures.values_mut().filter(forbids))
    }

    /// A call that waits for all of a context: the end of every capture in it, whatever its mode.
    pub fn allow_waiting(&mut self, context: Handle) -> Answer {
        let streams = &self.streams;
        let inside = |capture: &&mut Capture| streams.get(&capture.origin).is_some_and(|s| s.context == context);
        spoil(self.captures.values_mut().filter(inside))
    }

    /// A call that waits for a stream: an error, and the end of its capture, if it has one.
    fn wait_for(&mut self, stream: Handle) -> Answer {
        match self.capture_of(stream)? {
            None => Ok(()),
            Some(capture) => {
                capture.invalid = true;
                Err(Code::STREAM_CAPTURE_UNSUPPORTED)
            }
        }
    }
}

fn spoil<'a>(captures: impl Iterator<Item = &'a mut Capture>) -> Answer {
    let spoilt = captures.map(|capture| capture.invalid = true).count();
    if spoilt == 0 { Ok(()) } else { Err(Code::STREAM_CAPTURE_UNSUPPORTED) }
}

fn create(place: *mut Handle, flags: u32, priority: c_int) -> Answer {
    if flags > 1 {
        return Err(Code::INVALID_VALUE);
    }
    let mut driver = ready()?;
    let context = current().ok_or(Code::INVALID_CONTEXT)?;
    let handle = driver.handle();
    driver.streams.insert(handle, Stream { context, flags, priority, capture: None });
    // SAFETY: the caller's promise.
    unsafe { give(place, handle) }
}

api! {
    fn cuStreamCreate(stream: *mut Handle, flags: u32) {
        create(stream, flags, 0)
    }

    fn cuStreamCreateWithPriority(stream: *mut Handle, flags: u32, priority: c_int) {
        create(stream, flags, priority.clamp(-5, 0))
    }

    fn cuStreamDestroy_v2(stream: Handle) {
        driver()?.streams.remove(&stream).map(|_| ()).ok_or(Code::INVALID_HANDLE)
    }

    fn cuStreamSynchronize(stream: Handle) {
        let mut driver = ready()?;
        driver.wait_for(stream)?;
        driver.run_stream(stream)
    }

    fn cuStreamQuery(stream: Handle) {
        let mut driver = ready()?;
        driver.wait_for(stream)?;
        driver.query_stream(stream)
    }

    fn cuStreamGetFlags(stream: Handle, flags: *mut u32) {
        let found = driver()?.stream(stream)?.map_or(0, |stream| stream.flags);
        // SAFETY: the caller's promise.
        unsafe { give(flags, found) }
    }

    fn cuStreamGetPriority(stream: Handle, priority: *mut c_int) {
        let found = driver()?.stream(stream)?.map_or(0, |stream| stream.priority);
        // SAFETY: the caller's promise.
        unsafe { give(priority, found) }
    }

    fn cuStreamGetCtx(stream: Handle, context: *mut Handle) {
        let of_thread = current();
        let found = driver()?.stream(stream)?.map(|stream| stream.context).or(of_thread);
        // SAFETY: the caller's promise.
        unsafe { give(context, found.ok_or(Code::INVALID_CONTEXT)?) }
    }

    fn cuStreamWaitEvent(stream: Handle, event: Handle, _flags: u32) {
        let mut driver = ready()?;
        let event = driver.events.get(&event).ok_or(Code::INVALID_HANDLE)?;
        let (capture, recorded, mark) = (event.capture, event.is_recorded(), event.mark);
        let mine = driver.stream(stream)?.and_then(|stream| stream.capture);
        match (mine, capture) {
            (None, Some(id)) => {
                // A wait for captured work draws the stream into the capture; the default streams can't be.
                let stream = driver.streams.get_mut(&stream).ok_or(Code::STREAM_CAPTURE_IMPLICIT)?;
                stream.capture = Some(id);
                Ok(())
            }
            (Some(_), None) if recorded => Err(Code::STREAM_CAPTURE_ISOLATION),
            (Some(mine), Some(other)) if mine != other => Err(Code::STREAM_CAPTURE_MERGE),
            (None, None) => match mark.filter(|&mark| driver.is_pending(mark)) {
                Some(mark) => driver.enqueue(stream, Work::Nothing, Some(mark)).map(|_| ()),
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    fn cuStreamAttachMemAsync(stream: Handle, _address: u64, _bytes: usize, _flags: u32) {
        ready()?.stream(stream).map(|_| ())
    }

    fn cuStreamAddCallback(
        stream: Handle,
        callback: Option<unsafe extern "C" fn(Handle, u32, *mut c_void)>,
        data: *mut c_void,
        _flags: u32,
    ) {
        let callback = callback.ok_or(Code::INVALID_VALUE)?;
        let mut driver = ready()?;
        driver.wait_for(stream)?;
        driver.run_stream(stream)?;
        drop(driver);
        // SAFETY: the caller gave a function for this data.
        unsafe { callback(stream, 0, data) };
        Ok(())
    }

    fn cuStreamBeginCapture_v2(stream: Handle, mode: u32) {
        let mode = match mode {
            0 => Mode::Global,
            1 => Mode::ThreadLocal,
            2 => Mode::Relaxed,
            _ => return Err(Code::INVALID_VALUE),
        };
        let mut driver = ready()?;
        let id = driver.handle();
        // The default streams can't be captured.
        let found = driver.streams.get_mut(&stream).ok_or(Code::STREAM_CAPTURE_UNSUPPORTED)?;
        if found.is_capturing() {
            return Err(Code::ILLEGAL_STATE);
        }
        found.capture = Some(id);
        let (operations, reserved, thread) = (Vec::new(), Vec::new(), std::thread::current().id());
        driver.captures.insert(id, Capture { origin: stream, operations, reserved, invalid: false, mode, thread });
        Ok(())
    }

    fn cuStreamEndCapture(stream: Handle, graph: *mut Handle) {
        let mut driver = ready()?;
        let id = driver.stream(stream)?.and_then(|stream| stream.capture).ok_or(Code::ILLEGAL_STATE)?;
        if driver.captures.get(&id).is_some_and(|capture| capture.origin != stream) {
            return Err(Code::STREAM_CAPTURE_UNMATCHED);
        }
        let capture = driver.captures.remove(&id).ok_or(Code::STREAM_CAPTURE_INVALIDATED)?;
        for stream in driver.streams.values_mut().filter(|stream| stream.capture == Some(id)) {
            stream.capture = None;
        }
        for event in driver.events.values_mut().filter(|event| event.capture == Some(id)) {
            event.capture = None;
        }
        let made = Graph::new(capture.operations, capture.reserved);
        if capture.invalid {
            driver.drop_reserved(made.reserved);
            // SAFETY: the caller's promise.
            unsafe { give(graph, 0)? };
            return Err(Code::STREAM_CAPTURE_INVALIDATED);
        }
        let handle = driver.handle();
        driver.graphs.insert(handle, made);
        // SAFETY: the caller's promise.
        unsafe { give(graph, handle) }
    }

    fn cuStreamIsCapturing(stream: Handle, status: *mut u32) {
        let driver = driver()?;
        let capture = driver.stream(stream)?.and_then(|stream| stream.capture);
        let invalid = capture.and_then(|id| driver.captures.get(&id)).is_some_and(|capture| capture.invalid);
        let value = match (capture, invalid) {
            (None, _) => 0,
            (Some(_), false) => 1,
            (Some(_), true) => 2,
        };
        // SAFETY: the caller's promise.
        unsafe { give(status, value) }
    }

    fn cuStreamGetCaptureInfo_v2(
        stream: Handle,
        status: *mut u32,
        id: *mut u64,
        graph: *mut Handle,
        dependencies: *mut *const Handle,
        count: *mut usize,
    ) {
        let driver = driver()?;
        let capture = driver.stream(stream)?.and_then(|stream| stream.capture);
        // SAFETY: the caller's promise; all but the status may be null.
        unsafe {
            if !id.is_null() {
                id.write(capture.unwrap_or(0));
            }
            if capture.is_some() && !(graph.is_null() && dependencies.is_null() && count.is_null()) {
                super::report::say("cuStreamGetCaptureInfo_v2: the graph of a capture has no handle before its end");
                return Err(Code::NOT_SUPPORTED);
            }
            give(status, u32::from(capture.is_some()))
        }
    }
}
