//! The connections of browsers and programs, on a thread of their own until they are to stop.

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};

/// Most connections at a time; others wait until one of them ends.
const CONNECTIONS: usize = 256;

/// How often the wish to stop is looked at: a signal sets no more than a flag.
const TICK: Duration = Duration::from_millis(100);

/// How long requests that are in work may take to their end, once all is to stop.
const ENDING: Duration = Duration::from_secs(10);

/// Serves what connects to `listener` until `stop` is set, and then what is in work to its end. A connection that is silent for so many
/// `seconds` where a request begins is closed.
///
/// # Errors
/// The system's, where it has no timers or watches no connections.
pub fn serve(listener: TcpListener, router: &Router, seconds: u16, stop: &AtomicBool) -> io::Result<()> {
    // As many pictures are decoded at a time as there are cores, so that they take no more memory than that many.
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_io().enable_time().max_blocking_threads(cores).build()?;
    let served = runtime.block_on(accept(listener, router, seconds, stop));
    runtime.shutdown_timeout(TICK);
    served
}

async fn accept(listener: TcpListener, router: &Router, seconds: u16, stop: &AtomicBool) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let connections = GracefulShutdown::new();
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(seconds.into()));
    while !stop.load(Ordering::Relaxed) {
        let (stream, place) = match timeout(TICK, next(&listener, &places)).await {
            Ok(Ok(accepted)) => accepted,
            // The other side has gone again, or there are too many open files for now.
            Ok(Err(_)) => {
                sleep(TICK).await;
                continue;
            }
            Err(_) => continue,
        };
        // Answers are small and written at once.
        let _ = stream.set_nodelay(true);
        let connection = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router.clone()));
        let connection = connections.watch(connection);
        tokio::spawn(async move {
            // What goes wrong on a connection is its own.
            let _ = connection.await;
            drop(place);
        });
    }
    drop(listener);
    let _ = timeout(ENDING, connections.shutdown()).await;
    Ok(())
}

/// The next connection, once there is a place for it.
async fn next(
    listener: &tokio::net::TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, place))
}
