//! Events: marks in time. What they mark is done when they are recorded, since every call does its work at once.

use super::context::current;
use super::{Answer, Code, Handle, api, driver, give, ready};
use std::time::Instant;

/// An event.
pub(super) struct Event {
    pub context: Handle,
    /// Made without timing?
    pub untimed: bool,
    /// When it was last recorded.
    pub time: Option<Instant>,
    /// The capture in which it was last recorded.
    pub capture: Option<Handle>,
}

fn record(event: Handle, stream: Handle) -> Answer {
    let mut driver = ready()?;
    let capture = driver.stream(stream)?.and_then(|stream| stream.capture);
    let event = driver.events.get_mut(&event).ok_or(Code::INVALID_HANDLE)?;
    event.capture = capture;
    if capture.is_none() {
        event.time = Some(Instant::now());
    }
    Ok(())
}

fn wait(event: Handle) -> Answer {
    let driver = ready()?;
    let event = driver.events.get(&event).ok_or(Code::INVALID_HANDLE)?;
    if event.capture.is_some() { Err(Code::CAPTURED_EVENT) } else { Ok(()) }
}

/// Milliseconds of the host between two events: how long the simulation took, not what hardware would take.
fn elapsed(milliseconds: *mut f32, start: Handle, end: Handle) -> Answer {
    let driver = ready()?;
    let find = |handle| driver.events.get(&handle).filter(|event| !event.untimed).ok_or(Code::INVALID_HANDLE);
    let (start, end) = (find(start)?, find(end)?);
    let (Some(from), Some(to)) = (start.time, end.time) else {
        return Err(Code::INVALID_HANDLE);
    };
    let seconds = to.saturating_duration_since(from).as_secs_f32() - from.saturating_duration_since(to).as_secs_f32();
    // SAFETY: the caller's promise.
    unsafe { give(milliseconds, seconds * 1e3) }
}

api! {
    fn cuEventCreate(event: *mut Handle, flags: u32) {
        if flags > 7 {
            return Err(Code::INVALID_VALUE);
        }
        let mut driver = ready()?;
        let context = current().ok_or(Code::INVALID_CONTEXT)?;
        let handle = driver.handle();
        driver.events.insert(handle, Event { context, untimed: flags & 2 != 0, time: None, capture: None });
        // SAFETY: the caller's promise.
        unsafe { give(event, handle) }
    }

    fn cuEventDestroy_v2(event: Handle) {
        driver()?.events.remove(&event).map(|_| ()).ok_or(Code::INVALID_HANDLE)
    }

    fn cuEventRecord(event: Handle, stream: Handle) {
        record(event, stream)
    }

    fn cuEventRecordWithFlags(event: Handle, stream: Handle, flags: u32) {
        if flags > 1 {
            return Err(Code::INVALID_VALUE);
        }
        record(event, stream)
    }

    fn cuEventQuery(event: Handle) {
        wait(event)
    }

    fn cuEventSynchronize(event: Handle) {
        wait(event)
    }

    fn cuEventElapsedTime(milliseconds: *mut f32, start: Handle, end: Handle) {
        elapsed(milliseconds, start, end)
    }

    fn cuEventElapsedTime_v2(milliseconds: *mut f32, start: Handle, end: Handle) {
        elapsed(milliseconds, start, end)
    }
}
