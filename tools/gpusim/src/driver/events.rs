//! Events: marks in time. What they mark is done when they are recorded, unless streams run late.

use super::context::current;
use super::late::{Mark, Work};
use super::state::Driver;
use super::{Answer, Code, Handle, api, driver, give, ready};
use std::time::Instant;

/// An event.
pub(super) struct Event {
    pub context: Handle,
    /// Made without timing?
    pub untimed: bool,
    /// When it was last recorded.
    pub time: Option<Instant>,
    /// Where it was last recorded, if streams run late.
    pub mark: Option<Mark>,
    /// The capture in which it was last recorded.
    pub capture: Option<Handle>,
}

impl Event {
    /// Was it ever recorded outside of a capture?
    pub fn is_recorded(&self) -> bool {
        self.time.is_some() || self.mark.is_some()
    }
}

impl Driver {
    fn event(&self, event: Handle) -> Answer<&Event> {
        self.events.get(&event).ok_or(Code::INVALID_HANDLE)
    }

    /// Where an event was recorded, unless in a capture; nowhere if it was not, or streams don't run late.
    fn mark_of(&self, event: Handle) -> Answer<Option<Mark>> {
        let event = self.event(event)?;
        if event.capture.is_some() { Err(Code::CAPTURED_EVENT) } else { Ok(event.mark) }
    }
}

fn record(handle: Handle, stream: Handle) -> Answer {
    let mut driver = ready()?;
    let capture = driver.stream(stream)?.and_then(|stream| stream.capture);
    driver.event(handle)?;
    let mark = match capture {
        None if driver.late.is_some() => Some(driver.enqueue(stream, Work::Record(handle), None)?),
        _ => None,
    };
    let event = driver.events.get_mut(&handle).ok_or(Code::INVALID_HANDLE)?;
    event.capture = capture;
    match (capture, mark) {
        (Some(_), _) => {}
        (None, Some(mark)) => event.mark = Some(mark),
        (None, None) => event.time = Some(Instant::now()),
    }
    Ok(())
}

/// Milliseconds of the host between two events: how long the simulation took, not what hardware would take.
fn elapsed(milliseconds: *mut f32, start: Handle, end: Handle) -> Answer {
    let driver = ready()?;
    let find = |handle| driver.events.get(&handle).filter(|event| !event.untimed).ok_or(Code::INVALID_HANDLE);
    let (start, end) = (find(start)?, find(end)?);
    if [start, end].iter().any(|event| event.mark.is_some_and(|mark| driver.is_pending(mark))) {
        return Err(Code::NOT_READY);
    }
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
        driver.events.insert(handle, Event { context, untimed: flags & 2 != 0, time: None, mark: None, capture: None });
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
        let mut driver = ready()?;
        let mark = driver.mark_of(event)?;
        driver.query(mark)
    }

    fn cuEventSynchronize(event: Handle) {
        let mut driver = ready()?;
        let mark = driver.mark_of(event)?;
        driver.run_until(mark.as_slice());
        driver.healthy(current().ok_or(Code::INVALID_CONTEXT)?)
    }

    fn cuEventElapsedTime(milliseconds: *mut f32, start: Handle, end: Handle) {
        elapsed(milliseconds, start, end)
    }

    fn cuEventElapsedTime_v2(milliseconds: *mut f32, start: Handle, end: Handle) {
        elapsed(milliseconds, start, end)
    }
}
